"""The null model for k steps on N rollouts: effective steps, if batches only average noise (McCandlish et al. 1812.06162).

Does: turn the signal-to-noise ratio of a batch into a critical batch, and (k, N) into effective steps.
Doesn't: predict a gain. Where methods of one domain differ at equal effective steps, something else than noise does it.

Their eq. 2.7: one step on a batch of B improves the loss by 1 / (1 + B_crit / B) of what a noiseless one does, where
B_crit = tr Cov(one rollout's gradient) / |g|^2. With snr = |g|^2 / tr Cov(mean of B), B_crit = B / snr.

Departures: 1. B counts rollouts at the run's group size, and noise between problems is part of it. 2. B_crit is measured
once, at the base; the paper lets it grow in training. 3. Steps are taken as equally long.
"""

from __future__ import annotations

import math


def critical_batch(snr: float, rollouts: int) -> float:
    """B_crit in rollouts, from the snr of a batch of `rollouts`; infinite where no signal was measured (snr <= 0)."""
    return rollouts / snr if snr > 0 else math.inf


def effective_steps(steps: float, budget: float, critical: float) -> float:
    """k / (1 + B_crit / B) with B = budget / k: at most k, and at most budget / B_crit."""
    if steps <= 0 or budget <= 0:
        raise ValueError(f"effective steps need steps and a budget above 0, got {steps} and {budget}")
    return steps / (1.0 + critical * steps / budget)
