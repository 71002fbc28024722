"""Rejection sampling and fine-tuning: likelihood of the base batch's verified-correct rollouts (RFT, 2308.01825).

Does: keep the correct completions of the base batch, equal ones of a problem once (`dedupe`) and at most `cap` of a
problem (0: all); raise their log-likelihood by `epochs` passes of AdamW over minibatches of about `minibatch` of them,
the checkpoint chosen on selection; or, with mode "one_step", by one step along one full-batch gradient, transformed
into the wanted kind of `direction` and searched as one_shot's is.
Doesn't: draw again from the improved policy, as ReST-EM (2312.06585) and RAFT (2304.06767) do: one batch, one round.

The loss is minus the sum of a completion's token log-probabilities at the sampling temperature, averaged over what is
kept. Dividing by all tokens instead changes nothing but a constant, which AdamW ignores; dividing each completion by its
own length would favour short ones and be no likelihood. Without dedupe and cap the one step has, in expectation, the
direction of REINFORCE.

Departures from published settings, numbered:
1. Equal means equal text; RFT compares lists of equations.
2. Of more than `cap` the first are kept: draws are exchangeable, so this is a choice at random. ReST-EM's cap is 10.
3. The checkpoint is chosen on a selection split; papers train for a fixed number of epochs.
4. RFT and ReST-EM keep distinct solutions. Completions of the embedded model are so short that distinct ones are few.

Tried on the embedded model (code, N = 4,096, seed 0, 4 epochs; base .223, grpo .807 on test): the number of updates
matters most.

| kept           | minibatch | lr   | updates | pass@1 | greedy |
|----------------|-----------|------|---------|--------|--------|
| distinct, 4    | 64        | 3e-4 | 12      | .772   | .997   |
| distinct, 4    | 32        | 3e-4 | 24      | .884   | .983   |
| distinct, 4    | 32        | 1e-3 | 24      | .823   | .903   |
| all, 10        | 64        | 3e-4 | 48      | .919   | .980   |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.contracts import Check, Spending
from harness.errors import NoSignal
from harness.limits import at_least, one_of
from harness.objectives import PolicyGradient
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Contender, Outcome
from harness.weighing import WeighedBatch, minibatches
from harness_methods import iterating, offline, one_shot

MODES = ("epochs", "one_step")


class RejectionSft:
    """Options: what is kept (`dedupe`, `cap`), `mode`, and what each mode wants."""

    name, version = "rejection_sft", 1
    options: Mapping[str, Any] = {
        "mode": "epochs",
        "dedupe": False,
        "cap": 10,
        "minibatch": 64,
        "direction": "per_tensor",
        **offline.OPTIONS,
    }
    checks: Mapping[str, Check] = {
        "mode": one_of(MODES), "cap": at_least(0), "minibatch": at_least(1), **one_shot.CHECKS, **offline.CHECKS,
    }  # fmt: skip

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending() if options["mode"] == "one_step" else iterating.spends(options)

    def run(self, stages: Stages) -> Contender:
        weighed = verified(stages)
        if stages.options["mode"] == "one_step":
            search = stages.search(one_shot.followed(stages, weighed, stages.base))
            return Contender(policies=(search.winner.policy,))
        count = max(1, round(weighed.normaliser / int(stages.options["minibatch"])))
        return offline.train(stages, PolicyGradient(), lambda seed: minibatches(weighed, count, seed=seed))


def verified(stages: Stages) -> WeighedBatch:
    """The base batch with weight 1 on every completion that is kept. Raises NoSignal when none is."""
    batch = stages.base_batch()
    chosen = kept(batch, dedupe=bool(stages.options["dedupe"]), cap=int(stages.options["cap"]))
    weighed = stages.weigh(batch, scheme="reinforce", rewards=chosen)
    if not weighed.num_groups:
        raise NoSignal(f"none of {int(weighed.normaliser)} rollouts is correct: there is nothing to imitate")
    return replace(weighed, normaliser=sum(map(sum, chosen.values())))


def kept(batch: RolloutBatch, *, dedupe: bool, cap: int) -> dict[str, list[float]]:
    """By problem, 1 for the completions to imitate and 0 for the others."""
    correct: dict[str, list[bool]] = {name: [] for name in batch.problem_ids}
    for entry in batch.judged():
        correct[entry.problem_id].append(entry.verdict.outcome is Outcome.CORRECT)
    return {name: _kept(batch, name, right, dedupe=dedupe, cap=cap) for name, right in correct.items()}


def _kept(batch: RolloutBatch, name: str, right: list[bool], *, dedupe: bool, cap: int) -> list[float]:
    chosen, seen = [0.0] * len(right), set()
    for place, rollout in enumerate(batch.group(name) if any(right) else ()):
        if right[place] and not (dedupe and rollout.text in seen) and (not cap or sum(chosen) < cap):
            chosen[place] = 1.0
            seen.add(rollout.text)
    return chosen
