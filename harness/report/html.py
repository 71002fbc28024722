"""One self-contained HTML page for a run: verdict, table, paired differences, levels, line search, batches, provenance.

Does: inline everything; work in light and dark and on paper; escape whatever a plugin or a model wrote.
Doesn't: need a network or a browser to be made.
"""

from __future__ import annotations

import csv
import functools
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import console, isolation, leaderboard, stats, store
from harness.plugins import Plugins
from harness.report import charts, density, formats, levels, results, saturation, subjects, tables, training, wording
from harness.report.results import Results

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 1.1rem; padding: .8rem 1rem; background: var(--soft); border-left: 4px solid #4a7; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; } pre { overflow-x: auto; background: var(--soft); padding: .8rem; }
figure { margin: 0; overflow-x: auto; background: #fff; } figcaption, .note { color: #777; font-size: .9rem; }
"""


def write(root: Path, plugins: Plugins) -> Path:
    """Write report.html, the figures, their data, levels.csv and subjects.csv into the run folder; returns the page's path.

    Plugins may append sections (hook `harness_report_sections`); one that fails is named on the page.
    """
    found = results.load(root)
    path = root / "report.html"
    added = plugins.observe("harness_report_sections", run=root)
    extra = [section for sections in added.answers for section in sections]
    extra += [("A report section failed", f"<p>{html.escape(error)}</p>") for error in added.errors]
    store.write_text(path, page(found, _line_search(found), _training(found), extra))
    for name, rows in (("levels", levels.rows(found)), ("subjects", subjects.rows(found))):
        if rows:
            _write_csv(root / f"figures/{name}.csv", rows)
    return path


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Empty for missing, as in leaderboard.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows])
    store.write_text(path, text.getvalue())


def _line_search(found: Results) -> str:
    """The figure's HTML; PNG, SVG and CSV go beside the report."""
    rows = charts.line_search_rows(found)
    if not rows:
        return ""
    drawn = save_figure(found.root, "line_search", charts.line_search(rows), rows)
    note = (
        "Selection problems, common random numbers; bands are one standard error by problem; the ring is the chosen "
        "step, the smallest within one standard error of the best. Steps that fell behind stopped early and met fewer "
        "problems: their bands are wider. Selection scores are not results."
    )
    return f"<figure>{drawn}</figure><p class=note>{note}</p>{_entropy_proxy(found)}"


def _training(found: Results) -> str:
    rows = training.rows(found)
    if not rows:
        return ""
    drawn = save_figure(found.root, "training", training.figure(rows), rows)
    note = "Each update's own batch of training problems, before the update; test scores are in the leaderboard."
    return f"<figure>{drawn}</figure><p class=note>{note}</p>"


def save_figure(root: Path, name: str, chart: charts.Chart, rows: Sequence[Mapping[str, Any]]) -> str:
    """The chart as SVG; PNG, SVG and its data as CSV go into figures/."""
    drawn = charts.svg(chart)
    store.write_text(root / f"figures/{name}.svg", drawn)
    store.write_via(root / f"figures/{name}.png", lambda p: Path(p).write_bytes(charts.png(drawn)))
    _write_csv(root / f"figures/{name}.csv", rows)
    return drawn


def _entropy_proxy(found: Results) -> str:
    """Where entropy is lowest along each line, beside the best and the chosen step: a step rule without labels."""
    rows = []
    for (method, seed), done in found.finished.items():
        entropies = [c.entropy for c in done.search.candidates] if done.search else []
        if done.search is not None and None not in entropies and any(c.step for c in done.search.candidates):
            lowest = min(range(len(entropies)), key=lambda i: entropies[i] or 0.0)
            kls = [console.number(done.search.candidates[i].kl) for i in (lowest, done.search.best, done.search.chosen)]
            rows.append([method, seed, *kls, abs(lowest - done.search.best)])
    head = (
        "method",
        "seed",
        "KL at lowest entropy",
        "KL at best accuracy",
        "KL chosen",
        "grid points between the first two",
    )
    return _grid(head, rows) if rows else ""


def page(found: Results, figure: str, curves: str = "", extra: Sequence[tuple[str, str]] = ()) -> str:
    row = found.manifest["row"]
    sections = [
        ("Leaderboard", _leaderboard(found) + _explained()),
        ("Paired differences", _pairs(found)),
        ("By level", _levels(found)),
        ("Gains by subject", _subjects(found)),
        ("Format and the rest", _formats(found)),
        ("Line search", figure or "<p>No method searched a step.</p>"),
        ("Learning curves", curves),
        ("After training accuracy has saturated", _saturation(found)),
        ("Words of reflection", _words(found)),
        ("Batches and directions", _batches(found)),
        ("Density of good perturbations", _densities(found)),
        ("Cost", _costs(found)),
        ("Status", _statuses(found)),
        *extra,
        ("Provenance", _provenance(found)),
    ]
    body = "".join(f"<h2>{html.escape(title)}</h2>{content}" for title, content in sections if content)
    title = html.escape(f"One-Shot RLVR: {row['domain']} / {', '.join(found.manifest['tests'])}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1><p class=verdict>{html.escape(results.verdict(found))}</p>{body}</body></html>\n"
    )


def _leaderboard(found: Results) -> str:
    """One table for each test set; what follows it on the page is about the first."""
    groups = leaderboard.ranked(found.aggregate)
    tests = list(found.manifest["tests"])
    several = f"<p class=note>The sections below are about {html.escape(tests[0])}.</p>" if len(tests) > 1 else ""
    parts = []
    for title, group in sorted(groups, key=lambda item: tests.index(item[1][0]["test_benchmark"])):
        head = f"<h3>{html.escape(title)}</h3>" if several else ""
        parts.append(head + _grid(tables.MARKDOWN, [tables.cells(row) for row in group]))
    return "".join(parts) + several


def _grid(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f"<th>{html.escape(str(cell))}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _explained() -> str:
    return (
        "<p class=note>pass@1 at the method's sampling temperature; gain is paired by problem with a 95 % interval; "
        "format is the share of completions in the demanded format, format_free the accuracy when the same completions "
        "are judged leniently. Every generated rollout is counted.</p>"
    )


def _pairs(found: Results) -> str:
    rows = [
        [f"{p['method']} - {p['other']}", f"{p['delta']:+.3f}", f"[{p['ci_low']:+.3f}, {p['ci_high']:+.3f}]",
         console.number(p["p_value"], 4)]
        for p in results.pairs(found)
    ]  # fmt: skip
    return _grid(("difference", "pass@1", "95 % interval", "p"), rows) if rows else ""


def _levels(found: Results) -> str:
    rows = levels.rows(found)
    if not rows:
        return ""
    shown = levels.table(rows)
    note = (
        "<p class=note>Test problems by level, their number in parentheses; means over seeds with 95 % intervals "
        f"clustered by problem. pass@{levels.K} is unbiased, from the wide draws on some of the problems.</p>"
    )
    return _grid(shown.head, shown.lines) + note


def _subjects(found: Results) -> str:
    rows = subjects.rows(found)
    if not rows:
        return ""
    note = (
        "<p class=note>Test problems by subject, their number in parentheses; the base's pass@1, and gains paired by "
        f"problem with 95 % intervals. Subjects of fewer than {subjects.FEWEST} problems are left out.</p>"
    )
    shown = subjects.table(rows)
    return _grid(shown.head, shown.lines) + note


def _saturation(found: Results) -> str:
    shown = saturation.table(saturation.rows(found))
    note = (
        f"<p class=note>Saturated: the update after which a batch of training rollouts was more than "
        f"{saturation.THRESHOLD:.0%} correct. Before and after: the best selection score of the checkpoints on either "
        "side, the base among the first. Selection scores are not results.</p>"
    )
    return _grid(shown.head, shown.lines) + note if shown.lines else ""


def _words(found: Results) -> str:
    shown = wording.table(wording.rows(found))
    note = "<p class=note>Sampled completions of all test sets and seeds that contain the word, in any form.</p>"
    return _grid(shown.head, shown.lines) + note if shown.lines else ""


def _formats(found: Results) -> str:
    rows = [
        [g.method, f"{g.strict.delta:+.3f}", f"{g.free.delta:+.3f}", f"[{g.free.ci_low:+.3f}, {g.free.ci_high:+.3f}]",
         f"{g.alone:+.3f}"]
        for g in formats.gains(found)
    ]  # fmt: skip
    head = ("method", "gain in pass@1", "gain in format_free", "95 % interval", "format alone")
    return _grid(head, rows) if rows else ""


def _batches(found: Results) -> str:
    rows, expected = [], functools.cache(lambda seed: _expected_dead(found, seed))
    for (method, seed), done in found.finished.items():
        d = done.direction
        if d is not None and d.groups_used + d.groups_dead:  # else it comes from no batch
            groups = d.groups_used + d.groups_dead
            dead = (d.groups_dead / max(groups, 1), expected(seed))
            cells = (d.batch_pass_rate, *dead, d.snr, d.agreement, d.half_cosine)
            gap = "" if d.logprob_gap is None else f"{d.logprob_gap:.1e}"
            rows.append([method, seed, d.kind, groups, *(console.number(c) for c in cells), gap])
    head = ("method", "seed", "direction", "groups", "batch pass rate", "dead groups", "expected", "SNR", "agreement",
            "half-split cosine", "logprob gap")  # fmt: skip
    note = (
        "<p class=note>Expected dead groups: beta-binomial fit to the base's test draws, which are independent of the "
        "batch. SNR and agreement come from disjoint sub-batches of problems (docs/metrics.md).</p>"
    )
    return _grid(head, rows) + note if rows else ""


def _expected_dead(found: Results, seed: int) -> float:
    """Share of groups of the run's size that base test problems would leave without signal."""
    score = found.finished["base", seed].evaluation.sampled
    group = int(found.manifest["spec"]["sampling"]["group"])
    return stats.expected_dead_share(score.correct, score.n, group)


def _densities(found: Results) -> str:
    """How often noise alone makes a better model, per size of the noise; nothing when no method probed."""
    number, rows = console.number, []
    for method in dict.fromkeys(name for name, _ in found.probes):
        for d in density.densities(found.probes_of(method)):
            shares = [number(share) for pair in zip(d.above, d.below, strict=True) for share in pair]
            scores = (number(d.base), number(d.mean), number(d.best))
            rows.append([method, d.sigma, d.perturbations, d.problems, *scores, *shares])
    head = ("method", "sigma", "perturbations", "problems", "base", "mean", "best",
            *(f"{sign}{m:.2f}" for m in density.MARGINS for sign in ("\u2265 +", "\u2264 \u2212")))  # fmt: skip
    note = (
        "<p class=note>Greedy scores on training problems, the base on the same ones; sigma is the noise relative to each "
        "tensor's root mean square; seeds are pooled. &ge; +m is the density of Gan and Isola: the share of perturbations "
        "at least m above the base. Scores on so few problems scatter, so noise alone gives some share: &le; &minus;m, "
        "the share at least m below, is its symmetric control; a base that is unlucky on these problems tilts both. The "
        "best score is inflated by having been picked.</p>"
    )
    return _grid(head, rows) + note if rows else ""


def _costs(found: Results) -> str:
    head = ("method", "train_rollouts", "selection_rollouts", "eval_rollouts", "gen_tokens", "train_tokens",
            "verifier_calls", "updates", "wall_seconds", "cpu_seconds")  # fmt: skip
    return _grid(
        head, [[leaderboard.label(r), *(console.number(r[c] or 0, 0) for c in head[1:])] for r in found.aggregate]
    )


def _statuses(found: Results) -> str:
    bad = [[r["method"], r["seed"], r["status"]] for r in found.rows if r["status"] != "ok"]
    return _grid(("method", "seed", "status"), bad) if bad else ""


def _provenance(found: Results) -> str:
    level = found.manifest["isolation"]
    stated = f"<p>Isolation of the verifier: {html.escape(level)}. {html.escape(isolation.warning(level))}</p>"
    shown = {key: value for key, value in found.manifest.items() if key != "row"}
    text = json.dumps({**found.manifest["row"], **shown}, indent=1, default=list)
    return f"{stated}<details><summary>manifest</summary><pre>{html.escape(text)}</pre></details>"
