"""From a free answer (a chat message, a whole program, a bare body) to the program that is run, for public sets.

Does: take the last fenced block that can be read as an answer, else the text. If it defines the entry point, the program
is the prompt's imports and helpers and then it; otherwise the prompt and then it.
Doesn't: run or repair code, beyond the indentation of a bare body and dropping what follows the last line that parses.
Text above 64 kB is not looked at, and what is parsed in all is bounded: a megabyte of junk costs milliseconds.

A fenced block that neither defines the entry point nor returns from it (an example of use, its output) is passed over.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from harness_code.extract import FENCE, TEXT_CHARS, parse, parse_again

_BLOCKS = 8
_PARSED_CHARS = 1 << 20
_FUTURE = re.compile(r"^from __future__ import [^\n(]+$\n?", re.MULTILINE)
_CODE = re.compile(r"^(?:import |from \w|def |class |async def |@|\w+ *=)", re.MULTILINE)
_TILDES = re.compile(r"^[ \t]*~~~+", re.MULTILINE)
_OTHER = re.compile(r"\s*(?:async[ \t]+)?(?:def|class)\b")
_INDENTED = re.compile(r"\s*^[ \t]", re.MULTILINE)
_RETURNS = re.compile(r"^[ \t]*(?:return|yield)\b", re.MULTILINE)


class Found(NamedTuple):
    """A program, and whether the answer was code as it stood: nothing dropped, nothing indented."""

    program: str
    whole: bool


class Budget:
    """How many characters may still be parsed for one answer."""

    def __init__(self) -> None:
        self.left = _PARSED_CHARS


def find_program(context: str, completion: str, entry_point: str) -> Found | None:
    """`context` is the code that stands before the completion ("" when the prompt is prose)."""
    budget = Budget()
    for text in _answers(_TILDES.sub("```", completion[:TEXT_CHARS].replace("\ufeff", ""))):
        for number, reading in enumerate(_readings(context, text, entry_point)):
            kept = _longest(reading, budget)
            if kept is not None and _answers_with(kept.tree, entry_point):
                return Found(kept.text, number == 0 and kept.text == reading)
    return None


def _answers(completion: str) -> Iterator[str]:
    """What may be the answer: fenced blocks from the last on, what stands before the first fence, everything."""
    blocks = [block for block in FENCE.findall(completion) if block.strip()]
    yield from reversed(blocks[-_BLOCKS:])
    before = completion.partition("```")[0]
    yield before
    if before != completion:
        yield completion


def _readings(context: str, text: str, entry_point: str) -> Iterator[str]:
    found = _definition(entry_point).search(text)
    if found:
        before = helpers(context, entry_point)
        first = _CODE.search(text)
        # From the top; without the prose above the code; from the definition itself.
        for start in sorted({0, min(found.start(), first.start() if first else found.start()), found.start()}):
            yield _joined(before, textwrap.dedent(text[start:]))
    elif context:
        yield context + text
        if _RETURNS.search(text) and not _OTHER.match(text):
            # Its first line alone may have lost its indentation, or all of it may have another one.
            bodies = ["    " + text.lstrip(), textwrap.indent(textwrap.dedent(text), "    ")]
            yield from (context + body for body in (bodies[::-1] if _INDENTED.match(text) else bodies))


def _definition(entry_point: str) -> re.Pattern[str]:
    name = re.escape(entry_point)
    return re.compile(
        rf"^[ \t]*(?:(?:async[ \t]+)?def[ \t]+|class[ \t]+){name}\b|^{name}[ \t]*(?::[^=\n]+)?=[^=]", re.M
    )


def _joined(before: str, text: str) -> str:
    """`from __future__` lines of the answer must stand first."""
    if not before.strip():
        return text
    futures = "".join(_FUTURE.findall(text))
    return f"{futures}{before}\n{_FUTURE.sub('', text) if futures else text}"


def helpers(context: str, entry_point: str) -> str:
    """The context without the entry point's own, unfinished definition."""
    tree = parse(context).tree
    if tree is None:
        found = _definition(entry_point).search(context)
        return context[: found.start()] if found else context
    lines = context.split("\n")
    for node in reversed(tree.body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == entry_point:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    return "\n".join(lines)


class _Kept(NamedTuple):
    text: str
    tree: ast.Module


def _longest(text: str, budget: Budget) -> _Kept | None:
    """The longest start of the text that parses, cut where the parser complains."""
    while text and budget.left > 0:
        budget.left -= len(text)
        tree, line = parse_again(text)
        if tree is not None:
            return _Kept(text, tree)
        lines = text.split("\n")
        text = "\n".join(lines[: max(0, min(len(lines), line) - 1)])
    return None


def _answers_with(tree: ast.Module, entry_point: str) -> bool:
    """Whether the module binds the entry point to more than a signature with a docstring.

    A `return` of the module itself parses, but is a body that was read at the wrong indentation.
    """
    nodes = list(_module_level(tree.body))
    return any(_binds(node, entry_point) for node in nodes) and not any(isinstance(n, ast.Return) for n in nodes)


def _module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run in the module itself, also inside its branches and loops."""
    for node in body:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            parts = [*getattr(node, "body", []), *getattr(node, "orelse", []), *getattr(node, "finalbody", [])]
            parts += [part for handler in getattr(node, "handlers", []) for part in handler.body]
            yield from _module_level([part for part in parts if isinstance(part, ast.stmt)])


def _binds(node: ast.AST, entry_point: str) -> bool:
    match node:
        case ast.FunctionDef(name=name, body=body) | ast.AsyncFunctionDef(name=name, body=body) if name == entry_point:
            return not all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in body)
        case ast.ClassDef(name=name):
            return name == entry_point
        case ast.Assign(targets=targets):
            return any(isinstance(n, ast.Name) and n.id == entry_point for t in targets for n in ast.walk(t))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return name == entry_point
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return any((alias.asname or alias.name) == entry_point for alias in names)
    return False
