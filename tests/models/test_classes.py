"""Abstract or final: no method that does something is overridden, in any class of jaxgen."""

import ast
from typing import NamedTuple

from sources import TREES

Name = tuple[str, str]
"""(module, class)."""


class Class(NamedTuple):
    """What the source says of a class."""

    bases: list[Name]
    methods: dict[str, ast.FunctionDef]
    fields: set[str]


def read(trees: dict[str, ast.Module]) -> dict[Name, Class]:
    """Every class at the top of those modules; bases from elsewhere are left out."""
    classes = {}
    for module, tree in trees.items():
        names = {
            alias.asname or alias.name: (str(node.module), alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        tops = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        names |= {node.name: (module, node.name) for node in tops}
        for node in tops:
            bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
            assert all(isinstance(base, ast.Name | ast.Attribute) for base in bases)
            found = [names.get(base.id) for base in bases if isinstance(base, ast.Name)]
            methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
            fields = {
                target.id
                for n in node.body
                if isinstance(n, ast.Assign | ast.AnnAssign)
                for target in (n.targets if isinstance(n, ast.Assign) else [n.target])
                if isinstance(target, ast.Name)
            }
            inside = [base for base in found if base and base[0].startswith("jaxgen.")]
            classes[module, node.name] = Class(inside, methods, fields)
    return classes


def ancestors(classes: dict[Name, Class], name: Name) -> list[Name]:
    above = [base for base in classes[name].bases if base in classes]
    return above + [other for base in above for other in ancestors(classes, base)]


def may_be_given(method: ast.FunctionDef) -> bool:
    """Whether it is abstract, or a default: one that says nothing, or hands back a constant or its
    own arguments."""
    if any("abstractmethod" in ast.unparse(d) for d in method.decorator_list):
        return True
    text = isinstance(method.body[0], ast.Expr) and isinstance(method.body[0].value, ast.Constant)
    body = method.body[1:] if text else method.body
    if not body:
        return True
    if len(body) > 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        return False
    # What is called, such as a NamedTuple, is made of constants; no attribute is looked up.
    plain = (ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Dict, ast.Call, ast.expr_context)
    return all(isinstance(node, plain) for node in ast.walk(body[0].value))


def overridden(classes: dict[Name, Class]) -> list[str]:
    """Every method that is given again though an ancestor implements it."""
    return [
        f"{module}.{name}.{given} overrides {above[0]}.{above[1]}.{given}"
        for (module, name), cls in classes.items()
        for above in ancestors(classes, (module, name))
        for given in cls.methods.keys() | cls.fields
        if given in classes[above].methods and not may_be_given(classes[above].methods[given])
    ]


def test_the_reader_finds_what_is_planted():
    base = """
class Base(ABC):
    def work(self):
        return self.field
    def final(self):
        "Says so."
        print()
    def hook(self): "Says nothing."
    def default(self, a): return a, {}
    @abstractmethod
    def asked(self): return 1
    @property
    def sides(self): return 1
"""
    child = """
from jaxgen.a import Base as Other
class Child(Other[int]):
    work = 3
    def hook(self): return 1
    def default(self, a): return self
    def asked(self): return 2
    sides: int = 4
class Grandchild(Child):
    def final(self): pass
    def default(self, a): return 5
"""
    classes = read({"jaxgen.a": ast.parse(base), "jaxgen.b": ast.parse(child)})
    assert sorted(overridden(classes)) == [
        "jaxgen.b.Child.work overrides jaxgen.a.Base.work",
        "jaxgen.b.Grandchild.final overrides jaxgen.a.Base.final",
    ]
    constant = ast.parse("def f(self): return self.x").body[0]
    assert isinstance(constant, ast.FunctionDef) and not may_be_given(constant)


def test_no_implemented_method_is_overridden():
    classes = read(TREES)
    above = ancestors(classes, ("jaxgen.models.autoregressive.made", "MADE"))
    assert ("jaxgen.model", "Model") in above and ("jaxgen.abilities", "Completes") in above
    assert overridden(classes) == []


def test_no_method_calls_the_one_that_it_overrides():
    """But for Python's own exceptions, whose message is made so."""
    for module, tree in TREES.items():
        for node in tree.body:
            above = node.bases if isinstance(node, ast.ClassDef) else []
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert "Exception" in map(ast.unparse, above) or "super" not in names, (module, node)
