"""The rules of the house, read from the sources: who may name what, how long things are."""

import ast
import dataclasses
import re

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


@pytest.mark.parametrize("name", GENERAL)
def test_a_general_file_names_no_model_no_metric_and_no_field(name):
    said = texts(TREES[name])
    models = re.compile(r"\b({})\b".format("|".join(sorted(map(re.escape, NAMES)))))
    assert [text for text in said if models.search(text)] == [], "rename the model: it is a word"
    assert [text for text in said if text in METRICS] == [], "rename the metric: it is a word"
    touched = [
        ast.unparse(node)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute)
        and node.attr in FIELDS
        and ast.unparse(node.value).split(".")[-1] == "model"
    ]
    assert touched == []


@pytest.mark.parametrize("name", TREES)
def test_no_message_spells_a_models_flag(name):
    """A message names the field; the command line makes the flag of it."""
    assert [text for text in texts(TREES[name]) if FLAGS.search(text)] == []


@pytest.mark.parametrize("name", TREES)
def test_only_heavy_packages_are_imported_inside_functions(name):
    inside = [
        node.module
        for function in functions(TREES[name])
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jaxgen")
    ]
    assert inside == []


@pytest.mark.parametrize("name", TREES)
def test_files_and_functions_are_short(name):
    lines = (PACKAGE / name).read_text().count("\n")
    assert lines <= 320
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(TREES[name])}
    assert {n: length for n, length in long.items() if length > 56} == {}


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


@pytest.mark.parametrize("name", TREES)
def test_no_docstring_begins_with_of(name):
    alone = [
        n.value.value
        for n in ast.walk(TREES[name])
        if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    ]
    assert [t for t in alone if isinstance(t, str) and t.startswith("Of ")] == []
