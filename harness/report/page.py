"""The document around a report's sections: style, navigation, scripts, and the policy that keeps it from the network.

Does: put sections in order under their anchors; inline the style, the scripts and, where there is a figure, the bundle that
draws it.
Doesn't: know what a section says. Bodies are HTML already: whoever makes one escapes what others wrote.

The content security policy names the scripts by their hash and lets nothing be fetched: what a model or a plugin wrote
could not run even if it came through unescaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.report import charts

HERE = Path(__file__).parent
FIGURE = '<figure class="chart"'


class Section(NamedTuple):
    """`key` is the anchor. Without a body, `empty` says in one line why; without either it is left out."""

    key: str
    title: str
    body: str
    empty: str = ""


def document(*, title: str, over: str, facts: Sequence[str], top: str, sections: Sequence[Section], foot: str) -> str:
    """The whole page. `top` stands above the sections, `facts` under the title; both are HTML, the other texts are not."""
    shown = [section for section in sections if section.body or section.empty]
    body = top + "".join(map(_section, shown))
    scripts = _scripts(drawn=FIGURE in body)
    safe = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{safe}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style()}</style></head><body>'
        f'<a class="skip" href="#verdict">to the verdict</a><div class="frame"><header><p class="over">{html.escape(over)}</p>'
        f'<h1>{safe}</h1><ul class="facts">{"".join(f"<li>{fact}</li>" for fact in facts)}</ul></header>'
        f'<div class="body">{_navigation(shown)}<main>{body}</main></div><footer>{foot}</footer></div>'
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def _section(section: Section) -> str:
    body = section.body or f'<p class="empty">{html.escape(section.empty)}</p>'
    return f'<section id="{html.escape(section.key)}"><h2>{html.escape(section.title)}</h2>{body}</section>'


def _navigation(sections: Sequence[Section]) -> str:
    links = ['<li><a href="#verdict">Verdict</a></li>']
    for section in sections:
        quiet = "" if section.body else ' class="none"'
        links.append(f'<li><a{quiet} href="#{html.escape(section.key)}">{html.escape(section.title)}</a></li>')
    return (
        f'<nav aria-label="Sections"><details open><summary>Sections</summary><ol>{"".join(links)}</ol></details></nav>'
    )


@functools.cache
def style() -> str:
    return (HERE / "page.css").read_text(encoding="utf-8")


def _scripts(*, drawn: bool) -> list[str]:
    own = (HERE / "page.js").read_text(encoding="utf-8")
    return [charts.bundle(), own] if drawn else [own]


def _policy(scripts: Sequence[str]) -> str:
    """Vega compiles expressions of its specifications, hence unsafe-eval; inline styles place its tooltips."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


@functools.cache
def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def note(text: str) -> str:
    """A line in small print: how to read what stands above it."""
    return f'<p class="note">{html.escape(text)}</p>'


def lead(text: str) -> str:
    return f'<p class="lead">{html.escape(text)}</p>'
