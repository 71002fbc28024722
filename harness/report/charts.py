"""The line-search figure: accuracy, entropy and KL along the step, for every method that searched one.

Does: build Vega-Lite specs with Altair and render them to SVG and PNG with vl-convert, without a browser.
Doesn't: compute; its data is search.json.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import altair
import vl_convert

from harness import stats, stepping
from harness.report.results import Results

Chart: TypeAlias = altair.Chart | altair.HConcatChart
PANELS = (
    ("accuracy", "selection accuracy"),
    ("entropy", "entropy, nats per token"),
    ("kl", "KL from base, nats per token"),
)


def line_search_rows(results: Results) -> list[dict[str, Any]]:
    """One row per candidate: method, seed, relative step, accuracy with its standard error, entropy, KL, chosen."""
    rows = []
    for (method, seed), done in results.finished.items():
        if done.search is None or not any(c.step for c in done.search.candidates):
            continue
        for index, candidate in enumerate(done.search.candidates):
            error = stats.clustered_se(stepping.rates(candidate.score))
            rows.append(
                {
                    "method": method, "seed": seed, "relative_step": candidate.relative_step,
                    "kl": candidate.kl, "entropy": candidate.entropy, "accuracy": candidate.score.accuracy,
                    "low": candidate.score.accuracy - error, "high": candidate.score.accuracy + error,
                    "chosen": index == done.search.chosen,
                }
            )  # fmt: skip
    return rows


def line_search(rows: list[dict[str, Any]]) -> Chart:
    """Three panels over sqrt(KL), the natural step length: KL = c a^2 makes it linear in the step."""
    placed = [
        {**row, "length": max(row["kl"] or 0.0, 0.0) ** 0.5, "line": f"{row['method']} {row['seed']}"} for row in rows
    ]
    data = altair.Data(values=placed)
    x = altair.X("length:Q", title="sqrt of KL from base (step length)")
    color = altair.Color("method:N", title=None, legend=altair.Legend(orient="top", symbolOpacity=1))
    accuracy = altair.Chart(data)
    line = accuracy.mark_line(point=True).encode(
        x=x, y=altair.Y("accuracy:Q", title=PANELS[0][1]), color=color, detail="line:N"
    )
    band = accuracy.mark_area(opacity=0.15).encode(x=x, y="low:Q", y2="high:Q", color=color, detail="line:N")
    chosen = (
        accuracy.transform_filter("datum.chosen")
        .mark_point(size=160, strokeWidth=2.5)
        .encode(x=x, y="accuracy:Q", color=color)
    )
    steps = altair.Chart(data).mark_line(point=True).encode(
        x=altair.X("relative_step:Q", title="relative step |delta| / |theta|", scale=altair.Scale(type="symlog", constant=0.001)),
        y=altair.Y("kl:Q", title=PANELS[2][1]), color=color, detail="line:N",
    )  # fmt: skip
    entropy = (
        altair.Chart(data)
        .mark_line(point=True)
        .encode(x=x, y=altair.Y("entropy:Q", title=PANELS[1][1]), color=color, detail="line:N")
    )
    size = {"width": 260, "height": 220}
    figure = altair.hconcat(
        (band + line + chosen).properties(**size), entropy.properties(**size), steps.properties(**size)
    )
    return figure.configure_view(strokeOpacity=0.2).configure_axis(gridOpacity=0.25)


def svg(chart: Chart) -> str:
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


def png(drawn: str, *, scale: float = 2) -> bytes:
    """Of the SVG, so that the figure is laid out once."""
    return bytes(vl_convert.svg_to_png(drawn, scale=scale))
