"""RL with verifiable reward on one training example, or few (Wang et al. 2504.20571): a baseline.

Does: choose the examples (picking.py); spend what is left of the budget on them in `steps` equal draws; update by the
loss of grpo.py, whose coefficients `policy`, `kl`, `entropy` and `weight_decay` are the paper's ablation; choose
among the base and the kept policies on the selection split.
Doesn't: look at any other training problem, except in the probe that chooses.

`label` puts another answer in the place of the gold one ("common_wrong": the probe's most frequent wrong one, or a text
that is compared with the canonical answer), `reward = "format"` pays for the demanded format alone. The learning
curve (types.TrainStep) is of the verdicts throughout.

Departures from the paper, numbered:
1. All completions that a draw has of an example are one group. The paper's draw is 128 copies of the example, each a
   group of 8: `group = 8`.
2. `steps`, rate and loss suit the embedded model (docs/methods-single-example.md); the paper's are in benchmarks/.
3. The released code takes one update from each draw, as here; the paper's text says eight.
4. The checkpoint is chosen on a selection split, the paper's on the test sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.errors import UsageError
from harness.limits import at_least, each, one_of, within
from harness.sampling import Judged, RolloutBatch
from harness.stages import Stages
from harness.types import Contender, Outcome
from harness.weighing import Rewards
from harness_methods import grpo, iterating, picking

REWARDS = ("verdict", "format")


def comparable(group: int, name: str) -> None:
    """Raises UsageError for groups in which nothing is compared."""
    if group < 0 or group == 1:
        raise UsageError(f"{name} must be 0 (all completions of an example) or at least 2, got {group}")


class SingleExample:
    """Options: docs/methods-single-example.md."""

    name, version = "single_example", 1
    options: Mapping[str, Any] = {
        "steps": 32,
        "examples": 1,
        "pick": "pass_rate",
        "rate": 0.5,
        "history": "",
        "problem": [],
        "prompt": "",
        "label": picking.GOLD,
        "reward": "verdict",
        "scheme": "grpo",
        "group": 0,
        **grpo.LOSS,
        **iterating.OPTIONS,
    }
    checks: Mapping[str, Check] = {
        "steps": at_least(1),
        "examples": at_least(1),
        "pick": one_of(picking.PICKS),
        "rate": within(0, 1),
        "problem": each(picking.require_id),
        "reward": one_of(REWARDS),
        "scheme": grpo.SCHEME,
        "group": comparable,
        **grpo.CHECKS,
        **iterating.CHECKS,
    }

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(passes=int(options["epochs"]), optimizer=True)

    def run(self, stages: Stages) -> Contender:
        options = stages.options
        if options["reward"] == "format" and options["label"] != picking.GOLD:
            raise UsageError('reward = "format" looks at no label: leave label at "gold"')
        problems, labels = picking.pick(stages)
        draws = iterating.shares(stages, len(problems), steps=int(options["steps"]))
        live = iterating.trainer(stages)

        def learn(number: int) -> None:
            batch = stages.sample(problems, live.policy, samples=draws[number], iteration=number + 1)  # 0: the probe
            weighed = stages.weigh(
                batch,
                scheme=str(options["scheme"]),
                rewards=rewards_of(batch, str(options["reward"]), labels),
                whole=grpo.looks_at_all(options),
                group=int(options["group"]),
            )
            grpo.update(stages, live, weighed, number=number)

        return iterating.iterate(stages, live, len(draws), learn)


def rewards_of(batch: RolloutBatch, reward: str, labels: Mapping[str, str]) -> Rewards | None:
    """By problem, None for a verifier error; None altogether where the verdicts are the rewards."""
    if reward == "verdict" and not labels:
        return None
    found: dict[str, list[float | None]] = {name: [] for name in batch.problem_ids}
    for entry in batch.judged():
        earned = entry.verdict.format_ok if reward == "format" else _says(entry, labels)
        found[entry.problem_id].append(None if entry.verdict.outcome is Outcome.ERROR else float(earned))
    return found


def _says(entry: Judged, labels: Mapping[str, str]) -> bool:
    return entry.verdict.extracted == labels[entry.problem_id]
