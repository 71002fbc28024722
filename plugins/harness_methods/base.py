"""The base policy as it is, and at its best sampling temperature.

Does: hand in the base; choose a temperature on the selection split.
Doesn't: spend training rollouts. `base_tempered` shows how much of a gain is mere sharpening.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.limits import each, within
from harness.stages import Stages
from harness.types import Contender


class Base:
    """The zero step."""

    name, version = "base", 1
    options: Mapping[str, Any] = {}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(train=0, selection=0, passes=0)

    def run(self, stages: Stages) -> Contender:
        return Contender(policies=(stages.base,))


class BaseTempered:
    """The base at the temperature that scores best on selection; `temperatures` are tried beside the run's own."""

    name, version = "base_tempered", 1
    options: Mapping[str, Any] = {"temperatures": [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]}
    checks: Mapping[str, Check] = {"temperatures": each(within(0, 100))}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(train=0, passes=0)

    def run(self, stages: Stages) -> Contender:
        others = [float(t) for t in stages.options["temperatures"] if float(t) != stages.temperature]
        temperatures = [stages.temperature, *sorted(others, reverse=True)]
        contenders = [Contender(policies=(stages.base,), temperature=t) for t in temperatures]
        return contenders[stages.select(contenders).chosen]
