"""House rules that a machine can hold: sizes, names, and where randomness, the environment and broad excepts may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tabular_run import REPOSITORY

MAX_FILE, MAX_FUNCTION = 350, 80
BANNED_NAMES = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}
SOURCES = sorted(
    path for top in ("harness", "plugins") for path in (REPOSITORY / top).rglob("*.py") if "weights" not in path.parts
)
# Borders where any exception becomes a record: what stands there, and which border it is.
BROAD = {
    ("harness/plugins.py", "_load_one"): "plugin load",
    ("harness/plugins.py", "load"): "plugin load, of a registered target",
    ("harness/plugins.py", "observe"): "observer call",
    ("harness/judging.py", "serve"): "verifier pool",
    ("harness/testing/rules.py", "_judge"): "conformance kit: what a plugin raises is a finding",
    ("harness/judging.py", "_tried"): "verifier pool",
    ("harness/judging.py", "_describe"): "verifier pool, an exception whose text cannot be made",
    ("harness/admitting.py", "_told"): "engine call",
    ("plugins/harness_engines/workers.py", "_serve"): "engine worker process",
    ("plugins/harness_code/runner.py", "*"): "verifier: the process that runs model-written programs",
}
ENVIRONMENT = {"harness/config.py", "harness/plugins.py"}
RANDOM = {"harness/seeds.py"}

by_file = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_sources_are_found() -> None:
    assert len(SOURCES) > 40


@by_file
def test_files_and_functions_are_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE
    for function in functions(tree_of(path)):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno + 1 <= MAX_FUNCTION, function.name


@by_file
def test_modules_are_named_for_what_they_hold_and_say_it(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert ast.get_docstring(tree_of(path)), "a module opens with what it does and what it doesn't"


@by_file
def test_randomness_comes_from_seeds(path: Path) -> None:
    """`random.Random` in an annotation is a type, not a source."""
    if name_of(path) in RANDOM:
        return
    tree = tree_of(path)
    annotated = {id(node) for annotation in _annotations(tree) for node in ast.walk(annotation)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module not in ("random", "numpy.random", "secrets"), f"line {node.lineno}"
        if isinstance(node, ast.Attribute):
            dotted = ast.unparse(node)
            assert not dotted.startswith(("np.random", "numpy.random")) or id(node) in annotated, dotted
            assert not dotted.startswith("random.") or id(node) in annotated, f"{dotted}, line {node.lineno}"
            assert node.attr not in ("manual_seed", "manual_seed_all", "initial_seed"), f"line {node.lineno}"


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            yield node.annotation
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
            yield node.returns
        if isinstance(node, ast.Subscript):  # Callable[[random.Random], ...] in an alias
            yield node.slice


@by_file
def test_the_environment_is_read_in_two_places(path: Path) -> None:
    if name_of(path) in ENVIRONMENT:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("environ", "environb", "getenv", "putenv"), f"line {node.lineno}"


@by_file
def test_broad_excepts_stand_at_borders_only(path: Path) -> None:
    for function in functions(tree_of(path)):
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node):
                known = (name_of(path), function.name) in BROAD or (name_of(path), "*") in BROAD
                assert known, f"{function.name}, line {node.lineno}"
    outside = [n for n in tree_of(path).body if isinstance(n, ast.Try) and any(map(_is_broad, n.handlers))]
    assert not outside, "a broad except at import"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = [handler.type] if not isinstance(handler.type, ast.Tuple) else handler.type.elts
    return any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught)


@by_file
def test_no_global_state_and_no_stubs(path: Path) -> None:
    tree = tree_of(path)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Global), f"line {node.lineno}"
        if isinstance(node, ast.Raise) and node.exc is not None:
            assert "NotImplementedError" not in ast.unparse(node.exc), f"line {node.lineno}"
    text = path.read_text(encoding="utf-8")
    assert not any(mark in text for mark in ("TODO", "FIXME", "XXX"))


@by_file
def test_calls_take_at_most_few_positional_parameters(path: Path) -> None:
    """Keyword-only beyond two arguments; four leave room for small private functions over arrays."""
    for function in functions(tree_of(path)):
        positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args) if a.arg not in ("self", "cls")]
        assert len(positional) <= 4 or function.name.startswith("_"), f"{function.name}({', '.join(positional)})"


def test_importing_the_core_imports_no_torch() -> None:
    """At module level; inside functions and under TYPE_CHECKING it is fine."""
    for path in sorted((REPOSITORY / "harness").rglob("*.py")):
        if "templates" in path.parts:  # an engine of one's own may
            continue
        for node in tree_of(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.partition(".")[0] for n in names} & {"torch", "transformers"}, name_of(path)


def test_the_core_imports_no_plugin() -> None:
    for path in sorted((REPOSITORY / "harness").rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("harness_") for name in names), name_of(path)
