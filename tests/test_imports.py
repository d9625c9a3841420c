"""The architecture: imports point one way, heavy packages load late, and all flags have help."""

import ast
import dataclasses
import graphlib
import importlib
import inspect
import json
import subprocess
import sys
import types
import typing

import pytest
from sources import FILES, PACKAGE, TREES

import jaxgen
from jaxgen.cli import command, commands, prepare
from jaxgen.data.config import DataConfig
from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS
from jaxgen.runs.config import TrainConfig


def imported(tree: ast.AST, names: typing.Container[str]) -> set[str]:
    """The modules that the code imports: `from a import b` is a.b where that is a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in names else node.module)
    return found


ALL = {name: imported(tree, FILES) for name, tree in TREES.items()}
AT_IMPORT = {  # what is not inside a function
    name: imported(
        ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)], []),
        FILES,
    )
    for name, tree in TREES.items()
}


def ours(name: str) -> set[str]:
    """What a module takes from jaxgen, without the prefix, wherever in the file it imports it."""
    return {other.removeprefix("jaxgen.") for other in ALL[name] if other.startswith("jaxgen.")}


def test_the_reader_of_imports_sees_all_forms():
    code = "import a.b\nfrom c import d\ndef f():\n    from c import e\n    import g as h"
    assert imported(ast.parse(code), {"c.d"}) == {"a.b", "c.d", "c", "g"}
    assert {"jaxgen.models.latent.vae", "jaxgen.data", "jaxgen"} <= FILES.keys()
    assert "platformdirs" in ALL["jaxgen.files"] - AT_IMPORT["jaxgen.files"]


MAY_IMPORT = {
    "errors": "",
    "files": "",
    "fields": "",
    "spec": "",
    "nn": "",
    "model": "spec",
    "abilities": "model",
    "distributions": "model",
    "losses": "distributions",
    "optim": "model fields",
    "causal": "spec nn distributions",
    "models.autoregressive": "spec model abilities fields nn distributions losses optim causal",
    "models.latent": "spec model abilities fields nn distributions losses optim causal "
    "models.autoregressive",
    "models.adversarial": "spec model abilities fields nn distributions losses optim causal",
    "media": "spec files",
    "data": "spec files media",
    "parallel": "spec model abilities data files",
    "runs": "model abilities data files",
    "training": "model abilities fields data media parallel runs",
    "evaluation": "spec model abilities optim data media parallel runs",
    "report": "spec model abilities distributions data files media parallel runs evaluation",
    "compression": "model abilities optim causal runs models.autoregressive.base",
    "registry": "spec model abilities models optim data runs",
}
"""What each room takes from others; `errors` is free to all, `cli` takes from all of them."""


def room(name: str) -> str:
    """The room that a module is in: a file at the top, or a package; of models, a family."""
    parts = name.removeprefix("jaxgen.").split(".")
    return ".".join(parts[:2]) if parts[0] == "models" else parts[0]


def test_imports_point_one_way():
    def strays(name: str) -> set[str]:
        allowed = MAY_IMPORT.get(room(name), "").split()
        others = {o for o in ours(name) if room(o) not in (room(name), "errors")}
        return {o for o in others if not any(f"{o}.".startswith(f"{a}.") for a in allowed)}

    names = [n for n in FILES if n != "jaxgen" and room(n) != "cli"]
    assert {name: found for name in names if (found := strays(name))} == {}


def test_the_rooms_are_those_of_the_table():
    assert {room(n) for n in FILES} - {"jaxgen", "models", "cli"} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "name", [n for n, path in FILES.items() if path.name == "__init__.py" and n != "jaxgen"]
)
def test_a_package_defines_nothing(name):
    rest = [n for n in TREES[name].body[1:] if not isinstance(n, ast.ImportFrom)]
    assert [ast.unparse(n).split(" = ")[0] for n in rest] in ([], ["__all__"])


@pytest.mark.parametrize(("package", "users"), [
    ("tyro", {"jaxgen.cli.parse", "jaxgen.cli.prepare"}),
    ("orbax", {"jaxgen.runs.checkpoint"}),
    ("tensorboardX", {"jaxgen.runs.tensorboard"}),
    ("matplotlib", {"jaxgen.report.charts", "jaxgen.media.points"}),
    ("tensorflow", set()),
    ("torch", set()),
])  # fmt: skip
def test_a_package_has_one_user(package, users):
    uses = {n for n, names in ALL.items() if package in {other.split(".")[0] for other in names}}
    assert uses == users


def test_no_cycles():
    """Not even through imports inside functions; `jaxgen` itself, which re-exports, aside."""
    graph = {
        name: {other for other in names if other in FILES} - {"jaxgen"}
        for name, names in ALL.items()
        if name != "jaxgen"
    }
    # A package imports its own modules, and they import each other, not the package.
    order = list(graphlib.TopologicalSorter(graph).static_order())
    places = [order.index(f"jaxgen.{n}") for n in ("errors", "model", "registry", "cli.main")]
    assert places == sorted(places)
    assert not any("jaxgen" in names for names in ALL.values())


def test_import_is_light():
    heavy = [
        "orbax", "matplotlib", "sklearn", "skimage", "tensorflow_datasets", "tensorflow",
        "tensorboardX", "PIL", "tqdm", "tyro", "jinja2", "platformdirs",
    ]  # fmt: skip
    code = (
        "import sys, json, jaxgen; import jax._src.xla_bridge as bridge\n"
        "print(json.dumps([sorted({m.split('.')[0] for m in sys.modules}),"
        " bridge.backends_are_initialized()]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120,
        cwd=PACKAGE.parent,
    )  # fmt: skip
    loaded, touched_devices = json.loads(run.stdout)
    assert "jaxgen" in loaded and "flax" in loaded
    assert [name for name in heavy if name in loaded] == []
    assert not touched_devices


def test_public_names_exist_and_are_documented():
    assert len(set(jaxgen.__all__)) == len(jaxgen.__all__)
    public = [getattr(jaxgen, name) for name in jaxgen.__all__]
    bare = [
        name
        for name, thing in zip(jaxgen.__all__, public, strict=True)
        if inspect.isclass(thing) | inspect.isfunction(thing) and not own_docstring(thing)
    ]
    assert bare == []
    imported_here = {
        alias.asname or alias.name
        for node in TREES["jaxgen"].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported_here == set(jaxgen.__all__) and len(jaxgen.__all__) <= 32


def own_docstring(thing: typing.Any) -> bool:
    """Whether it has a docstring that was written, not one that a dataclass made."""
    doc = (thing.__doc__ or "").strip()
    return bool(doc) and not doc.startswith(f"{thing.__name__}(")


def documented_fields(cls: type) -> set[str]:
    """The fields of a class that have a docstring under them, in it or in a base class."""
    found = set()
    for base in cls.__mro__:
        if not base.__module__.startswith("jaxgen"):
            continue
        tree = TREES[base.__module__]
        [body] = [n.body for n in tree.body if getattr(n, "name", "") == base.__name__]
        for node, below in zip(body, body[1:], strict=False):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if isinstance(node, ast.AnnAssign) and is_text:
                assert isinstance(node.target, ast.Name) and isinstance(below.value.value, str)
                found.add(node.target.id)
    return found


CONFIGS = [
    *(type(preset.model) for preset in MODELS.values()),
    *(Optimizer, DataConfig, TrainConfig, prepare.Prepare),
    *commands.COMMANDS.values(),
]


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_flag_has_its_help(cls):
    names = [f.name for f in dataclasses.fields(cls) if f.name != "spec"]
    assert [name for name in names if name not in documented_fields(cls)] == []
    assert own_docstring(cls)


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_every_flag_has_a_type_that_json_brings_back(cls):
    """run.json is the configuration: lists become tuples, and nothing else changes its type."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        for kind in kinds:
            plain = kind in (int, float, str, bool, type(None))
            literal = typing.get_origin(kind) is typing.Literal
            ints = kind in (tuple[int, ...], tuple[str, ...])
            nested = dataclasses.is_dataclass(kind)
            assert plain or literal or ints or nested, (field.name, kind)


def test_every_command_is_listed_in_the_usage():
    assert set(commands.COMMANDS.values()) == set(command.Command.__subclasses__())
    for name in ["train", *commands.COMMANDS, "list", "describe", "prepare"]:
        assert f"\n  jaxgen {name} " in commands.usage()


def test_every_module_says_what_it_is():
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []
    for name in TREES:
        importlib.import_module(name)
