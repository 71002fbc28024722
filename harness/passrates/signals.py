"""How much signal a training batch held: dead groups against those expected, agreement, SNR, and the N it would take.

Does: put one row together for every direction of a run that came from a batch; name the N at which agreement would reach
a level.
Doesn't: compute a gradient. SNR and agreement are those of the run (harness/stats.py, gradient_signal).

Expected dead groups come from draws that are independent of the batch: fresh ones on problems that were trained on
(purpose "seen"), else the test problems' draws for bins, which are of other problems. A batch with more dead groups than
expected is no fact about pass rates: look for a broken reward or for sampling that is not what it says.

Recommended N: the noise of a mean falls as 1 / N, so snr grows in proportion to N at one group size; agreement =
snr / (snr + 2) reaches A at snr = 2 A / (1 - A). It holds for the same model, problems and group size, and says that two
such batches would agree, not that a step along them gains.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from harness import betabinomial
from harness.pipeline import Finished
from harness.report.results import Results
from harness.types import Score

AGREEMENT = 0.8


class Signal(NamedTuple):
    """One direction. `dead` and `dead_expected` are shares of groups; NaN where unknown.

    `successes` is N p, the expected number of correct rollouts; `recommended` the N for an agreement of AGREEMENT,
    infinite where no signal was measured.
    """

    method: str
    seed: int
    rollouts: int
    pass_rate: float
    successes: float
    groups: int
    dead: float
    dead_expected: float
    snr: float
    agreement: float
    recommended: float


def rows(found: Results) -> list[Signal]:
    """One for each method and seed with a direction that was taken of a batch."""
    drawn = []
    for (method, seed), done in found.finished.items():
        direction = done.direction
        if direction is None or direction.batch_pass_rate is None:
            continue
        groups, rollouts = direction.groups_used + direction.groups_dead, round(float(done.cost["train_rollouts"]))
        snr = math.nan if direction.snr is None else direction.snr
        drawn.append(
            Signal(
                method=method,
                seed=seed,
                rollouts=rollouts,
                pass_rate=direction.batch_pass_rate,
                successes=rollouts * direction.batch_pass_rate,
                groups=groups,
                dead=direction.groups_dead / groups if groups else math.nan,
                dead_expected=expected_dead(found.finished["base", seed], group=_group(found)),
                snr=snr,
                agreement=math.nan if direction.agreement is None else direction.agreement,
                recommended=recommended(snr, rollouts),
            )
        )
    return drawn


def _group(found: Results) -> int:
    return int(found.manifest["spec"]["sampling"]["group"])


def expected_dead(base: Finished, *, group: int) -> float:
    """Expected share of dead groups from the base's fresh draws; NaN without any of two draws a problem."""
    score = base.seen or base.evaluation.bins
    return math.nan if score is None else expected_share(score, group=group)


def expected_share(score: Score, *, group: int) -> float:
    kept = [(c, n) for c, n in zip(score.correct, score.n, strict=True) if n >= 2]
    if not kept:
        return math.nan
    correct, n = zip(*kept, strict=True)
    return betabinomial.expected_dead_share(correct, n, group)


def recommended(snr: float, rollouts: int, *, agreement: float = AGREEMENT) -> float:
    """The N at which two half batches would agree to this cosine, were snr in proportion to N; NaN without an snr."""
    if math.isnan(snr):
        return math.nan
    return rollouts * 2.0 * agreement / ((1.0 - agreement) * snr) if snr > 0 else math.inf
