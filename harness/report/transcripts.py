"""Completions to read: what the base and each method said on the same problem with the same seed.

Does: pick a bounded number of test problems, evenly from levels and from what changed; show the first completion of each
method beside the base's, with its verdict. page.js searches and filters them.
Doesn't: show all: the run folder has them (rollouts/, verdicts/). Long texts are cut, and say so.
"""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.report import charts, drawn, page
from harness.report.page import Section
from harness.report.results import FOCUS, STANDARD, Results
from harness.types import Problem

SEED, SAMPLE = 0, 0
PROBLEMS, METHODS = 60, 5
CHARS = 700
EMPTY = "The completions are not in this run folder (an older run, or its rollouts are gone)."
SAID = (
    "The first completion of run seed 0, base and method with the same random numbers. Problems are picked evenly from levels and from "
    "those that were gained, lost, solved by both and by neither: shares among them say nothing of the whole."
)  # fmt: skip
FILTERS = {
    "": "all", "gained": "base wrong, method right", "lost": "base right, method wrong", "same": "both right or both wrong",
    "correct": "method: correct", "wrong": "method: wrong", "unparsed": "method: unparsed", "timeout": "method: timeout",
    "error": "method: verifier error",
}  # fmt: skip


class Said(NamedTuple):
    """One completion and what became of it."""

    text: str
    outcome: str
    truncated: bool
    extracted: str
    detail: str


def section(found: Results) -> Section:
    said = {method: texts for method in _methods(found) if (texts := completions(found, method))}
    if "base" not in said or len(said) < 2:
        return Section("transcripts", "Transcripts", "", EMPTY)
    problems = picked(_problems(found), said)
    others = [method for method in said if method != "base"]
    talks = "".join(_talk(problem, said, found.colors) for problem in problems)
    return Section("transcripts", "Transcripts", _box(problems, others, talks) + page.note(SAID))


def _methods(found: Results) -> list[str]:
    """Base and at most METHODS others that answer with single completions, the method under test first."""
    single = [
        m
        for m in found.methods
        if (m, SEED) in found.finished and found.finished[m, SEED].contender.combine == "single"
    ]
    others = charts.chosen({name: "" for name in single if name != "base"}, (FOCUS, STANDARD), METHODS)
    return ["base", *others]


def _problems(found: Results) -> list[Problem]:
    return next(iter(found.tests.values()))


def completions(found: Results, method: str) -> dict[str, Said]:
    """By problem id; empty where the folder has none."""
    if not drawn.known(found):
        return {}
    folder = next(iter(drawn.folders(found, method, SEED, _problems(found))))
    return {
        judged.problem_id: Said(
            text, str(judged.verdict.outcome), judged.truncated, judged.verdict.extracted or "", judged.verdict.detail
        )
        for text, judged in drawn.completions(found.root, folder)
        if judged.sample_idx == SAMPLE
    }


def picked(problems: Sequence[Problem], said: Mapping[str, Mapping[str, Said]]) -> list[Problem]:
    """At most PROBLEMS, in turns from every level and every kind of change; in the order of the test set."""
    focus = next(method for method in said if method != "base")
    kinds: dict[Any, list[int]] = {}
    for place, problem in enumerate(problems):
        if all(problem.id in own for own in said.values()):
            right = [said[method][problem.id].outcome == "correct" for method in ("base", focus)]
            kinds.setdefault((str(problem.level), *right), []).append(place)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*(kinds[key] for key in sorted(kinds))))
    chosen = [place for place in turns if place is not None][:PROBLEMS]
    return [problems[place] for place in sorted(chosen)]


def _box(problems: Sequence[Problem], methods: Sequence[str], talks: str) -> str:
    levels = sorted({problem.level for problem in problems if problem.level is not None})
    fields = [
        '<label>search<input name="words" type="search" placeholder="words in prompt or completion"></label>',
        _select("method", "beside the base", {name: name for name in methods}),
        _select("outcome", "outcome", FILTERS),
        _select("level", "level", {"": "all", **{str(level): str(level) for level in levels}}),
        "<output></output>",
    ]
    return f'<div class="transcripts"><div class="filters" hidden>{"".join(fields)}</div>{talks}</div>'


def _select(name: str, label: str, choices: Mapping[str, str]) -> str:
    options = "".join(
        f'<option value="{html.escape(key)}">{html.escape(text)}</option>' for key, text in choices.items()
    )
    return f'<label>{label}<select name="{name}">{options}</select></label>'


def _talk(problem: Problem, said: Mapping[str, Mapping[str, Said]], colors: Mapping[str, str]) -> str:
    outcomes = {method: own[problem.id].outcome for method, own in said.items()}
    level = "" if problem.level is None else str(problem.level)
    marks = "".join(
        f'<span data-method="{html.escape(method)}">{charts.chip(method, colors)} {_mark(outcome)}</span>'
        for method, outcome in outcomes.items()
    )
    where = f"level {html.escape(level)}" if level else ""
    turns = "".join(_turn(method, own[problem.id], colors) for method, own in said.items())
    answer = html.escape(cut(json.dumps(problem.answer, ensure_ascii=False, default=str), 300))
    return (
        f'<details class="talk" data-level="{html.escape(level)}" data-outcomes="{html.escape(json.dumps(outcomes))}">'
        f"<summary><code>{html.escape(cut(problem.id, 60))}</code> {where} {marks}"
        f'<span class="ask">{html.escape(cut(" ".join(problem.prompt.split()), 120))}</span></summary>'
        f'<div class="inside"><p class="note">prompt</p><pre>{html.escape(cut(problem.prompt, 2 * CHARS))}</pre>'
        f'<p class="note">what the verifier compares with: <code>{answer}</code></p><div class="turns">{turns}</div></div></details>'
    )


def _turn(method: str, said: Said, colors: Mapping[str, str]) -> str:
    found = (
        f'<p class="note">answer read: <code>{html.escape(cut(said.extracted, 200))}</code></p>'
        if said.extracted
        else ""
    )
    detail = f'<p class="note">{html.escape(cut(said.detail, 200))}</p>' if said.detail else ""
    short = ' <span class="mark cut">truncated at the token limit</span>' if said.truncated else ""
    return (
        f'<div data-method="{html.escape(method)}"><p>{charts.chip(method, colors)} {_mark(said.outcome)}{short}</p>'
        f"<pre>{html.escape(cut(said.text, CHARS))}</pre>{found}{detail}</div>"
    )


def _mark(outcome: str) -> str:
    return f'<span class="mark {html.escape(outcome)}">{html.escape(outcome)}</span>'


def cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ... ({len(text) - most} more characters)"
