"""The density of good perturbations around a model: the share of probed policies that beat the base by a margin.

Does: per size of the noise, count the perturbations at least m above and at least m below the base on the same
problems (Gan & Isola 2603.12228: delta(m) = P[score(theta + sigma eps) >= score(theta) + m]).
Doesn't: draw or judge; its data is probe.json.

Departure: the share at least m *below* is given beside it. On a few dozen problems a perturbation that changes nothing
on average still lands above m now and then; were there no more good ones than bad ones, both shares would be alike.
Unlike shares are no proof either: a base that is unlucky on these very problems has more neighbours above it. Whether
a gain is real is for selection and test to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from harness import console, leaderboard
from harness.report import grids, page
from harness.report.results import Results
from harness.types import Candidate, Search

MARGINS = (0.02, 0.05, 0.10)
HEADLINE = 0.05
HEAD = ("method", "sigma", "perturbations", "problems", "base", "mean", "best",
        *(f"{sign}{m:.2f}" for m in MARGINS for sign in ("\u2265 +", "\u2264 \u2212")))  # fmt: skip
SAID = (
    "Greedy scores on training problems, the base on the same ones; sigma is the noise relative to each tensor's root mean "
    "square; seeds are pooled. \u2265 +m is the density of Gan and Isola: the share of perturbations at least m above the base. "
    "Scores on so few problems scatter, so noise alone gives some share: \u2264 \u2212m, the share at least m below, is its "
    "symmetric control; a base that is unlucky on these problems tilts both. The best score is inflated by having been picked."
)  # fmt: skip
ROUNDING = 1e-9  # a difference of exactly m counts, however its float came out


class Density(NamedTuple):
    """One sigma: `above` and `below` are shares of the perturbations at least MARGINS away from the base."""

    sigma: float
    perturbations: int
    problems: int
    base: float
    mean: float
    best: float
    above: tuple[float, ...]
    below: tuple[float, ...]


def densities(probes: Sequence[Search], margins: Sequence[float] = MARGINS) -> list[Density]:
    """By ascending sigma; probes of several seeds are pooled, each compared with its own base."""
    gains: dict[float, list[float]] = {}
    scores: dict[float, list[float]] = {}
    for probe in probes:
        for candidate in probe.candidates[1:]:
            gains.setdefault(candidate.step, []).append(_gain(probe.candidates[0], candidate))
            scores.setdefault(candidate.step, []).append(candidate.score.accuracy)
    base = _mean([probe.candidates[0].score.accuracy for probe in probes])
    problems = len(probes[0].candidates[0].score.problem_ids) if probes else 0
    return [
        Density(
            sigma=sigma,
            perturbations=len(gains[sigma]),
            problems=problems,
            base=base,
            mean=_mean(scores[sigma]),
            best=max(scores[sigma]),
            above=tuple(_mean([gain >= m - ROUNDING for gain in gains[sigma]]) for m in margins),
            below=tuple(_mean([gain <= ROUNDING - m for gain in gains[sigma]]) for m in margins),
        )
        for sigma in sorted(gains)
    ]


def densest(found: Sequence[Density], margin: float = HEADLINE) -> Density:
    """The sigma with the largest share above `margin`, the smaller one on ties."""
    index = MARGINS.index(margin)
    return max(found, key=lambda density: (density.above[index], -density.sigma))


def body(found: Results) -> str:
    """How often noise alone makes a better model, per size of the noise, as HTML; nothing when no method probed."""
    number, lines = console.number, []
    for method in dict.fromkeys(name for name, _ in found.probes):
        for d in densities(found.probes_of(method)):
            shares = [number(share) for pair in zip(d.above, d.below, strict=True) for share in pair]
            scores = (number(d.base), number(d.mean), number(d.best))
            lines.append([method, d.sigma, d.perturbations, d.problems, *scores, *shares])
    return grids.grid(HEAD, lines, colors=found.colors) + page.note(SAID) if lines else ""


def _gain(base: Candidate, candidate: Candidate) -> float:
    """Over the problems on which both have a verdict; NaN, which is neither above nor below, when there is none."""
    base_P, own_P = leaderboard.paired_rates(base.score, candidate.score)
    return _mean(list(own_P - base_P))


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values)) if len(values) else float("nan")
