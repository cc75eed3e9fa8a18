"""The line of Python that makes a report again, as it stands where that can be.

    import numpy as np; from kernels import f, f_vjp; from transformer_np.gradcheck import check_vjp; \
print(check_vjp(f, f_vjp, [np.array([1.5, -2.0])], seed=0))

What can be imported is imported, and small inputs are written out. Larger ones are `report.inputs`, and a lambda or a local
function is a name; a comment at the end of the line then says what they are.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer_np.gradcheck.calling.foreign import is_foreign, to_numpy
from transformer_np.gradcheck.calling.trees import leaves
from transformer_np.layer import describe

MAX_NUMBERS = 20            # so many are written out


def reproducer(call: str, subjects: Mapping[str, Any], inputs: Sequence[Any] | None, keywords: Mapping[str, Any],
               reference: str | None = None) -> str:
    """call: of the function of this package.   subjects: what it was called with, by the name of its parameter.
    inputs: None where the call has none.   reference: the name of a pair, where that comes first.
    keywords: those that are not at their defaults. A function among them is imported too."""
    imports: dict[str, str] = {}                             # statement by the name that it defines
    comments: list[str] = []

    def named(parameter: str, subject: Any) -> str:
        path = _path_of(subject)
        if path is None:
            name = str(getattr(subject, "__name__", parameter))
            name = name if name.isidentifier() else parameter
            comments.append(f"{name}: {place_of(subject)}")
            return name
        module, qualname = path
        first, _, rest = qualname.partition(".")
        statement = f"from {module} import {first}"
        if imports.setdefault(first, statement) != statement:  # two functions of one name
            first, statement = parameter, f"{statement} as {parameter}"
            imports[first] = statement
        return f"{first}.{rest}" if rest else first

    arguments = [] if reference is None else [repr(reference)]
    arguments += [named(parameter, subject) for parameter, subject in subjects.items()]
    written = "" if inputs is None else _written(list(inputs)) if _size(inputs) <= MAX_NUMBERS else None
    if written is None and inputs is not None:
        written = "report.inputs"
        shapes = [(name, to_numpy(leaf)) for name, leaf in leaves(tuple(inputs), "")]
        comments.append("report.inputs: " + ", ".join(f"{name} {describe(array)}" for name, array in shapes))
    arguments += [written] if written else []
    for keyword, value in keywords.items():
        text = None if callable(value) or _size([value]) > MAX_NUMBERS else _written(value)
        arguments.append(f"{keyword}={text or named(keyword, value)}")
    line = f"print({call}({', '.join(arguments)}))"
    statements = [*imports.values(), f"from transformer_np.gradcheck import {call}", line]
    if "np." in line:
        statements.insert(0, "import numpy as np")
    return "; ".join(statements) + (f"  # {'; '.join(comments)}" if comments else "")


def place_of(subject: Any) -> str:
    """Where a function that has no name to import it by stands: file and line. For other objects, their type."""
    code = getattr(subject, "__code__", None)
    if code is None:
        return type(subject).__name__
    file = Path(code.co_filename)
    return f"{file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file}:{code.co_firstlineno}"


def _path_of(subject: Any) -> tuple[str, str] | None:
    """Module and name by which another process can import it."""
    qualname = str(getattr(subject, "__qualname__", "") or getattr(subject, "__name__", ""))
    module = str(getattr(subject, "__module__", "") or ("numpy" if isinstance(subject, np.ufunc) else ""))
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return (module, qualname) if found is subject and _can_be_imported(module) else None


def _can_be_imported(module: str) -> bool:
    """Whether it is found by its name, and not only loaded under it, as a script or a file that a command was given."""
    package = module.partition(".")[0]
    return any(finder.find_spec(package, None) is not None for finder in sys.meta_path if hasattr(finder, "find_spec"))


def _size(node: Any) -> int:
    arrays = (to_numpy(leaf) for _, leaf in leaves(tuple(node), ""))
    return sum(array.size for array in arrays if array is not None)


def _written(value: Any) -> str | None:
    """An expression with exactly this value; None for what has none that is short and sure."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        parts = [_written(item) for item in value]
        if None in parts:
            return None
        inside = ", ".join(map(str, parts))
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)" if len(parts) == 1 else f"({inside})"
    if type(value) is dict:
        items = {repr(key): _written(item) for key, item in value.items()}
        return None if None in items.values() else "{" + ", ".join(f"{key}: {item}" for key, item in items.items()) + "}"
    if value is None or type(value) in (bool, int, str) or (type(value) is float and np.isfinite(value)):
        return repr(value)
    if is_foreign(value) or not isinstance(value, np.ndarray) or not value.size or not np.isfinite(value).all():
        return None
    usual = value.dtype in (np.float64, np.int64, np.bool_)
    return f"np.array({value.tolist()!r}{'' if usual else f', {value.dtype.name!r}'})" if value.dtype.kind in "fiub" else None
