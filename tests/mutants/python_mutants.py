"""Mutants of a Python file: each changes one expression, argument, constant or statement."""

import ast
import re
from collections.abc import Iterator

from tests.mutants.mutant import Mutant

_OTHER_COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
_OTHER_OPERATOR: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
_LEFT_ALONE = (ast.Import, ast.ImportFrom, ast.Assert, ast.JoinedStr, ast.Raise)
_OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
_QUANTITY = re.compile(r"[a-z_]+_(s|ms|bytes|max|size)$")
_SILENT_CALLS = {"log", "tell"}
"""Objects whose calls write logs: they are not mutated."""
_STATIC_CALLS = {"TypeVar", "ContextVar", "NewType", "get_logger", "compile", "Struct"}
_STATIC_KEYWORDS = {"strict", "frozen", "kw_only", "repr", "name", "exc_info"}


class PythonMutants(ast.NodeVisitor):
    """Collects the mutants of one source text."""

    def __init__(self, path: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._path = path
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    # Parts that are not mutated: docstrings, types, logs, interfaces.

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Skip interfaces and, in other classes, bases and keywords."""
        if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            self._all(node.body)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Change defaults and the body, but no annotation or decorator."""
        self._all([*node.args.defaults, *(each for each in node.args.kw_defaults if each is not None)])
        self._all(node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Change the same parts as in a function."""
        self.visit_FunctionDef(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Change the value, not its type."""
        if node.value is not None:
            self.visit(node.value)

    def visit(self, node: ast.AST) -> None:
        """Skip these completely."""
        if not isinstance(node, _LEFT_ALONE):
            super().visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Remove a call whose value is not used."""
        if isinstance(node.value, ast.Constant) or self._is_silent(node.value):
            return
        self._put("statement left out", node, "pass")
        self.visit(node.value)

    # Statements.

    def visit_Assign(self, node: ast.Assign) -> None:
        """Remove an assignment to an attribute or an element."""
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        if "__slots__" in names or (isinstance(node.value, ast.Subscript) and names and names.pop().istitle()):
            return
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._put("statement left out", node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """Remove or invert an in-place change."""
        self._put("statement left out", node, "pass")
        if (pair := _OTHER_OPERATOR.get(type(node.op))) is not None:
            self._between("operator", node.target, node.value, pair[0] + "=", pair[1] + "=")
        self.visit(node.value)

    def visit_Delete(self, node: ast.Delete) -> None:
        """Remove a deletion, except of a name, which only marks an unused argument."""
        if any(not isinstance(target, ast.Name) for target in node.targets):
            self._put("statement left out", node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        """Return nothing."""
        if node.value is None:
            self._put("statement left out", node, "pass")
        elif not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._put("returns nothing", node, "return None")
            self.visit(node.value)

    def visit_Break(self, node: ast.Break) -> None:
        """Remove a `break`."""
        self._put("statement left out", node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        """Remove a `continue`."""
        self._put("statement left out", node, "pass")

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        """Re-raise the exception instead of handling it."""
        if not isinstance(node.body[0], ast.Raise):
            self._replace("handler left out", self._start(node.body[0]), self._stop(node.body[-1]), "raise")
        self._all(node.body)

    def visit_If(self, node: ast.If | ast.IfExp) -> None:
        """Invert the condition."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self._negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """Invert the condition."""
        self.visit_If(node)

    def visit_While(self, node: ast.While) -> None:
        """Invert the condition, except of an endless loop."""
        if not isinstance(node.test, ast.Constant):
            self._negate(node.test)
            self.visit(node.test)
        self._all([*node.body, *node.orelse])

    # Expressions.

    def visit_comprehension(self, node: ast.comprehension) -> None:
        """Invert filters."""
        for test in node.ifs:
            self._negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        """Move or invert a bound."""
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            self._between("comparison", left, right, *_OTHER_COMPARE[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """Replace the operator, or omit one part."""
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("and/or", left, right, *words)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """Remove a sign or a `not`."""
        if isinstance(node.op, ast.Not):
            self._put("not left out", node, f"({self._text(node.operand)})")
        elif isinstance(node.op, ast.USub) and not self._is_ceiling(node):
            self._put("sign left out", node, self._text(node.operand))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Calculate otherwise."""
        is_text = any(
            isinstance(side, ast.Constant) and isinstance(side.value, str) for side in (node.left, node.right)
        )
        if (pair := _OTHER_OPERATOR.get(type(node.op))) is not None and not is_text:
            self._between("operator", node.left, node.right, *pair)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Omit arguments, double quantities, replace the smallest by the largest."""
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if self._is_silent(node) or name in _STATIC_CALLS:
            return
        if name in _OTHER_NAME:
            self._put("other function", node.func, _OTHER_NAME[name])
        self.visit(node.func)
        for argument in node.args:
            self._double(argument)
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg not in _STATIC_KEYWORDS:
                self._double(keyword.value)
                self.visit(keyword.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Replace a number, a truth value or a word by another one."""
        match node.value:
            case bool(value):
                self._put("constant", node, str(not value))
            case int(value):
                self._put("constant", node, str(value * 100 if value > 10 else value + 1))
            case float(value):
                self._put("constant", node, repr(value * 100 or 1.0))
            case str(value) if value and " " not in value:
                self._put("constant", node, repr(value + "~"))
            case bytes(value) if value:
                self._put("constant", node, repr(value + b"~"))

    # Helpers.

    def _all(self, nodes: list[ast.stmt] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def _negate(self, test: ast.expr) -> None:
        self._put("condition turned round", test, f"not ({self._text(test)})")

    def _double(self, argument: ast.expr) -> None:
        name = argument.id if isinstance(argument, ast.Name) else getattr(argument, "attr", "")
        if _QUANTITY.match(name):
            self._put("quantity doubled", argument, f"({self._text(argument)} * 2)")

    def _is_silent(self, node: ast.expr) -> bool:
        target = node.func if isinstance(node, ast.Call) else None
        owner = target.value if isinstance(target, ast.Attribute) else target
        return isinstance(owner, ast.Name) and owner.id in _SILENT_CALLS

    def _is_ceiling(self, node: ast.UnaryOp) -> bool:
        return self._source[self._start(node) - 1 : self._start(node)] == b"-" or b"//" in self._text(node).encode()

    def _start(self, node: ast.AST) -> int:
        return self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def _stop(self, node: ast.AST) -> int:
        return self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        return self._source[self._start(node) : self._stop(node)].decode()

    def _put(self, kind: str, node: ast.AST, text: str) -> None:
        self._replace(kind, self._start(node), self._stop(node), text)

    def _between(self, kind: str, left: ast.AST, right: ast.AST, before: str, after: str) -> None:
        start, stop = self._stop(left), self._start(right)
        at = self._source.find(before.encode(), start, stop)
        if at >= 0:
            self._replace(kind, at, at + len(before), after)

    def _replace(self, kind: str, start: int, stop: int, text: str) -> None:
        self.found.append(Mutant(path=self._path, kind=kind, start=start, stop=stop, text=text))


def python_mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """Return all mutants of a Python file; a few of them do not compile."""
    visitor = PythonMutants(path, source)
    visitor.visit(ast.parse(source))
    seen: set[tuple[int, int, str]] = set()
    for mutant in visitor.found:
        place = (mutant.start, mutant.stop, mutant.text)
        if place not in seen:
            seen.add(place)
            yield mutant
