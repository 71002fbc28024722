"""What `harness diagnose` shows: tables on the terminal, the same on a page with figures, and every number as CSV.

Does: average over seeds for people; write all rows as they are for programs.
Doesn't: compute a statistic. Numbers are explained in docs/diagnostics.md.
"""

from __future__ import annotations

import csv
import functools
import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from harness import store
from harness.console import number
from harness.diagnosing import Diagnosis
from harness.report import charts, diagnosis_charts, page

CLEAR = 0.1  # standard error of a tensor's cosine above which it is left out of means over layers
SHOWN_STEPS = 9  # lines of a trajectory on the terminal; the page and the CSV have all
Rows = Sequence[Mapping[str, Any]]


class Shown(NamedTuple):
    """A table for people."""

    title: str
    head: tuple[str, ...]
    lines: list[list[str]]
    note: str


def show(done: Diagnosis) -> None:
    """Print the tables, what was left out, and the cost."""
    screen = Console(markup=False, width=None if Console().is_terminal else 160)
    for shown in tables(done, steps=SHOWN_STEPS):
        table = Table(title=shown.title, title_justify="left", caption=shown.note, caption_justify="left")
        for place, name in enumerate(shown.head):
            table.add_column(name, justify="left" if place == 0 else "right")
        for line in shown.lines:
            table.add_row(*line)
        screen.print(table)
    for said in (*done.skipped, cost(done)):
        screen.print(said, highlight=False, markup=False, soft_wrap=True)


def cost(done: Diagnosis) -> str:
    spent = done.cost
    return (
        f"cost: {spent.eval_rollouts} rollouts of its own ({spent.gen_tokens} tokens), gradients of {spent.train_tokens} "
        f"tokens, {spent.wall_seconds:.0f} s ({spent.cpu_seconds:.0f} CPU s); none of it is charged to a method"
    )


def write(done: Diagnosis) -> Path:
    """CSVs, figures and index.html into RUN/diagnosis; returns the page's path."""
    for name, rows in done.tables.items():
        if rows:
            _write_csv(done.folder / f"{name}.csv", rows)
    figures = []
    for name, chart in diagnosis_charts.figures(done.tables).items():
        drawn = charts.svg(chart)
        store.write_text(done.folder / f"{name}.svg", drawn)
        store.write_via(done.folder / f"{name}.png", functools.partial(_write_png, drawn))
        figures.append(f'<figure class="onpaper">{drawn}</figure>')
    shown = "".join(_section(table) for table in tables(done))
    skipped = "".join(f"<p class=note>{html.escape(line)}</p>" for line in (*done.skipped, cost(done)))
    title = html.escape(f"Diagnosis of {done.root.name}")
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{page.style()}</style></head>'
        f'<body><div class="frame"><h1>{title}</h1>{skipped}{"".join(figures)}{shown}</div></body></html>\n'
    )
    store.write_text(done.folder / "index.html", text)
    return done.folder / "index.html"


def _write_png(drawn: str, path: str) -> None:
    Path(path).write_bytes(charts.png(drawn))


def _section(shown: Shown) -> str:
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in shown.head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in shown.lines)
    grid = f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    return f"<h2>{html.escape(shown.title)}</h2>{grid}<p class=note>{html.escape(shown.note)}</p>"


