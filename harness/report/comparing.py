"""Several runs on one page: what differs, gains side by side, and the gain against the pass rate of their batches.

Does: a table with a line for each run, gains of every method by run, break-even across runs (view 2), cost, provenance.
Doesn't: rank runs: they may have different test problems, and then their gains answer different questions.
"""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair

from harness import console, leaderboard, store
from harness.leaderboard import Row
from harness.passrates import across, signals
from harness.report import break_evens, charts, costs, grids, page, pass_rates, results, steps, summary
from harness.report.charts import Figure
from harness.report.page import Section
from harness.report.results import FOCUS, STANDARD, Results

HEAD = ("run", "domain / test", "N", "base pass@1", "batch pass rate", f"gain of {FOCUS} [95 %]", f"gain of {STANDARD} [95 %]",
        f"{FOCUS} minus {STANDARD} [95 %]", "break-even (within)", "could see", "dead groups", "SNR", "seeds", "model", "data",
        "state")  # fmt: skip
ACROSS = 4  # runs in one line of a table
LONGEST = 48  # characters of a run's label
GAINS = (
    "Gain over the base of the same run, with its 95 % interval. Runs of different test data (column data above) answer different "
    "questions: compare methods within a run, and a method across runs only where the data are the same."
)  # fmt: skip
FEW = "Needs two runs or more of one domain whose directions came from batches."


class Run(NamedTuple):
    """A run and what it is called on this page."""

    label: str
    found: Results


def write(roots: Sequence[Path], folder: Path) -> Path:
    """report.html and figures/ in `folder`; returns the page's path. Raises UsageError for a run with nothing finished."""
    path = folder / "report.html"
    store.make_folder(folder)
    store.write_text(path, of_runs(named([results.load(root) for root in roots]), folder))
    return path


def named(runs: Sequence[Results]) -> list[Run]:
    """By domain and what their specs don't share; runs of one spec by their folder."""
    differing = differences(runs)
    labels = []
    for place, found in enumerate(runs):
        parts = [f"{key}={values[place]}" for key, values in differing.items() if key != "domain"]
        labels.append(" ".join([str(found.manifest["row"]["domain"]), *parts]))
    plain = len(set(labels)) == len(labels) and max(map(len, labels)) <= LONGEST
    return [Run(label if plain else found.root.name, found) for label, found in zip(labels, runs, strict=True)]


