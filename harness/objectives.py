"""The losses that methods hand to an engine: likelihood, clipped policy gradient and values, entropy, preference.

Does: sum a loss over the rollouts of a microbatch; the engine divides once by the batch's normaliser, which for rollouts
is their number and for pairs the number of pairs.
Doesn't: sample, weigh, or hold parameters. Weights are advantages unless a method says otherwise.

`aggregation` says what a rollout's token losses are divided by. With N rollouts and l_i tokens in rollout i:

| aggregation    | divisor            | the batch's loss               | elsewhere                                      |
|----------------|--------------------|--------------------------------|------------------------------------------------|
| sequence_sum   | 1                  | mean over rollouts of the sum  | the policy gradient of the pass rate           |
| sequence_mean  | l_i                | mean of means                  | GRPO (2402.03300); TRL "grpo"                  |
| token_mean     | mean of l over N   | sum over all tokens / tokens   | DAPO (2503.14476); TRL "dapo", verl token-mean |
| constant       | `tokens`           | sum / (N x longest allowed)    | Dr. GRPO (2503.20783); TRL "dr_grpo"           |

Where it departs from its sources: ratios are to the sampler's own log-probabilities, so the first update of a batch has
ratio 1 up to rounding; token_mean divides by the tokens of the whole batch, not of a microbatch. The KL term is not multiplied
by the ratio, which TRL does unless use_bias_correction_kl is off (2512.02556). tests/test_trl_losses.py holds losses and
gradients equal to TRL's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.contracts import TokenBatch
from harness.errors import HarnessError, UnknownName

if TYPE_CHECKING:
    import torch

AGGREGATIONS = ("sequence_sum", "sequence_mean", "token_mean", "constant")


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """REINFORCE with the batch's weights: minus the sum of weight x sequence log-probability.

    With weights of 0 and 1 it is the negative log-likelihood of the chosen rollouts.
    """

    needs: frozenset[str] = frozenset()
    unit: str = "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        return -(batch.weights_B * (batch.logprobs_BT * batch.mask_BT).sum(1)).sum()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedPolicy:
    """PPO's clipped surrogate (1707.06347) as GRPO uses it, with KL to the base and an entropy bonus.

    Per token: -`policy` x min(ratio A, clip(ratio, 1 - low, 1 + high) A) + `kl` x k3 - `entropy` x H, where
    k3 = exp(log ref - log pi) - 1 - (log ref - log pi) and H is the entropy of the distribution at the sampling
    temperature. `tokens` is the divisor of "token_mean" (mean completion tokens of the batch) and "constant".
    """

    low: float = 0.2
    high: float = 0.2
    kl: float = 0.0
    entropy: float = 0.0
    policy: float = 1.0
    aggregation: str = "token_mean"
    tokens: float = 1.0

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise UnknownName("aggregation", self.aggregation, AGGREGATIONS)

    @property
    def needs(self) -> frozenset[str]:
        wanted = {"entropy": self.entropy, "ref_logprob": self.kl}
        return frozenset(name for name, coefficient in wanted.items() if coefficient)

    @property
    def unit(self) -> str:
        return "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        loss_BT = self.policy * self._surrogate(batch)
        if batch.ref_logprobs_BT is not None and self.kl:
            behind_BT = (batch.ref_logprobs_BT - batch.logprobs_BT) * batch.mask_BT  # padding could overflow
            loss_BT = loss_BT + self.kl * (behind_BT.exp() - 1 - behind_BT)
        if batch.entropy_BT is not None and self.entropy:
            loss_BT = loss_BT - self.entropy * batch.entropy_BT
        return aggregate(loss_BT, batch, self.aggregation, self.tokens)

    def _surrogate(self, batch: TokenBatch) -> torch.Tensor:
        ratio_BT = ((batch.logprobs_BT - batch.old_logprobs_BT) * batch.mask_BT).exp()
        weights_BT = batch.weights_B[:, None] if batch.credit is None else batch.credit.advantages_BT
        clipped_BT = ratio_BT.clamp(1 - self.low, 1 + self.high)
        return -(ratio_BT * weights_BT).minimum(clipped_BT * weights_BT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedActorCritic:
    """PPO's loss (1707.06347) with a value head: `actor` on the advantages of tokens, plus `value` x the value loss.

    Per token 1/2 (V - R)^2, or with `value_clip` above 0 the larger of that and 1/2 (V' - R)^2, where V' is V kept within
    `value_clip` of the value when the rollout was drawn. Both terms are aggregated alike.
    """

    actor: ClippedPolicy
    value: float = 0.5
    value_clip: float = 0.2

    @property
    def needs(self) -> frozenset[str]:
        return self.actor.needs | {"value"}

    @property
    def unit(self) -> str:
        return self.actor.unit

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        if batch.values_BT is None or batch.credit is None:
            raise HarnessError("no values in this batch: a value loss is for the steps of an actor-critic (ppo)")
        _, returns_BT, old_BT = batch.credit
        error_BT = (batch.values_BT - returns_BT).square()
        if self.value_clip:
            kept_BT = old_BT + (batch.values_BT - old_BT).clamp(-self.value_clip, self.value_clip)
            error_BT = error_BT.maximum((kept_BT - returns_BT).square())
        critic = aggregate(0.5 * error_BT, batch, self.actor.aggregation, self.actor.tokens)
        return self.actor.loss(batch) + self.value * critic


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntropy:
    """`sign` x weight x entropy of the next-token distribution at every completion token (2505.15134, EM-FT).

    Sign 1 minimises entropy, -1 maximises it. The gradient goes through the entropy, not through the sampling.
    """

    sign: float = 1.0
    aggregation: str = "token_mean"
    tokens: float = 1.0
    needs: frozenset[str] = frozenset({"entropy"})
    unit: str = "rollout"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.entropy_BT is not None
        loss_BT = self.sign * batch.weights_B[:, None] * batch.entropy_BT
        return aggregate(loss_BT, batch, self.aggregation, self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """DPO (2305.18290): -log sigmoid(beta x (chosen - rejected log-ratio to the base)) for every group, a pair.

    A group's rollout of positive weight is the chosen one, that of negative weight the rejected one.
    """

    beta: float = 0.1
    needs: frozenset[str] = frozenset({"ref_logprob"})
    unit: str = "group"

    def loss(self, batch: TokenBatch) -> torch.Tensor:
        assert batch.ref_logprobs_BT is not None
        if batch.group_B is None:
            raise HarnessError("this engine does not tell groups apart (TokenBatch.group_B): dpo needs it")
        ratio_B = ((batch.logprobs_BT - batch.ref_logprobs_BT) * batch.mask_BT).sum(1)
        margin_G = ratio_B.new_zeros(int(batch.group_B.max()) + 1)
        margin_G = margin_G.index_add(0, batch.group_B, batch.weights_B.sign() * ratio_B)
        zero_G = margin_G.new_zeros(margin_G.shape)
        return zero_G.logaddexp(-self.beta * margin_G).sum()  # -log sigmoid, without overflow


def aggregate(loss_BT: torch.Tensor, batch: TokenBatch, aggregation: str, tokens: float) -> torch.Tensor:
    """The sum over rollouts of their token losses, each rollout's divided as the table above says."""
    sums_B = (loss_BT * batch.mask_BT).sum(1)
    if aggregation == "sequence_mean":
        return (sums_B / batch.mask_BT.sum(1)).sum()
    return sums_B.sum() / (1.0 if aggregation == "sequence_sum" else tokens)
