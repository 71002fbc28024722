"""Figures of the diagnosis: cosines along the way, by tensor, agreement and signs, gains along the line, linearity.

Does: build Vega-Lite specs with Altair from the tables.
Doesn't: render (charts.py) or compute.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair

from harness.diagnosis.linearity import BINS

Rows = Sequence[Mapping[str, Any]]
SIZE = {"width": 330, "height": 240}
TOP = altair.Legend(orient="top", columns=3, symbolOpacity=1)


def figures(tables: Mapping[str, Rows]) -> dict[str, altair.TopLevelMixin]:
    """By file name; those there are rows for."""
    found: dict[str, altair.TopLevelMixin] = {}
    for way in dict.fromkeys(row["way"] for row in tables.get("cosines", ())):
        found[f"cosines-{way}"] = _styled(_cosines(tables, way))
        found[f"tensors-{way}"] = _styled(_tensors(tables["tensors"], way))
    if tables.get("linearity"):
        found["linearity"] = _styled(_linearity(tables["linearity"]))
    if tables.get("agreement"):
        found["noise"] = _styled(
            altair.hconcat(_agreement(tables["agreement"]), _signs(tables["signs"])).resolve_scale(color="independent")
        )
    if tables.get("gains"):
        found["gains"] = _styled(_gains(tables["gains"]))
    return found


def _styled(chart: Any) -> Any:
    return chart.configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)


def _clean(rows: Rows) -> altair.Data:
    values = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    return altair.Data(values=values)


def _cosines(tables: Mapping[str, Rows], way: str) -> altair.HConcatChart:
    """Left: the raw gradient, measured and corrected. Right: kinds of direction."""
    rows = [row for row in tables["cosines"] if row["way"] == way]
    told = []
    for row in rows:
        same = "own seed" if row["seed"] == row["way_seed"] else "other seed"
        shared = {"step": row["step"], "pair": f"{row['seed']}-{row['way_seed']}"}
        if row["direction"] == "raw":
            told.append({**shared, "cosine": row["cosine"], "what": same, "how": "measured"})
            limits = {"low": row["corrected_low"], "high": row["corrected_high"]}
            told.append({**shared, "cosine": row["corrected"], "what": same, "how": "corrected", **limits})
        if row["direction"] == "shuffled":
            told.append({**shared, "cosine": row["cosine"], "what": "shuffled rewards", "how": "measured"})
    x, color = altair.X("step:Q", title="update"), altair.Color("what:N", title=None, legend=TOP)
    dash = altair.StrokeDash("how:N", title=None, legend=TOP, sort=["corrected", "measured"])
    left, y = altair.Chart(_clean(told)), altair.Y("cosine:Q", title="cosine of the raw gradient")
    lines = left.mark_line().encode(x=x, y=y, color=color, strokeDash=dash, detail="pair:N")
    bands = left.mark_area(opacity=0.12).encode(x=x, y="low:Q", y2="high:Q", color=color, detail="pair:N")
    kinds, title = _kinds(tables, rows, way)
    right = altair.Chart(_clean(kinds)).mark_line(point=True).encode(
        x=x, y=altair.Y("cosine:Q", title=title), color=altair.Color("direction:N", title=None, legend=TOP), detail="pair:N"
    )  # fmt: skip
    joined = altair.hconcat((bands + lines).properties(**SIZE), right.properties(**SIZE))
    return joined.resolve_scale(color="independent", y="shared")


def _kinds(tables: Mapping[str, Rows], rows: Rows, way: str) -> tuple[list[dict[str, Any]], str]:
    """Cosines of means over seeds where there are several, else as measured."""
    means = [row for row in tables["means"] if row["way"] == way]
    named = dict.fromkeys(row["direction"] for row in tables["directions"])
    if means:
        told = [{"step": r["step"], "cosine": r[kind], "direction": kind, "pair": ""} for r in means for kind in named]
        alike = [
            {"step": r["step"], "cosine": r["ways_alike"], "direction": "ways of two seeds", "pair": ""} for r in means
        ]
        return told + alike, "cosine of mean direction and mean displacement"
    own = [row for row in rows if row["direction"] in named]
    told = [{**row, "pair": f"{row['seed']}-{row['way_seed']}"} for row in own]
    return told, "cosine with the displacement, measured"


def _tensors(tables: Rows, way: str) -> altair.HConcatChart:
    """Corrected cosines at the last checkpoint, and where gradient and displacement are."""
    rows = [row for row in tables if row["way"] == way]
    last = [
        {**row, "whose": "own seed" if row["seed"] == row["way_seed"] else "other seed",
         "tensor": row["tensor"].removeprefix("model.").removesuffix(".weight")}
        for row in rows if row["step"] == max(r["step"] for r in rows)
    ]  # fmt: skip
    order = list(dict.fromkeys(row["tensor"] for row in last))
    y = altair.Y("tensor:N", title=None, sort=order, axis=altair.Axis(labelLimit=260))
    base, color = altair.Chart(_clean(last)), altair.Color("whose:N", title=None, legend=TOP)
    x = altair.X("corrected:Q", title="corrected cosine of the gradient with the displacement")
    bars = base.mark_rule(opacity=0.5).encode(y=y, x="corrected_low:Q", x2="corrected_high:Q", color=color)
    dots = base.mark_point(filled=True, size=35).encode(y=y, x=x, color=color)
    own = [row for row in last if row["whose"] == "own seed" or len({r["whose"] for r in last}) == 1]
    shares = [
        {"tensor": row["tensor"], "share": row[column], "of": of}
        for row, (column, of) in itertools.product(own, (("signal_share", "|g|²"), ("moved_share", "|displacement|²")))
    ]
    held = altair.Chart(_clean(shares)).mark_point(filled=True, size=35).encode(
        y=altair.Y("tensor:N", title=None, sort=order, axis=altair.Axis(labels=False)),
        x=altair.X("mean(share):Q", title="share of the square norm", scale=altair.Scale(type="sqrt")),
        color=altair.Color("of:N", title=None, legend=TOP),
    )  # fmt: skip
    height = 15 * len(order)
    joined = altair.hconcat(
        (bars + dots).properties(width=330, height=height), held.properties(width=200, height=height)
    )
    return joined.resolve_scale(color="independent")


def _linearity(rows: Rows) -> altair.HConcatChart:
    """Shares of weights by R², and rank-one shares of tensors, with what noise gives."""
    told, ranks = [], []
    for row in rows:
        name = f"{row['method']}, seed {row['seed']}" if "weights" in row else str(row["tensor"])
        if row["tensor"] == "all" or "weights" not in row:
            told += [{"r2": (i + 0.5) / BINS, "share": share, "way": name} for i, share in enumerate(row["bins"])]
        else:
            ranks.append({"rank_one_share": row["rank_one_share"], "way": name})
    nothing = [{"rank_one_share": row["rank_one_share"]} for row in rows if "weights" not in row][:1]
    color = altair.Color("way:N", title=None, legend=TOP)
    left = altair.Chart(_clean(told)).mark_line(point=True).encode(
        x=altair.X("r2:Q", title="R² of a weight against the update"), y=altair.Y("share:Q", title="share of weights"), color=color
    )  # fmt: skip
    scale = altair.Scale(zero=False)
    right = altair.Chart(_clean(ranks)).mark_tick(thickness=2).encode(
        x=altair.X("rank_one_share:Q", title="rank-1 share of the stacked displacements, by tensor", scale=scale),
        y=altair.Y("way:N", title=None), color=color,
    )  # fmt: skip
    rule = altair.Chart(_clean(nothing)).mark_rule(strokeDash=[4, 3]).encode(x="rank_one_share:Q")
    return altair.hconcat(left.properties(**SIZE), (right + rule).properties(width=330, height=120))


def _agreement(rows: Rows) -> altair.LayerChart:
    axis = altair.Axis(values=sorted({row["rollouts"] for row in rows}), format="d")
    x = altair.X("rollouts:Q", title="rollouts of each batch", scale=altair.Scale(type="log", base=2), axis=axis)
    told = [
        {"rollouts": row["rollouts"], "cosine": row[column], "what": what, "seed": row["seed"]}
        for row in rows
        for column, what in (("cosine", "disjoint"), ("with_whole", "with the whole"))
    ]
    guess = [
        {"rollouts": row["rollouts"], "cosine": row[column], "what": what, "seed": row["seed"]}
        for row in rows
        for column, what in (("predicted", "disjoint"), ("with_whole_predicted", "with the whole"))
    ]
    color = altair.Color("what:N", title=None, legend=TOP)
    y = altair.Y("cosine:Q", title="cosine (lines: predicted)", scale=altair.Scale(zero=False))
    dots = altair.Chart(_clean(told)).mark_point(filled=True, size=50).encode(x=x, y=y, color=color)
    lines = altair.Chart(_clean(guess)).mark_line().encode(x=x, y=y, color=color, detail="seed:N")
    return (lines + dots).properties(**SIZE)


def _signs(rows: Rows) -> altair.LayerChart:
    told = [{**row, "place": f"{row['level']}", "seed": f"seed {row['seed']}"} for row in rows if "cosine" in row]
    base, offset = altair.Chart(_clean(told)), altair.XOffset("seed:N")
    x, color = altair.X("place:N", title="level", sort=None), altair.Color("seed:N", title=None, legend=TOP)
    y = altair.Y(
        "cosine:Q", title="cosine, correct with incorrect (bars: noise alone)", scale=altair.Scale(domain=[-1, 1])
    )
    bars = base.mark_rule(strokeWidth=6, opacity=0.3).encode(
        x=x, xOffset=offset, y="noise_alone_low:Q", y2="noise_alone_high:Q", color=color
    )
    dots = base.mark_point(filled=True, size=60).encode(x=x, xOffset=offset, y=y, color=color)
    return (bars + dots).properties(**SIZE)


def _gains(rows: Rows) -> altair.HConcatChart:
    """A panel a method: the measured gain over sqrt(KL), the first-order one as a line with its band."""
    panels = []
    for method in dict.fromkeys(row["method"] for row in rows):
        told = [
            {**row, "length": max(row["kl"] or 0.0, 0.0) ** 0.5, "seed": f"seed {row['seed']}"}
            for row in rows
            if row["method"] == method
        ]
        base, color = altair.Chart(_clean(told)), altair.Color("seed:N", title=None, legend=TOP)
        x = altair.X("length:Q", title=f"{method}: sqrt of KL from base")
        limits = altair.Scale(domain=[min(-0.2, *(row["gain_low"] for row in told)), 1.0], clamp=False)
        y = altair.Y("gain:Q", title="gain on selection (lines: first order)", scale=limits)
        band = base.mark_area(opacity=0.15, clip=True).encode(
            x=x, y="predicted_low:Q", y2="predicted_high:Q", color=color
        )
        line = base.mark_line(clip=True).encode(x=x, y=altair.Y("predicted:Q", scale=limits), color=color)
        bars = base.mark_rule(opacity=0.6).encode(x=x, y="gain_low:Q", y2="gain_high:Q", color=color)
        dots = base.mark_point(filled=True, size=50).encode(x=x, y=y, color=color)
        panels.append((band + line + bars + dots).properties(**SIZE))
    return altair.hconcat(*panels)
