"""Where one_shot's missing gain went: search noise, direction noise, headroom.

Does: score every step of the search on the test problems without the best one's luck, and split what lies between the
chosen step and what the base could do in 16 tries.
Doesn't: explain why no step reaches that: headroom is what is left.

All on the same test problems, each term a paired difference of pass rates by problem:

    lost      = ceiling - chosen                    = search + direction + headroom
    search    = best - chosen                       what a search without noise would have added: the regret
    direction = clean - best                        what the best step along a direction with little noise adds
    headroom  = ceiling - clean                     what no step along any such direction reaches

- chosen: the test score of the step that the search took.
- best: the best candidate on test, without the optimism of a maximum over noisy scores: problems are halved at random,
  the best of one half is scored on the other, both ways, over SPLITS splits. What is picked on half of the problems is at
  most as good as the true best, so the regret errs on the low side, never by luck on the high one.
- clean: `best` of a run with many more rollouts on the same test problems, where there is one. Else a model: steps of one
  KL gain in proportion to the cosine of their direction with the noiseless one, to first order, and its square is snr /
  (1 + snr). Then direction = (best - base) (1 / cos - 1), cut at the ceiling. By enumeration it is right to a factor of
  about two: it says too much where noise falls on weights that hardly matter, and too little at a
  small snr, where noise does harm of its own. Without a positive snr it has no answer: direction is None, and headroom
  holds both.
- ceiling: pass@16 of the base, from its draws for bins: what the base already does once in 16 tries. It needs no other
  method, is measured on the same problems, and is what Wang et al. and others hold RLVR at this scale to. It is no
  bound: a method above it has negative headroom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness import leaderboard, seeds, stats, stepping
from harness.leaderboard import Comparison
from harness.pipeline import Finished
from harness.report.results import FOCUS, Results
from harness.types import Score

SPLITS = 50
K = 16
Floats = npt.NDArray[np.float64]


class Regret(NamedTuple):
    """`best_P` and `chosen_P`: accuracy by problem, of what the other half picks and of the chosen step."""

    best_P: Floats
    chosen_P: Floats

    @property
    def value(self) -> float:
        return float(np.nanmean(self.best_P - self.chosen_P))


def regret(rates_CP: Floats, chosen: int, *, seed: int = 0, splits: int = SPLITS) -> Regret:
    """From the test accuracies of every candidate, candidates x problems (NaN without a verdict)."""
    problems, rng = rates_CP.shape[1], seeds.generator(seed)
    sums_P = np.zeros(problems)
    for _ in range(splits):
        first_P = np.zeros(problems, dtype=bool)
        first_P[rng.permutation(problems)[: problems // 2]] = True
        for picking_P, scored_P in ((first_P, ~first_P), (~first_P, first_P)):
            picked = int(np.nan_to_num(np.nanmean(rates_CP[:, picking_P], axis=1), nan=-1.0).argmax())
            sums_P[scored_P] += rates_CP[picked, scored_P]
    return Regret(sums_P / splits, rates_CP[chosen])


class Lost(NamedTuple):
    """The split of one method, over seeds. Intervals are paired by problem; `modelled` says that `direction` is the
    model's, whose interval takes the snr as known. `direction` is None where the model has no answer either."""

    method: str
    lost: Comparison
    search: Comparison
    direction: Comparison | None
    headroom: Comparison
    modelled: bool


def split(found: Results, *, reference: Results | None = None, method: str = FOCUS) -> Lost | None:
    """Of a method whose candidates were all scored on test; None without them, without draws for bins, or of one problem.

    `reference` is a run with many more rollouts on the same test problems.
    """
    done = [found.finished[method, seed] for seed in found.seeds_of(method)]
    base = [found.finished["base", seed] for seed in found.seeds_of(method)]
    bins = base[0].evaluation.bins if base else None
    if bins is None or len(bins.problem_ids) < 2 or not all(_has_candidates(one) for one in done):
        return None
    regrets = [_regret(one) for one in done]
    chosen_SP, best_SP = np.array([r.chosen_P for r in regrets]), np.array([r.best_P for r in regrets])
    base_SP = np.array([stepping.rates(one.evaluation.sampled) for one in base])
    ceiling_SP = np.broadcast_to(solved(bins), chosen_SP.shape)
    if reference is not None:
        clean_SP: Floats | None = np.broadcast_to(_clean(reference, method), chosen_SP.shape)
    else:
        clean_SP = modelled_clean(base_SP, best_SP, ceiling_SP, [_snr(one) for one in done])
    return Lost(
        method=method,
        lost=leaderboard.compared(chosen_SP, ceiling_SP),
        search=leaderboard.compared(chosen_SP, best_SP),
        direction=None if clean_SP is None else leaderboard.compared(best_SP, clean_SP),
        headroom=leaderboard.compared(best_SP if clean_SP is None else clean_SP, ceiling_SP),
        modelled=reference is None,
    )


def _has_candidates(done: Finished) -> bool:
    return done.search is not None and len(done.evaluation.candidates) == len(done.search.candidates)


def _regret(done: Finished) -> Regret:
    assert done.search is not None
    rates_CP = np.array([stepping.rates(score) for score in done.evaluation.candidates])
    return regret(rates_CP, done.search.chosen)


def _snr(done: Finished) -> float:
    return math.nan if done.direction is None or done.direction.snr is None else done.direction.snr


def _clean(reference: Results, method: str) -> Floats:
    """Accuracy by problem of the reference's best candidates, a mean over its seeds."""
    best_SP = [_regret(reference.finished[method, seed]).best_P for seed in reference.seeds_of(method)]
    mean_P: Floats = np.nanmean(np.array(best_SP), axis=0)
    return mean_P


def modelled_clean(base_SP: Floats, best_SP: Floats, ceiling_SP: Floats, snrs_S: Sequence[float]) -> Floats | None:
    """base + (best - base) / cos by problem, no more on average than the ceiling; None unless every snr is above 0."""
    if not all(snr > 0 for snr in snrs_S):
        return None
    cosines_S = np.sqrt([1.0 if snr == math.inf else snr / (1.0 + snr) for snr in snrs_S])
    added_SP = (best_SP - base_SP) * (1.0 / cosines_S - 1.0)[:, None]
    room, added = float(np.nanmean(ceiling_SP - best_SP)), float(np.nanmean(added_SP))
    share = min(1.0, max(0.0, room) / added) if added > 0 else 1.0
    clean_SP: Floats = best_SP + share * added_SP
    return clean_SP


def solved(wide: Score) -> Floats:
    """pass@16 by problem, NaN below 16 draws."""
    return np.array([stats.pass_at_k(n, c, K) for n, c in zip(wide.n, wide.correct, strict=True)])
