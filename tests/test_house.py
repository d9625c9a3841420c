"""The rules of the house, read from the sources: who may name what, how long things are."""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import sources
from sources import FILES, PACKAGE

from jaxgen.optim.optimizer import Optimizer
from jaxgen.registry import MODELS

TREES = {str(path.relative_to(PACKAGE)): sources.TREES[name] for name, path in FILES.items()}
GENERAL = [
    name
    for name in TREES
    if not name.startswith(("models/", "compression/"))
    and name not in ("registry.py", "__init__.py")
]
"""Files that serve every model, and so name none; compression serves one family, by its base."""

KINDS = {type(preset.model) for preset in MODELS.values()}
NAMES = (set(MODELS) | {kind.__name__ for kind in KINDS}) - {"made"}  # a word, too
METRICS = {name for kind in KINDS for name in kind.metrics}
FIELDS = {f.name for kind in KINDS for f in dataclasses.fields(kind)} - {"spec"}
FLAGS = re.compile(r"--(…|({})\.)".format("|".join(MODELS)))


def docstrings(tree: ast.AST) -> set[int]:
    """The ids of the constants that stand alone: docstrings, and texts under fields."""
    return {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}


def texts(tree: ast.AST) -> list[str]:
    """The strings of a file that are no docstrings."""
    alone = docstrings(tree)
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone
    ]


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]


def wrong(find: Callable[[ast.Module], Any], names: Iterable[str] = TREES) -> dict[str, Any]:
    """What `find` finds wrong in these files, by file."""
    return {name: found for name in names if (found := find(TREES[name]))}


def test_a_general_file_names_no_model():
    names = re.compile(r"\b({})\b".format("|".join(sorted(map(re.escape, NAMES)))))
    found = wrong(lambda tree: [t for t in texts(tree) if names.search(t)], GENERAL)
    assert found == {}, "rename the model: it is a word"


def test_a_general_file_names_no_metric():
    found = wrong(lambda tree: [t for t in texts(tree) if t in METRICS], GENERAL)
    assert found == {}, "rename the metric: it is a word"


def test_a_general_file_touches_no_field_of_a_model():
    def touched(tree: ast.Module) -> list[str]:
        return [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr in FIELDS
            and ast.unparse(node.value).split(".")[-1] == "model"
        ]

    assert wrong(touched, GENERAL) == {}


def test_no_message_spells_a_models_flag():
    """A message names the field; the command line makes the flag of it."""
    assert wrong(lambda tree: [t for t in texts(tree) if FLAGS.search(t)]) == {}


def test_only_heavy_packages_are_imported_inside_functions():
    def inside(tree: ast.Module) -> list[str]:
        nodes = (node for function in functions(tree) for node in ast.walk(function))
        named = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
        return [name for name in named if name.startswith("jaxgen")]

    assert wrong(inside) == {}


def test_files_and_functions_are_short():
    lines = {name: (PACKAGE / name).read_text().count("\n") for name in TREES}
    assert {name: number for name, number in lines.items() if number > 320} == {}
    length = lambda f: f.end_lineno - f.lineno + 1  # noqa: E731
    assert wrong(lambda tree: [f.name for f in functions(tree) if length(f) > 56]) == {}


@pytest.mark.parametrize("kind", [*sorted(KINDS, key=lambda k: k.__name__), Optimizer])
def test_the_help_of_a_field_is_a_sentence(kind):
    """Not "Of the whole network.": who reads --help has no page before it."""
    for base in kind.__mro__:
        if not base.__module__.startswith("jaxgen"):
            continue
        tree = sources.TREES[base.__module__]
        [body] = [n.body for n in tree.body if getattr(n, "name", "") == base.__name__]
        for node, below in zip(body, body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
                text = below.value.value
                assert not text.startswith("Of "), (base.__name__, ast.unparse(node.target))
                assert len(text.split()) >= 3 and text.rstrip().endswith((".", ")"))


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda k: k.__name__))
def test_a_model_is_told_in_one_line(kind):
    """The first line of its docstring, which `jaxgen list` shows, is a sentence."""
    first = kind.__doc__.splitlines()[0]
    assert first.endswith(".") and len(first) < 95


def test_no_docstring_begins_with_of():
    def begins(tree: ast.Module) -> list[str]:
        alone = [n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)]
        said = [n.value for n in alone if isinstance(n, ast.Constant)]
        return [text for text in said if isinstance(text, str) and text.startswith("Of ")]

    assert wrong(begins) == {}
