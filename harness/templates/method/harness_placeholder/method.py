"""The method "placeholder": one step along the policy gradient, with advantages of your choice.

Does: spend the whole training budget on one batch of the base, weigh it, search the step.
Doesn't: touch files, use chance of its own, or keep anything between runs: stages do all three for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import advantages, directions, limits
from harness.contracts import Check
from harness.stages import Stages
from harness.types import Contender


class Placeholder:
    """`--set method.placeholder.scheme=...`: grpo, centered, rloo or positives_only (harness/advantages.py)."""

    name, version = "placeholder", 1
    options: Mapping[str, Any] = {"scheme": "rloo", "direction": "per_tensor"}
    checks: Mapping[str, Check] = {"scheme": limits.one_of(advantages.SCHEMES), "direction": directions.require_kind}

    def run(self, stages: Stages) -> Contender:
        weighed = stages.weigh(stages.base_batch(), scheme=str(stages.options["scheme"]))
        kind = str(stages.options["direction"])
        search = stages.search(stages.transform(stages.direct(weighed, stages.base, kind=kind), kind))
        return Contender(policies=(search.winner.policy,))
