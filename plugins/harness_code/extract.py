"""From a completion of a ladder problem to the program that is run.

Does: check the demanded format (strict) or find a program in free text (lenient), by parsing alone.
Doesn't: read answers to public sets (chat.py), compile or run anything. Text above 64 kB is no answer: parsing it would
cost more than running it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from harness.types import Problem

TEXT_CHARS = 1 << 16
_TRIALS = 50
FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


def prefix(problem: Problem) -> str:
    """What stands before the completion in the program: the signature and what comes above it."""
    return str(problem.meta.get("prefix", ""))


class Parsed(NamedTuple):
    """A syntax tree, or the line at which Python's parser gave up (0: unknown)."""

    tree: ast.Module | None
    line: int


def parse(text: str) -> Parsed:
    """Never raises, also for text nested too deeply for the parser."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return Parsed(ast.parse(text), 0)
    except SyntaxError as error:
        return Parsed(None, error.lineno or 0)
    except (ValueError, RecursionError, MemoryError):
        return Parsed(None, 0)


# One program is first checked and then unparsed. For readers only: `_longest` changes its tree.
parse_again = lru_cache(maxsize=1)(parse)


def strict_program(problem: Problem, completion: str, entry_point: str) -> str | None:
    """Prefix and completion, if they are exactly one function that returns a value; else None."""
    program = prefix(problem) + completion
    tree = parse_again(program).tree if len(program) <= TEXT_CHARS else None
    match tree.body if tree else []:
        case [ast.FunctionDef(name=name) as function] if name == entry_point and _returns(function):
            return program
    return None


def _returns(function: ast.FunctionDef) -> bool:
    return any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function))


def lenient_program(problem: Problem, completion: str, entry_point: str) -> str | None:
    """The first reading of the completion that parses: as demanded, a fenced block, a whole function, a body."""
    strict = strict_program(problem, completion, entry_point)
    if strict is not None:
        return strict
    for program in _readings(prefix(problem), completion[:TEXT_CHARS], entry_point):
        kept = _longest(program)
        if kept is not None and _defines(kept, entry_point):
            return _unparse(kept)
    return None


def _readings(before: str, completion: str, entry_point: str) -> Iterator[str]:
    blocks = FENCE.findall(completion)
    for text in [*blocks[-1:], completion]:
        signature = f"def {entry_point}("
        if signature in text:
            yield before.partition(signature)[0] + text[_start(text, signature) :]
        else:
            yield before + text


def _start(text: str, signature: str) -> int:
    """Where the code begins: at the first line that can be code, not at the prose above it."""
    first = re.search(r"^(?:import |from \w|def |class |@)", text, re.MULTILINE)
    return min(first.start() if first else len(text), text.index(signature))


def _longest(text: str) -> ast.Module | None:
    """Parse after dropping lines from the end, up to the parser's complaint; without bare statements of the module."""
    lines = text.split("\n")
    for _ in range(_TRIALS):
        tree, line = parse("\n".join(lines))
        if tree is not None:
            tree.body = [node for node in tree.body if not isinstance(node, ast.Expr | ast.If | ast.For | ast.While)]
            return tree
        del lines[max(0, min(len(lines), line) - 1) :]
    return None


def _defines(tree: ast.Module, entry_point: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == entry_point for node in tree.body)


def canonical(program: str) -> str | None:
    """The program without comments, layout and style of quotes: programs that differ in these are one vote."""
    tree = parse_again(program).tree
    return None if tree is None else _unparse(tree)


def _unparse(tree: ast.Module) -> str | None:
    try:
        return ast.unparse(tree)
    except RecursionError:
        return None
