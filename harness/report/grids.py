"""Tables as HTML: cells are text and escaped, names of methods have their colour, columns sort by a click.

Does: write the table, and the cells that all tables write alike.
Doesn't: format numbers (console.py).
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report import charts


def grid(
    head: Sequence[str],
    lines: Sequence[Sequence[Any]],
    *,
    colors: Mapping[str, str] | None = None,
    focus: str = "",
    words: Sequence[str] = (),
    sorts: bool = True,
) -> str:
    """A scrolling table. First cells that are methods of `colors` get their dot, the line of `focus` is bold; columns
    named in `words` hold sentences, and wrap."""
    top = "".join(f"<th{_class(name, words)}>{html.escape(str(name))}</th>" for name in head)
    body = "".join(_line(head, line, colors or {}, focus, words) for line in lines)
    kind = ' class="sortable"' if sorts and len(lines) > 1 else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(name: str, words: Sequence[str]) -> str:
    return ' class="text"' if name in words else ""


def _line(head: Sequence[str], line: Sequence[Any], colors: Mapping[str, str], focus: str, words: Sequence[str]) -> str:
    first, *rest = map(str, line)
    cells = [f"<td>{charts.chip(first, colors) if first in colors else html.escape(first)}</td>"]
    cells += [f"<td{_class(name, words)}>{html.escape(c)}</td>" for name, c in zip(head[1:], rest, strict=True)]
    bold = ' class="focus"' if first == focus else ""
    return f"<tr{bold}>{''.join(cells)}</tr>"


def spread(value: float, low: float, high: float) -> str:
    """A difference with its interval, as all tables write it; the value alone where it has none."""
    if math.isnan(value):
        return ""
    return f"{value:+.3f}" if math.isnan(low) else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def plain(text: str) -> str:
    """What others wrote, as text in a line or cell of Markdown."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|")
