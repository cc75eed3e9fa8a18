"""What an import brings in, and what each source file may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import transformer_np

PACKAGE = Path(transformer_np.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ALWAYS_THERE = {*sys.stdlib_module_names, "numpy", "scipy", "transformer_np"}


def imported_modules(tree):
    """(module, node) of each import statement below `tree`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            yield node.module if node.level == 0 else "transformer_np", node


def inside_functions(tree):
    """Every node that runs only when a function is called."""
    return {inner for outer in ast.walk(tree) if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for inner in ast.walk(outer)}


def test_an_import_brings_in_numpy_and_nothing_that_is_slow():
    program = ("import sys, transformer_np\n"
               "print(*sorted({'scipy', 'torch', 'matplotlib', 'jinja2', 'rich', 'baselines_np'} & set(sys.modules)))")
    result = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
    assert result.stderr == ""


def test_every_name_that_is_offered_is_there():
    assert sorted(transformer_np.__all__) == sorted(set(transformer_np.__all__))
    for name in transformer_np.__all__:
        assert getattr(transformer_np, name).__doc__, f"{name} has no docstring"


@pytest.mark.parametrize("source", SOURCES, ids=[str(source.relative_to(PACKAGE)) for source in SOURCES])
def test_a_source_file_imports_nothing_slow_and_nothing_above_it(source):
    tree = ast.parse(source.read_text(encoding="utf-8"))
    later = inside_functions(tree)
    for module, node in imported_modules(tree):
        package = module.split(".")[0]
        assert package != "baselines_np", f"line {node.lineno}: the rivals stand on this package, not the other way round"
        if node not in later:
            assert package in ALWAYS_THERE, f"line {node.lineno}: {module} is an extra; import it where it is used"
            assert package != "scipy", f"line {node.lineno}: {module} takes long to import; import it where it is used"
