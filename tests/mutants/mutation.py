"""What can be wrong with a line: every mutant of a function, one small edit each.

    row = (d_y * y).sum(axis=axis, keepdims=True)       row = (d_y / y).sum(axis=axis, keepdims=True)
                                                        row = d_y.sum(axis=axis, keepdims=True)
                                                        row = (d_y * y).mean(axis=axis, keepdims=True)
                                                        row = (d_y * y).sum(keepdims=True)
                                                        ...

The edits are those that the authors of backward passes make: another operator or sign, a term or factor that is missing, a sum
over another axis or without one, a transpose that is missing, arguments and gradients in another order, another constant or
bound, a condition that is off by one, inverted or missing, a line that is missing. Docstrings, annotations and the wording of
errors are left alone; whether an error is raised is not.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.MatMult: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}
COMMUTE = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
# functions and methods that are easily meant for each other
TWINS = {a: b for pair in (("sum", "mean"), ("max", "min"), ("maximum", "minimum"), ("zeros", "ones"), ("any", "all"),
                           ("argmax", "argmin"), ("sin", "cos")) for a, b in (pair, pair[::-1])}
# f(x, ...) and x.f(...) that leave something like x when they are forgotten
FORGOTTEN_FUNCTIONS = {"abs", "argsort", "asarray", "broadcast_to", "clip", "cos", "diff", "erfc", "exp", "float", "log", "max",
                       "maximum", "minimum", "reversed", "sin", "sqrt", "tanh"}
FORGOTTEN_METHODS = {"argmax", "astype", "max", "mean", "min", "reshape", "sum", "swapaxes"}
FORGOTTEN_ATTRIBUTES = {"T", "real"}
# f(a, b) is f(b, a)
SYMMETRIC = {"max", "maximum", "min", "minimum", "result_type", "swapaxes"}


@dataclass(frozen=True)
class Mutant:
    """old, new: the statement before and after, on one line each; of a compound statement only its head.
    number: 1, or 2, 3, ... where a function has the same line several times."""

    function: str
    old: str
    new: str
    number: int
    tree: ast.FunctionDef

    def __str__(self) -> str:
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.function}{again}\n- {self.old}\n+ {self.new}"


def mutants(function: ast.FunctionDef, name: str) -> Iterator[Mutant]:
    """Every mutant of a function, in the order of its lines. `name` is the function's in the mutants."""
    function = _without_annotations(function)
    numbers: Counter[tuple[str, str]] = Counter()
    made: set[tuple[int, str]] = set()
    for statement, edited in _edits(function):
        old, new = _line(statement), _line(edited)
        left, _, right = new.partition(" = ")
        if old == new or left == right or (id(statement), new) in made:  # two equals swapped; x = x; another way to the same line
            continue
        made.add((id(statement), new))
        numbers[old, new] += 1
        yield Mutant(name, old, new, numbers[old, new], _replaced(function, statement, edited))


def _without_annotations(function: ast.FunctionDef) -> ast.FunctionDef:
    function = copy.deepcopy(function)
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return function


def _edits(function: ast.FunctionDef) -> Iterator[tuple[ast.stmt, ast.stmt]]:
    """Pairs of a statement and what stands in its place. The function itself is the statement that holds the defaults."""
    known = {argument.arg for argument in ast.walk(function.args) if isinstance(argument, ast.arg)}
    backward = "backward" in function.name
    for statement in _statements(function):
        if isinstance(statement, ast.Raise):
            yield statement, ast.Pass()
            continue
        for edited in _with_other_expressions(statement):
            yield statement, edited
        for edited in _other_statements(statement, known, backward):
            yield statement, edited
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            known |= _stored(statement)


def _statements(function: ast.FunctionDef) -> list[ast.stmt]:
    found = [node for node in ast.walk(function) if isinstance(node, ast.stmt) and not _is_docstring(node)]
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


# ---------------------------------------------------------------------------------------------------- statements

def _other_statements(statement: ast.stmt, known: set[str], backward: bool) -> Iterator[ast.stmt]:
    """known: the names that have a value before the statement, so that it could be missing."""
    match statement:
        case ast.Assign(targets=[target]):
            if _stored(target) <= known:
                yield ast.Pass()
        case ast.AugAssign(target=target, op=op, value=value):
            yield ast.Pass()
            yield ast.Assign([target], value, lineno=statement.lineno)
            yield ast.AugAssign(target, OPERATORS[type(op)](), value)
        case ast.Expr():
            yield ast.Pass()
        case ast.If(test=test, body=body, orelse=orelse):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
            yield ast.If(ast.Constant(True), body, orelse)
            if not isinstance(body[0], ast.Raise):  # or it would be the same as to leave out the raise
                yield ast.If(ast.Constant(False), body, orelse)
        case ast.Return(value=ast.Tuple(elts=elements)) if backward:
            for index, element in enumerate(elements):
                if isinstance(element, ast.Name | ast.BinOp | ast.Subscript):
                    negated = [*elements[:index], ast.UnaryOp(ast.USub(), element), *elements[index + 1:]]
                    yield ast.Return(ast.Tuple(negated, ast.Load()))
        case ast.Return(value=value) if backward and value is not None:
            yield ast.Return(ast.UnaryOp(ast.USub(), value))
            if statement.col_offset > 8:  # an early return
                yield ast.Pass()


def _stored(node: ast.AST) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}


