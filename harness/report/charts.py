"""How every figure looks and where it goes: one colour for each method, one theme, files, and the page's own copy.

Does: give methods their colours; render panels with vl-convert, without a browser, to PNG and SVG; write their data as CSV;
make the HTML that shows the SVG, and carries the specification from which page.js makes it interactive.
Doesn't: know what a figure shows.

A panel holds layers made with Altair over the data set ROWS. In a file, panels stand side by side; in the page they wrap.
"""

from __future__ import annotations

import csv
import functools
import html
import io
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import altair
import vl_convert

from harness import store

Chart: TypeAlias = altair.TopLevelMixin
Rows: TypeAlias = Sequence[Mapping[str, Any]]
Panel: TypeAlias = dict[str, Any]  # Vega-Lite of one view

ROWS = "rows"
TOP_LEVEL = ("$schema", "config", "datasets")
INK, PAPER = "#24292f", "#ffffff"  # in files; the page puts its own colours there
COLORS = {
    "base": "#7d868f", "base_tempered": "#a08c74", "one_shot": "#1f7fd6", "one_shot_k": "#0e9fb0", "grpo": "#e06c10",
    "one_batch_many_steps": "#5b6ee0", "single_example": "#b0702a", "entropy_min": "#5f9e2f", "rejection_sft": "#9650c8",
    "dpo": "#d0408c", "ppo": "#a84a1f", "hidden_direction": "#2f9e77", "random_search": "#b8950f", "random_search_vote": "#94801a",
    "evolution": "#8a7d3a", "extrapolate": "#d04a36", "majority": "#6f8f3a", "best_of_n": "#4d8f8f", "in_context": "#8f6fa8",
    "one_shot_shuffled": "#d48a98", "random_direction": "#b79a9a",
}  # fmt: skip
SPARE = ("#3d8bb0", "#c2587a", "#7a9a3c", "#8a63d2", "#c77d2e", "#2f8f6b", "#b0506a", "#5d7fbf")
PANEL = {"width": 300, "height": 220}
ORACLE = " (oracle)"  # what a label adds to the name of a method that looked at the answers
SHAPES = 6  # runs that have one
MOST = 8  # methods in one figure: more lines than that nobody tells apart
DIGITS = 5  # significant ones of a number in the page; files have all


class Figure(NamedTuple):
    """`shown` are the rows that are drawn, `rows` those in the CSV; `colors` are the legend, of values of `field`."""

    name: str
    panels: Sequence[Panel]
    rows: Rows
    shown: Rows
    colors: Mapping[str, str]
    field: str = "method"