def differences(runs: Sequence[Results]) -> dict[str, list[str]]:
    """Spec keys whose values differ, with the value in each run."""
    specs = [dict(_flat(found.manifest["spec"])) for found in runs]
    keys = dict.fromkeys(key for spec in specs for key in spec)
    values = {key: [spec.get(key, "") for spec in specs] for key in keys if key != "workers"}
    return {key: own for key, own in values.items() if len(set(own)) > 1}


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append(
                (f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
            )
    return found


def of_runs(runs: Sequence[Run], folder: Path) -> str:
    """The page; figures go into `folder`."""
    colors = charts.palette(list(dict.fromkeys(label for run in runs for label in run.found.colors)))
    said = "".join(f"<li>{_link(run, folder)}: {html.escape(results.verdict(run.found))}</li>" for run in runs)
    left = "".join(summary.unfinished(run.found) for run in runs)
    return page.document(
        title=f"{len(runs)} runs side by side",
        over="One-Shot RLVR: how much does one gradient step do?",
        facts=[
            f"domains <b>{html.escape(', '.join(dict.fromkeys(str(r.found.manifest['row']['domain']) for r in runs)))}</b>"
        ],
        top=f'<section id="verdict" class="verdict"><h2>Verdict</h2>{left}<ul class="said-list">{said}</ul></section>',
        sections=[
            Section("runs", "Runs", grids.grid(HEAD, lines(runs))),
            Section("differences", "What differs", _differing(runs), "The runs have one spec."),
            _gains(runs, colors, folder),
            _across(runs, colors, folder),
            _steps(runs, colors, folder),
            Section("cost", "Cost", _costs(runs)),
            Section("provenance", "Provenance", _origins(runs)),
        ],
        foot="Each run's own page has its figures, transcripts and manifest. Data of this page's figures: figures/ beside it.",
    )


def _link(run: Run, folder: Path) -> str:
    href = Path(os.path.relpath(run.found.root / "report.html", folder)).as_posix()
    return f'<a href="{html.escape(href)}">{html.escape(run.label)}</a>'


def lines(runs: Sequence[Run]) -> list[list[str]]:
    """One for each run, in the columns of HEAD."""
    return [_line(run) for run in runs]


def _line(run: Run) -> list[str]:
    found, row, spec = run.found, run.found.manifest["row"], run.found.manifest["spec"]
    test, data = next(iter(found.manifest["tests"].items()))
    own, standard = (_gain(found, method, test) for method in (FOCUS, STANDARD))
    base = next(r for r in found.aggregate if r["method"] == "base" and r["test_benchmark"] == test)
    signal = [one for one in signals.rows(found) if one.method == FOCUS]
    pair = [grids.spread(p["delta"], p["ci_low"], p["ci_high"]) for p in found.pairs if p["other"] == STANDARD]
    at = break_evens.of(found, FOCUS) if own else []
    seen = summary.detectable(found)
    return [
        run.label, f"{row['domain']} / {test}", str(spec["budget"]), console.number(base["pass@1"]), _mean([s.pass_rate for s in signal]),
        own, standard, *(pair or [""]), break_evens.cells(at[0])[0] if at else "", f"{seen.effect:.3f}" if seen else "",
        _mean([s.dead for s in signal]), _mean([s.snr for s in signal]), str(spec["seeds"]), str(row["model"]), data,
        f"{len(found.missing)} results missing" if found.missing else "done",
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> str:
    return console.number(sum(values) / len(values)) if values else ""


def _gain(found: Results, method: str, test: str) -> str:
    rows = [r for r in found.aggregate if r["method"] == method and r["test_benchmark"] == test]
    return console.gain(rows[0]) if rows else ""


def _differing(runs: Sequence[Run]) -> str:
    differing = differences([run.found for run in runs])
    table = [
        [run.label, *(values[place] or "(default)" for values in differing.values())] for place, run in enumerate(runs)
    ]
    return grids.grid(("run", *differing), table) if differing else ""


def gain_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One for each run and method that changes anything, on the run's first test set."""
    made = []
    for run in runs:
        test = next(iter(run.found.manifest["tests"]))
        for row in run.found.aggregate:
            if row["test_benchmark"] == test and row["ci_low"] != "":
                made.append({"run": run.label, "data": row["data_hash"], **_numbers(row)})
    return made


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "method": leaderboard.label(row), "base": float(row["base_pass@1"]), "gain": float(row["delta"]),
        "ci_low": float(row["ci_low"]), "ci_high": float(row["ci_high"]),
    }  # fmt: skip


def _gains(runs: Sequence[Run], palette: Mapping[str, str], folder: Path) -> Section:
    made = gain_rows(runs)
    drawn = {row["method"] for row in made}
    most = charts.MOST if len(runs) <= ACROSS else 3
    colors = charts.chosen({name: color for name, color in palette.items() if name in drawn}, (FOCUS, STANDARD), most)
    shown = [row for row in made if row["method"] in colors]
    y = altair.Y("run:N", title=None, sort=[run.label for run in runs], axis=altair.Axis(labelLimit=260))
    aside = altair.YOffset("method:N", sort=list(colors))
    told = charts.tooltip("run:N", "method:N", "base:Q=base pass@1", "gain:Q", "ci_low:Q=from", "ci_high:Q=to")
    color, data = charts.color(colors), charts.over()
    bars = data.mark_rule(strokeWidth=2).encode(
        y=y,
        yOffset=aside,
        x=altair.X("ci_low:Q", title="gain in pass@1 over the base"),
        x2="ci_high:Q",
        color=color,
        tooltip=told,
    )
    points = data.mark_point(filled=True, size=45, opacity=1).encode(
        y=y, yOffset=aside, x="gain:Q", color=color, tooltip=told
    )
    step = altair.Step(max(26, 11 * len(colors)), **{"for": "position"})
    view = charts.panel("gain over the base, by run", charts.rule_at(0, "x"), bars, points, width=560, height=step)
    figure = charts.show(folder, Figure("gains_by_run", [view], made, shown, colors), GAINS)
    return Section("gains", "Gains", figure + _gain_table(runs, made, palette))


def _gain_table(runs: Sequence[Run], made: Sequence[Mapping[str, Any]], palette: Mapping[str, str]) -> str:
    """Methods down and runs across where a screen holds them, else runs down."""
    cells = {(row["method"], row["run"]): grids.spread(row["gain"], row["ci_low"], row["ci_high"]) for row in made}
    labels, methods = [run.label for run in runs], list(dict.fromkeys(row["method"] for row in made))
    if not methods:
        return ""
    if len(runs) <= ACROSS:
        table = [[method, *(cells.get((method, label), "") for label in labels)] for method in methods]
        return grids.grid(("method", *labels), table, colors=palette, focus=FOCUS)
    table = [[label, *(cells.get((method, label), "") for method in methods)] for label in labels]
    return grids.grid(("run", *methods), table)


def across_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Break-even across the runs of each domain, for every method with two pass rates or more."""
    made = []
    for domain in dict.fromkeys(str(run.found.manifest["row"]["domain"]) for run in runs):
        own = [run.found for run in runs if run.found.manifest["row"]["domain"] == domain]
        for method in dict.fromkeys(name for found in own for name in found.methods):
            points = across.points_of([found for found in own if method in found.methods], method)
            if len({point.rate for point in points}) > 1:
                at = across.break_even(points)
                made.append([method, domain, str(len(points)), *break_evens.cells(at), at.words])
    return made


def _across(runs: Sequence[Run], palette: Mapping[str, str], folder: Path) -> Section:
    labels = {run.found.root.name: run.label for run in runs}
    made = [{**row, "run": labels[row["run"]]} for row in pass_rates.batches([run.found for run in runs])]
    figure = charts.show(folder, pass_rates.across(palette, made), pass_rates.ACROSS)
    table = across_rows(runs)
    head = ("method", "domain", "runs", "break-even", "95 % interval", "in words")
    shown = grids.grid(head, table, colors=palette, focus=FOCUS, words=("in words",)) if table else page.note(FEW)
    return Section("pass-rate", "Gain against batch pass rate", figure + "<h3>Break-even across runs</h3>" + shown)


def _steps(runs: Sequence[Run], palette: Mapping[str, str], folder: Path) -> Section:
    made = [
        {**row, "run": run.label, "method": row["method"]}
        for run in runs
        for row in steps.rows(run.found, signals.rows(run.found))
    ]
    if len({row["steps"] for row in made}) < 2:
        return Section("steps", "Steps against batch", "", steps.EMPTY)
    return Section("steps", "Steps against batch", charts.show(folder, steps.figure(palette, made), steps.CAPTION))


def _costs(runs: Sequence[Run]) -> str:
    """Of all methods and seeds together."""
    table = []
    for run in runs:
        own = [row for row in costs.first(run.found)]
        seeds = float(run.found.manifest["spec"]["seeds"])
        table.append(
            [run.label, *(console.number(seeds * sum(float(r[c] or 0) for r in own), 0) for c in costs.COLUMNS)]
        )
    told = page.note(
        "As charged, all methods and seeds together: what several methods share is drawn once and charged to each."
    )
    return grids.grid(("run", *costs.COLUMNS), table) + told


def _origins(runs: Sequence[Run]) -> str:
    table = []
    for run in runs:
        row, manifest = run.found.manifest["row"], run.found.manifest
        commit = f"{row['commit']}{' (dirty)' if row['dirty'] == 'true' else ''}"
        table.append(
            [
                run.label,
                row["run_id"],
                commit,
                manifest["isolation"],
                f"{row['engine']} on {row['device']}",
                row["command"],
            ]
        )
    head = ("run", "run id", "commit", "isolation", "engine", "command")
    return grids.grid(head, table, words=("command",))