def _line(statement: ast.stmt) -> str:
    """The statement on one line; of a compound one its head."""
    if isinstance(statement, ast.FunctionDef | ast.If | ast.For | ast.While | ast.With | ast.Try):
        head = copy.copy(statement)
        head.body = [ast.Pass()]
        for rest in {"orelse", "finalbody", "decorator_list"} & set(head._fields):
            setattr(head, rest, [])
        statement = head
        return ast.unparse(ast.fix_missing_locations(statement)).splitlines()[0]
    return " ".join(ast.unparse(ast.fix_missing_locations(statement)).split())


def _replaced(function: ast.FunctionDef, old: ast.stmt, new: ast.stmt) -> ast.FunctionDef:
    """The function with one statement replaced. What is not changed is shared: trees are never written to."""

    class Replace(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is old:
                return ast.copy_location(new, old)
            if isinstance(node, ast.stmt | ast.ExceptHandler):
                fresh = copy.copy(node)
                for field in ("body", "orelse", "handlers", "finalbody"):
                    if hasattr(node, field):
                        setattr(fresh, field, [self.visit(child) for child in getattr(node, field)])
                return fresh
            return node

    replaced = Replace().visit(function)
    assert isinstance(replaced, ast.FunctionDef)
    return ast.fix_missing_locations(replaced)


# ---------------------------------------------------------------------------------------------------- expressions

def _with_other_expressions(statement: ast.stmt) -> Iterator[ast.stmt]:
    """The statement with one expression replaced; the statements within it are left alone."""
    for field, value in ast.iter_fields(statement):
        if field in ("body", "orelse", "handlers", "finalbody", "targets", "target", "annotation", "decorator_list"):
            continue
        for other in _others(value):
            edited = copy.copy(statement)
            setattr(edited, field, other)
            yield edited


def _others(value: object) -> Iterator[object]:
    """Whatever may stand in a field, with one edit somewhere in it."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            for other in _others(item):
                yield [*value[:index], other, *value[index + 1:]]
    elif isinstance(value, ast.AST):
        yield from _alternatives(value)
        if isinstance(value, ast.UnaryOp) and isinstance(value.operand, ast.Constant):
            return  # -1 is one number
        for field, child in ast.iter_fields(value):
            for other in _others(child):
                edited = copy.copy(value)
                setattr(edited, field, other)
                yield edited


def _alternatives(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of an expression."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
            yield left
            yield ast.UnaryOp(ast.USub(), right) if isinstance(op, ast.Sub) else right
            if not isinstance(op, COMMUTE):
                yield ast.BinOp(right, op, left)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=number)):
            yield ast.Constant(number)
            yield ast.UnaryOp(ast.USub(), ast.Constant(number + 1))
            yield ast.UnaryOp(ast.USub(), ast.Constant(number - 1)) if number > 1 else ast.Constant(0)
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.Constant(value=bool() | None as value):
            if value is not None:
                yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            if number == 0:
                yield ast.Constant(type(number)(1))
            else:
                yield ast.Constant(type(number)(0) if isinstance(number, float) else number - 1)
                yield ast.Constant(2 * number if isinstance(number, float) else number + 1)
        case ast.Constant(value=str() as text):
            yield ast.Constant(f"not {text}")
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for index, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ast.Compare(left, [*ops[:index], other(), *ops[index + 1:]], comparators)
            if len(ops) > 1:
                yield ast.Compare(left, ops[:-1], comparators[:-1])
                yield ast.Compare(comparators[0], ops[1:], comparators[1:])
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
            for index in range(len(values)):
                rest = values[:index] + values[index + 1:]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.Attribute(value=value, attr=attr) if attr in FORGOTTEN_ATTRIBUTES:
            yield value
        case ast.Slice(lower=lower, upper=upper, step=step):
            for bounds in ((None, upper, step), (lower, None, step), (lower, upper, None)):
                yield ast.Slice(*bounds)
        case ast.Tuple(elts=elements, ctx=ast.Load()) | ast.List(elts=elements, ctx=ast.Load()):
            for swapped in _swapped(elements):
                yield type(node)(swapped, ast.Load())
        case ast.Call():
            yield from _other_calls(node)


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    function, arguments, keywords = call.func, call.args, call.keywords
    if (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) not in SYMMETRIC:
        for swapped in _swapped(arguments):
            yield ast.Call(function, swapped, keywords)
    if len(arguments) > 1:
        yield ast.Call(function, arguments[:-1], keywords)
    for index in range(len(keywords)):
        yield ast.Call(function, arguments, keywords[:index] + keywords[index + 1:])
    for values in _swapped([keyword.value for keyword in keywords]):
        yield ast.Call(function, arguments, [ast.keyword(keyword.arg, value)
                                             for keyword, value in zip(keywords, values, strict=True)])
    match function:
        case ast.Attribute(value=ast.Name(id="np" | "math"), attr="where"):
            yield from arguments[1:]
        case ast.Attribute(value=ast.Name(id="np" | "math"), attr=name) | ast.Name(id=name):
            if name in FORGOTTEN_FUNCTIONS:
                yield arguments[0]
        case ast.Attribute(value=owner, attr=name):
            if name in FORGOTTEN_METHODS:
                yield owner
    if isinstance(function, ast.Attribute) and function.attr in TWINS:
        yield ast.Call(ast.Attribute(function.value, TWINS[function.attr], ast.Load()), arguments, keywords)


def _swapped(items: list[ast.expr]) -> Iterator[list[ast.expr]]:
    """Each two neighbours in turn exchanged."""
    for index in range(len(items) - 1):
        yield [*items[:index], items[index + 1], items[index], *items[index + 2:]]