def palette(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each name: built-in methods have theirs everywhere, variants and plugins take spare ones in order."""
    spare = itertools.cycle(SPARE)
    return {name: COLORS.get(name.removesuffix(ORACLE)) or next(spare) for name in methods}


def color(colors: Mapping[str, str], field: str = "method", *, legend: bool = True) -> altair.Color:
    """The colour channel of a figure of these methods. Without a legend where an axis has their names already."""
    scale = altair.Scale(domain=list(colors), range=list(colors.values()))
    shown = altair.Legend(orient="top", symbolOpacity=1) if legend else None
    return altair.Color(f"{field}:N", title=None, scale=scale, legend=shown)


def shapes(runs: Sequence[str]) -> dict[str, altair.Shape]:
    """A shape for each run: only where there are several, and few enough to tell apart."""
    known = list(dict.fromkeys(runs))
    scale = altair.Scale(domain=known)
    legend = altair.Legend(orient="bottom", columns=2, labelLimit=320)
    return {"shape": altair.Shape("run:N", title=None, scale=scale, legend=legend)} if 1 < len(known) <= SHAPES else {}


def panel(title: str, *layers: altair.Chart, width: int = PANEL["width"], height: Any = PANEL["height"]) -> Panel:
    """Layers under a title that stands in for that of the y axis.

    Put together here: altair.layer copies every layer several times over, which is most of what a page would cost.
    """
    drawn = [{k: v for k, v in layer.to_dict(validate=False).items() if k not in TOP_LEVEL} for layer in layers]
    inherited = [{k: v for k, v in layer.items() if k != "data" or v != {"name": ROWS}} for layer in drawn]
    tall = height.to_dict() if isinstance(height, altair.Step) else height
    return {"data": {"name": ROWS}, "layer": inherited, "width": width, "height": tall, "title": {"text": title}}


def over() -> altair.Chart:
    """A layer of a panel: reads the figure's rows."""
    return altair.Chart(altair.NamedData(ROWS))


def around(values: Sequence[float], margin: float = 0.03) -> altair.Scale:
    """Shares, with some room on both sides: all of one value would otherwise have no axis."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    return altair.Scale(domain=[max(0.0, min(known) - margin), min(1.0, max(known) + margin)], nice=False)


def rule_at(value: float, axis: str = "y") -> altair.Chart:
    """A thin line across the panel, at zero or at what a gain has to reach."""
    return (
        altair.Chart(altair.Data(values=[{"at": value}]))
        .mark_rule(strokeDash=[4, 4], color=INK, opacity=0.55)
        .encode(**{axis: altair.Y("at:Q") if axis == "y" else altair.X("at:Q")})
    )


def tooltip(*fields: str) -> list[altair.Tooltip]:
    """ "name:Q" or "name:N", or "name:Q=title"; numbers with three significant digits."""
    made = []
    for field in fields:
        short, _, title = field.partition("=")
        name, _, kind = short.partition(":")
        extra = {"format": ".3~g"} if kind == "Q" else {}
        made.append(altair.Tooltip(field=name, type=_KINDS[kind], title=title or name, **extra))
    return made


_KINDS = {"Q": "quantitative", "N": "nominal", "O": "ordinal"}


def config() -> dict[str, Any]:
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 11}
    return {
        "background": PAPER,
        "view": {"stroke": None},
        "axis": {**text, "titleFontWeight": "normal", "gridColor": INK, "gridOpacity": 0.1, "domainColor": INK,
                 "domainOpacity": 0.4, "tickColor": INK, "tickOpacity": 0.4, "labelOverlap": True, "titlePadding": 6},
        "axisX": {"tickCount": 6, "labelFlush": False},
        "axisY": {"tickCount": 5},
        "legend": {**text, "columns": 5, "labelLimit": 220, "symbolSize": 70},
        "title": {"anchor": "start", "fontSize": 12.5, "fontWeight": 600, "color": INK, "offset": 8},
        "line": {"strokeWidth": 2},
        "rule": {"strokeWidth": 1.5},
    }  # fmt: skip


def specification(panels: Sequence[Panel], shown: Rows) -> dict[str, Any]:
    """Vega-Lite of the panels side by side, with their data."""
    return {"$schema": altair.SCHEMA_URL, "config": config(), "hconcat": list(panels), "datasets": {ROWS: plain(shown)}}


def plain(rows: Rows) -> list[dict[str, Any]]:
    """What JSON can say: no NaN or infinity, and no more digits than a screen shows."""
    return [{key: _plain(value) for key, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def svg(spec: Mapping[str, Any] | Chart) -> str:
    given = spec if isinstance(spec, Mapping) else spec.to_dict()
    return str(vl_convert.vegalite_to_svg(json.dumps(given)))


def png(drawn: str, scale: float = 2) -> bytes:
    """Of the SVG, so that the figure is laid out once."""
    return bytes(vl_convert.svg_to_png(drawn, scale=scale))


def write_csv(path: Path, rows: Rows) -> None:
    """Empty for missing, as in leaderboard.csv."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows([{k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows])
    store.write_text(path, text.getvalue())


def save(root: Path, name: str, spec: Mapping[str, Any] | Chart, rows: Rows) -> str:
    """figures/<name>.png, .svg and .csv; returns the SVG."""
    drawn = svg(spec)
    store.write_text(root / f"figures/{name}.svg", drawn)
    store.write_via(root / f"figures/{name}.png", lambda p: Path(p).write_bytes(png(drawn)))
    write_csv(root / f"figures/{name}.csv", rows)
    return drawn


def show(root: Path, figure: Figure, caption: str = "") -> str:
    """Write the figure's files and return its HTML, a picture that stays where no script runs; nothing without rows."""
    if not figure.shown:
        return ""
    spec = specification(figure.panels, figure.shown)
    drawn = themed(_lean(save(root, figure.name, spec, figure.rows)))
    said = f"<figcaption>{caption}</figcaption>" if caption else ""
    panels = "".join('<div class="panel"></div>' for _ in figure.panels)
    return (
        f'<figure class="chart" data-figure="{html.escape(figure.name)}" data-field="{figure.field}">{legend(figure.colors)}'
        f'<div class="picture" role="img" aria-label="{html.escape(figure.name)}">{drawn}</div><div class="panels n{len(figure.panels)}" hidden>{panels}</div>{said}'
        f'<script type="application/json">{themed(script_json(spec))}</script></figure>'
    )


def legend(colors: Mapping[str, str]) -> str:
    """Names with their colours; page.js makes them switches."""
    keys = "".join(f"<li>{chip(name, colors)}</li>" for name in colors)
    return f'<ul class="legend" hidden>{keys}</ul>' if keys else ""


def chip(method: str, colors: Mapping[str, str]) -> str:
    """A method's name after a dot of its colour, as HTML."""
    return f'<span class="m" style="--c:{colors.get(method, "currentColor")}">{html.escape(method)}</span>'


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)  # U+2028 escaped as well
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def themed(text: str) -> str:
    """Ink and paper as the page has them, light or dark."""
    return text.replace(INK, "currentColor").replace(PAPER, "var(--paper)").replace('"black"', '"currentColor"')


_DEAD = re.compile(
    r'<path class="(?:background|foreground)"[^>]*?/>| (?:pointer-events="none"|opacity="1"|aria-hidden="true"'
    r'|role="graphics-(?:object|symbol)"|aria-roledescription="[^"]*")'
)
_LONG = re.compile(r"(\d+\.\d{2})\d+")


def _lean(drawn: str) -> str:
    """The SVG without what nobody sees: halves its size."""
    return _LONG.sub(r"\1", _DEAD.sub("", drawn))


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from vl-convert: nothing is fetched."""
    script: str = vl_convert.javascript_bundle(snippet=None)  # type: ignore[arg-type]
    return script.replace("</script", "<\\/script")


def chosen(colors: Mapping[str, str], first: Sequence[str], most: int = MOST) -> dict[str, str]:
    """At most `most` methods with their colours: those in `first` before the others, which keep their order."""
    names = [*(name for name in first if name in colors), *(name for name in colors if name not in first)]
    return {name: colors[name] for name in names[:most]}