def _write_csv(path: Path, rows: Rows) -> None:
    """Empty where a number is missing."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows)
    store.write_text(path, text.getvalue())


def tables(done: Diagnosis, *, steps: int | None = None) -> list[Shown]:
    """Those that have a line; at most `steps` checkpoints of a way, the first and the last among them."""
    found = done.tables
    ways = dict.fromkeys(row["way"] for row in found.get("cosines", ()))
    made = [_cosines(found, way, steps) for way in ways] + [_tensors(found, way) for way in ways]
    made += [_linearity(found), _directions(found), _noise(found), _agreement(found), _signs(found), _gains(found)]
    return [shown for shown in made if shown.lines]


def _mean(rows: Rows, column: str, **where: Any) -> float:
    """Over the rows that are as `where` says and have the number."""
    values = [row.get(column) for row in rows if all(row[key] == value for key, value in where.items())]
    kept = [float(value) for value in values if value is not None and not math.isnan(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _error(rows: Rows, column: str) -> float:
    """Of a mean of independent numbers."""
    values = [float(row[column]) for row in rows if not math.isnan(row.get(column, math.nan))]
    return math.sqrt(sum(value * value for value in values)) / len(values) if values else math.nan


def _with_error(value: float, error: float) -> str:
    return f"{value:.3f} ± {error:.3f}" if not math.isnan(error) else number(value)


def _spread(values: Sequence[int], most: int | None) -> list[int]:
    if most is None or len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _cosines(found: Mapping[str, Rows], way: str, steps: int | None) -> Shown:
    rows = [row for row in found["cosines"] if row["way"] == way]
    raw = [row for row in rows if row["direction"] == "raw"]
    kinds = [kind for kind in dict.fromkeys(row["direction"] for row in found["directions"]) if kind != "raw"]
    shuffled = [row for row in rows if row["direction"] == "shuffled" and row["seed"] == row["way_seed"]]
    lines = []
    for step in _spread(sorted({row["step"] for row in rows}), steps):
        line = [str(step)]
        for same in (True, False):
            own = [row for row in raw if (row["seed"] == row["way_seed"]) == same and row["step"] == step]
            line.append(number(_mean(own, "cosine")))
            line.append(_with_error(_mean(own, "corrected"), _error(own, "corrected_se")))
        means = [row for row in found["means"] if row["way"] == way and row["step"] == step]
        line += [number(_mean(means, kind)) for kind in ("raw", *kinds, "ways_alike")]
        lines.append([*line, number(_mean(shuffled, "cosine", step=step))])
    return Shown(
        f"Cosine of the one-shot gradient with the displacement of {way}",
        ("update", "own seed", "corrected", "other seed", "corrected", "means: raw", *(f"means: {k}" for k in kinds),
         "ways alike", "shuffled"),
        lines,
        "Means over seeds; ± one standard error of the gradient's noise. Corrected: noise of the gradient taken out, on the same "
        "problems (own seed) or on all (other seed). Means: of mean direction and mean displacement, all noise taken out. "
        "Ways alike: displacements of two seeds.",
    )  # fmt: skip


def group_of(tensor: str) -> str:
    """The tensor's name without its layer."""
    return re.sub(r"\.\d+\.", ".*.", tensor).removeprefix("model.").removesuffix(".weight")


def _tensors(found: Mapping[str, Rows], way: str) -> Shown:
    rows = [row for row in found["tensors"] if row["way"] == way]
    last = [row for row in rows if row["step"] == max(r["step"] for r in rows)]
    own = [row for row in last if row["seed"] == row["way_seed"]]
    other = [row for row in last if row["seed"] != row["way_seed"]]
    lines = []
    for group in dict.fromkeys(group_of(row["tensor"]) for row in last):
        picked = [[row for row in part if group_of(row["tensor"]) == group] for part in (own, other)]
        clear = [[row for row in part if row["corrected_se"] < CLEAR] for part in picked]
        seeds = len({row["seed"] for row in own}) or 1
        signal, moved = (sum(row[share] for row in picked[0]) / seeds for share in ("signal_share", "moved_share"))
        bent = [r for r in found["linearity"] if r["method"] == way and group_of(r["tensor"]) == group]
        lines.append(
            [group, number(signal), number(moved), number(_mean(picked[0], "snr"), 1), number(_mean(clear[0], "corrected")),
             number(_mean(clear[1], "corrected")), number(_mean(bent, "linear_share")), number(_mean(bent, "rank_one_share"))]
        )  # fmt: skip
    return Shown(
        f"By tensor, at the last checkpoint of {way}",
        ("tensor (mean over layers)", "share of |g|²", "share of |D|²", "SNR", "corrected, own seed",
         "corrected, other seed", "weights with R² > .7", "rank-1 share"),
        lines,
        "Cosines are means over the layers in which their standard error is below .1; every tensor and checkpoint is in "
        "tensors.csv and linearity.csv.",
    )  # fmt: skip


