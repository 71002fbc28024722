"""Steering: the mean hidden state of correct minus incorrect rollouts, added to the residual stream at a layer.

Does: sample the whole budget from the base (the batch of one_shot), take the difference of means at a few depths,
search the scale of each on the selection split, hand in the best.
Doesn't: change a weight: what is evaluated is the base with one vector added after one layer, from the position that
predicts the first completion token on (plugins/harness_engines/steering.py). It cannot be exported.

Sources: activation addition (Turner et al. 2308.10248), contrastive activation addition (Rimsky et al. 2312.06681,
code nrimsky/CAA), representation engineering (Zou et al. 2310.01405). Departures, numbered:
1. Contrasts are the model's own rollouts by verdict, within each problem. The sources contrast hand-made pairs: two
   prompts, or one question with both answer letters.
2. A rollout counts by the mean over its completion tokens; CAA reads the answer letter alone, the others prompts.
3. Rollouts weigh r - mean. Of a problem with pass rate p and G rollouts that is G p (1 - p) times mean of correct minus
   mean of incorrect ones: the textbook difference of means by problem, each problem by the precision of its own
   difference. Problems are not pooled before: easy ones hold more correct rollouts, and that would be read as well.
   Problems of equal weight give the same direction (cosine .99 and above on code and math of the embedded model).
4. Scales are solved for the KL targets of every line search, none negative, and race on the selection split; the sources
   sweep layers and multipliers by hand, often on what they report.
5. Each depth has an equal share of the selection budget. The winners of the depths met the same problems with the same
   draws, so the best of them is known without a further rollout. The zero step is among the candidates of each. The
   best of many scores on selection is inflated; only the test score of the winner is reported.

No preset was tuned: depths are the quarters, and positions are those of CAA (adding the vector to the whole prompt as
well made no difference on code).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check
from harness.limits import above, each
from harness.stages import Stages
from harness.types import Contender


class HiddenDirection:
    """`depths` are shares of the model's layers after which a vector is tried; equal layers are tried once."""

    name, version = "hidden_direction", 1
    needs = ("hidden",)
    options: Mapping[str, Any] = {"depths": [0.25, 0.5, 0.75]}
    checks: Mapping[str, Check] = {"depths": each(above(0, 1), least=1)}

    def run(self, stages: Stages) -> Contender:
        depths = [float(depth) for depth in stages.options["depths"]]
        weighed = stages.weigh(stages.base_batch(), scheme="centered")
        search = stages.search_each(stages.hidden(weighed, stages.base, depths=depths))
        return Contender(policies=(search.winner.policy,))
