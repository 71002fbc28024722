"""report.html: what a run found, for a person who opens one file.

Does: load a run folder and write its page, its figures (figures/*.png, .svg, .csv) and tables as CSV beside it.
Doesn't: compute a statistic, or need a network or a browser: page.py holds the document, charts.py the figures, and each
section is made by the module that knows its subject.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from harness import console, store
from harness.passrates import binning, losing, signals
from harness.plugins import Plugins
from harness.report import (
    break_evens,
    causes,
    charts,
    costs,
    density,
    formats,
    grids,
    levels,
    line_search,
    memorising,
    origins,
    page,
    pass_rates,
    passk,
    results,
    saturation,
    shares,
    standings,
    steps,
    subjects,
    summary,
    training,
    transcripts,
    wording,
)  # fmt: skip
from harness.report.page import Section
from harness.report.results import Results


def write(root: Path, plugins: Plugins) -> Path:
    """Write report.html and figures/ into the run folder; returns the page's path.

    Of an interrupted run it shows what is finished. Plugins may append sections (hook `harness_report_sections`); one that
    fails is named on the page. Raises UsageError where nothing is finished.
    """
    found = results.load(root)
    path = root / "report.html"
    added = plugins.observe("harness_report_sections", run=root)
    extra = [section for sections in added.answers for section in sections]
    extra += [("A report section failed", f"<p>{html.escape(error)}</p>") for error in added.errors]
    store.write_text(path, of_run(found, extra))
    return path


def of_run(found: Results, extra: Sequence[tuple[str, str]] = ()) -> str:
    """The page; its figures and their data go into the run folder. `extra` are (title, HTML) of plugins."""
    row, spec = found.manifest["row"], found.manifest["spec"]
    binned, signal = binning.rows(found), signals.rows(found)
    lost = losing.split(found)
    broken = break_evens.rows(found)
    sections = [
        standings.section(found),
        pass_rates.section(found, binned),
        break_evens.section(found, broken),
        causes.section(found, signal, lost),
        shares.section(found, binned),
        line_search.section(found),
        steps.section(found, signal),
        _kinds(found),
        memorising.section(found),
        formats.section(found),
        passk.section(found),
        costs.section(found),
        _training(found),
        Section("density", "Density of good perturbations", density.body(found)),
        *(Section(f"plugin-{place}", title, body) for place, (title, body) in enumerate(extra)),
        Section("status", "Status", summary.statuses(found)),
        origins.section(found),
        transcripts.section(found),
    ]
    date = str(row["date"])
    facts = (
        ("model", row["model"]), ("budget", f"{spec['budget']:,} training rollouts a method"), ("seeds", spec["seeds"]),
        ("test problems", console.number(found.aggregate[0]["test_problems"], 0)), ("made", f"{date[:4]}-{date[4:6]}-{date[6:8]}"),
    )  # fmt: skip
    return page.document(
        title=f"{row['domain']} / {', '.join(found.manifest['tests'])}",
        over="One-Shot RLVR: how much does one gradient step do?",
        facts=[f"{name} <b>{html.escape(str(value))}</b>" for name, value in facts],
        top=summary.top(found, broken, signal, lost),
        sections=sections,
        foot=f"Run <code>{html.escape(str(row['run_id']))}</code>. Figures and their data: figures/ in the run folder.",
    )


def _kinds(found: Results) -> Section:
    """By level, and by subject."""
    body = ""
    if rows := levels.rows(found):
        caption = (
            "Test problems by level; means over seeds with 95 % intervals clustered by problem. Intervals are of scores, not of gains: two "
            "methods whose intervals overlap may still differ, since they met the same problems."
        )
        shown = levels.table(rows)
        told = page.note(
            f"In parentheses the number of problems. pass@{levels.K} is unbiased, from the wide draws on some of them."
        )
        body += charts.show(found.root, levels.figure(found, rows), caption)
        body += grids.grid(shown.head, shown.lines, colors=found.colors) + told
    if rows := subjects.rows(found):
        charts.write_csv(found.root / "figures/subjects.csv", rows)
        shown = subjects.table(rows)
        told = page.note(
            "Test problems by subject, their number in parentheses; the base's pass@1, and gains paired by problem with 95 % intervals. "
            f"Subjects of fewer than {subjects.FEWEST} problems are left out."
        )
        body += "<h3>Gains by subject</h3>" + grids.grid(shown.head, shown.lines) + told
    return Section(
        "kinds",
        "By level and subject",
        body,
        "The test problems have no levels, and no two subjects with enough of them.",
    )


def _training(found: Results) -> Section:
    """Learning curves, and what else is said of methods that train."""
    body = training.body(found)
    saturated, words = saturation.table(saturation.rows(found)), wording.table(wording.rows(found))
    if saturated.lines:
        told = page.note(
            f"Saturated: the update after which a batch of training rollouts was more than {saturation.THRESHOLD:.0%} correct. Before and "
            "after: the best selection score of the checkpoints on either side, the base among the first. Selection scores are not results."
        )
        table = grids.grid(saturated.head, saturated.lines, colors=found.colors)
        body += "<h3>After training accuracy has saturated</h3>" + table + told
    if words.lines:
        told = page.note("Sampled completions of all test sets and seeds that contain the word, in any form.")
        body += "<h3>Words of reflection</h3>" + grids.grid(words.head, words.lines, colors=found.colors) + told
    return Section("learning", "Learning curves", body, "No method of this run takes many updates.")