def _linearity(found: Mapping[str, Rows]) -> Shown:
    lines = []
    for row in found.get("linearity", ()):
        if row["tensor"] == "all" or "weights" not in row:
            name = f"{row['method']}, seed {row['seed']}" if row["tensor"] == "all" else f"  {row['tensor']}"
            columns = ("linear_share", "token_linear_share", "completion_linear_share", "rank_one_share", "first_r2",
                       "straightness")  # fmt: skip
            lines.append([name, *(number(row.get(column)) for column in columns)])
    return Shown(
        "Linearity of the way",
        ("way", "weights R² > .7", "token logprobs R² > .7", "completion logprobs R² > .7", "rank-1 share",
         "R² of first component", "|D| / length of way"),
        lines,
        "The second line of a pair is what AdamW shows when its gradients are nothing but noise: only the distance to it "
        "speaks for a line.",
    )  # fmt: skip


def _directions(found: Mapping[str, Rows]) -> Shown:
    lines = [
        [row["direction"], str(row["seed"]), *(number(row[c]) for c in ("with_raw", "with_second_draw", "with_other_seeds",
                                                                        "shared_problems"))]
        for row in found.get("directions", ())
    ]  # fmt: skip
    head = ("direction", "seed", "with raw", "second draw", "other seeds", "problems shared with them")
    return Shown("Cosines of the directions with each other and with their copies", head, lines,
                 "adam: the gradient over the root mean square of its 16 parts, where AdamW heads on average.")  # fmt: skip


def _interval(row: Mapping[str, Any], column: str, digits: int = 3) -> str:
    value, low, high = (row.get(name, math.nan) for name in (column, f"{column}_low", f"{column}_high"))
    if math.isnan(low) or math.isnan(high):
        return number(value, digits)
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _noise(found: Mapping[str, Rows]) -> Shown:
    lines = [
        [str(row["seed"]), _interval(row, "snr", 1), _interval(row, "critical", 0), number(row["critical_between"], 0),
         number(row["critical_within"], 0), _interval(row, "between_share", 2), number(row["attenuation"], 4)]
        for row in found.get("noise", ())
    ]  # fmt: skip
    head = ("seed", "SNR of the batch", "critical batch, rollouts", "between problems", "within problems",
            "share between", "attenuation of cosines")  # fmt: skip
    return Shown("Signal and noise of the one-shot gradient", head, lines,
                 "Critical batch: where noise equals signal. Share between: noise that more completions of the same "
                 "problems would leave.")  # fmt: skip


def _agreement(found: Mapping[str, Rows]) -> Shown:
    lines = [
        [str(int(row["rollouts"])), str(row["seed"]),
         *(number(row[c]) for c in ("cosine", "lowest", "highest", "predicted", "with_whole", "with_whole_predicted"))]
        for row in sorted(found.get("agreement", ()), key=lambda row: (row["rollouts"], row["seed"]))
    ]  # fmt: skip
    head = ("rollouts", "seed", "disjoint batches", "lowest", "highest", "predicted", "with the whole", "predicted")
    return Shown("Agreement of smaller batches", head, lines, "Cosines; predicted from signal and noise of the whole.")


def _signs(found: Mapping[str, Rows]) -> Shown:
    lines = [
        [row["level"], str(row["seed"]), number(row["pass_rate"]), number(row.get("cosine")),
         *(_interval(row, c, 2) for c in ("noise_alone", "corrected", "length_ratio")), number(row.get("z"), 2)]
        for row in found.get("signs", ())
    ]  # fmt: skip
    head = ("level", "seed", "pass rate", "cosine", "noise alone", "corrected (-1)", "length ratio (1)", "z of sum (0)")
    return Shown("Correct against incorrect completions", head, lines,
                 "Sums of scores over all completions, dead groups included: in expectation exactly opposite. In brackets what "
                 "holds without noise; z: standard errors of the sum of both from 0.")  # fmt: skip


def _gains(found: Mapping[str, Rows]) -> Shown:
    lines = [
        [row["method"], str(row["seed"]), number(row["kl"]), number(row["step"], 4), str(row["problems"]),
         *(_interval(row, c) for c in ("predicted", "gain")), number(row["realised"], 2)]
        for row in found.get("gains", ())
    ]  # fmt: skip
    head = ("method", "seed", "KL", "step", "problems", "first order", "measured", "ratio")
    return Shown("Predicted and measured gain along the line", head, lines,
                 "Selection problems; first order: step x slope of the pass rate at the base, from fresh completions.")  # fmt: skip
