"""The losses against their formulas, written out in numpy for one token at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.contracts import TokenBatch
from harness.errors import HarnessError, UnknownName
from harness.objectives import AGGREGATIONS, ClippedPolicy, PolicyGradient, Preference, TokenEntropy

LENGTHS = (3, 1, 2, 3)
WEIGHTS = (1.5, -0.5, 0.0, -1.0)


def batch(*, padding: float = 0.0) -> TokenBatch:
    """Four rollouts, two groups; log-ratios up to +-.6, so that both clips bind somewhere."""
    generator = np.random.default_rng(0)
    own, old, ref = (-generator.uniform(0.5, 2.0, (4, 3)) for _ in range(3))
    old = own + generator.uniform(-0.6, 0.6, own.shape)
    mask = np.arange(3) < np.array(LENGTHS)[:, None]
    arrays = [torch.tensor(np.where(mask, a, padding)) for a in (own, old, ref, generator.uniform(0, 2, (4, 3)))]
    return TokenBatch(
        logprobs_BT=arrays[0].requires_grad_(),
        mask_BT=torch.tensor(mask),
        weights_B=torch.tensor(WEIGHTS, dtype=torch.float64),
        entropy_BT=arrays[3],
        old_logprobs_BT=arrays[1],
        ref_logprobs_BT=arrays[2],
        group_B=torch.tensor([0, 0, 1, 1]),
    )


def token_losses(seen: TokenBatch, goal: ClippedPolicy) -> list[list[float]]:
    losses = []
    for row, length in enumerate(LENGTHS):
        losses.append([])
        for t in range(length):
            own, old, ref = (
                float(a[row, t].detach()) for a in (seen.logprobs_BT, seen.old_logprobs_BT, seen.ref_logprobs_BT)
            )  # type: ignore[index]
            ratio, weight = math.exp(own - old), WEIGHTS[row]
            clipped = min(max(ratio, 1 - goal.low), 1 + goal.high)
            k3 = math.exp(ref - own) - 1 - (ref - own)
            entropy = float(seen.entropy_BT[row, t])  # type: ignore[index]
            surrogate = min(ratio * weight, clipped * weight)
            losses[-1].append(-goal.policy * surrogate + goal.kl * k3 - goal.entropy * entropy)
    return losses


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("extras", [{}, {"kl": 0.3, "entropy": 0.2}, {"policy": 0.0, "entropy": 1.0}])
def test_clipped_policy_is_its_formula(aggregation: str, extras: dict[str, float]) -> None:
    goal = ClippedPolicy(low=0.1, high=0.3, aggregation=aggregation, tokens=2.5, **extras)
    seen = batch()
    losses = token_losses(seen, goal)
    expected = {
        "sequence_sum": sum(map(sum, losses)),
        "sequence_mean": sum(sum(row) / len(row) for row in losses),
        "token_mean": sum(map(sum, losses)) / 2.5,
        "constant": sum(map(sum, losses)) / 2.5,
    }
    assert goal.loss(seen).item() == pytest.approx(expected[aggregation])


def test_needs_follow_the_coefficients() -> None:
    assert ClippedPolicy().needs == frozenset()
    assert ClippedPolicy(kl=0.1).needs == {"ref_logprob"}
    assert ClippedPolicy(entropy=-0.1).needs == {"entropy"}
    with pytest.raises(UnknownName, match="token_mean"):
        ClippedPolicy(aggregation="token_men")


@pytest.mark.parametrize(
    "goal",
    [ClippedPolicy(kl=0.3, entropy=0.2), PolicyGradient(), TokenEntropy(), Preference()],
    ids=lambda goal: type(goal).__name__,
)
def test_padding_changes_neither_loss_nor_gradient(goal: ClippedPolicy) -> None:
    """Also where padding holds what an exponential would overflow on."""
    found = []
    for padding in (0.0, -1e4, 1e4):
        seen = batch(padding=padding)
        loss = goal.loss(seen)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
            assert torch.isfinite(seen.logprobs_BT.grad).all()  # type: ignore[arg-type]
        found.append(loss.item())
    assert found[1:] == pytest.approx([found[0]] * 2)


def test_at_ratio_one_every_aggregation_has_the_policy_gradient() -> None:
    """Clipping is inert at the sampler's own policy: only the divisor is left of PPO."""
    seen = batch()
    same = seen._replace(old_logprobs_BT=seen.logprobs_BT.detach())
    (plain,) = torch.autograd.grad(PolicyGradient().loss(same), [seen.logprobs_BT])
    for aggregation, divisor in [("sequence_sum", 1.0), ("token_mean", 2.25), ("constant", 2.25)]:
        goal = ClippedPolicy(aggregation=aggregation, tokens=2.25)
        (found,) = torch.autograd.grad(goal.loss(same), [seen.logprobs_BT])
        torch.testing.assert_close(found * divisor, plain)


def test_kl_penalty_is_zero_at_the_base_and_never_negative() -> None:
    seen, goal = batch(), ClippedPolicy(policy=0.0, kl=1.0, aggregation="sequence_sum")
    at_base = seen._replace(ref_logprobs_BT=seen.logprobs_BT.detach())
    loss = goal.loss(at_base)
    (slope,) = torch.autograd.grad(loss, [seen.logprobs_BT])
    assert float(loss) == 0.0
    assert not slope.any()
    assert float(goal.loss(seen)) > 0


def test_preference_is_the_sigmoid_loss_of_each_pair() -> None:
    pairs = batch()._replace(weights_B=torch.tensor([1.0, -1.0, -1.0, 1.0]))
    behind = (pairs.logprobs_BT - pairs.ref_logprobs_BT) * pairs.mask_BT  # type: ignore[operator]
    ratio = behind.sum(1).tolist()
    expected = sum(
        -math.log(1 / (1 + math.exp(-0.5 * (chosen - rejected))))
        for chosen, rejected in [(ratio[0], ratio[1]), (ratio[3], ratio[2])]
    )
    assert float(Preference(beta=0.5).loss(pairs)) == pytest.approx(expected)
    with pytest.raises(HarnessError, match="group_B"):
        Preference().loss(pairs._replace(group_B=None))


def test_preference_survives_hopeless_pairs() -> None:
    pairs = batch()._replace(weights_B=torch.tensor([1.0, -1.0, -1.0, 1.0]))
    assert math.isfinite(float(Preference(beta=1e6).loss(pairs)))


def test_entropy_is_summed_over_tokens_and_signed() -> None:
    seen = batch()._replace(weights_B=torch.ones(4, dtype=torch.float64))
    total = float((seen.entropy_BT * seen.mask_BT).sum())  # type: ignore[operator]
    assert float(TokenEntropy(tokens=2.0).loss(seen)) == pytest.approx(total / 2)
    assert float(TokenEntropy(sign=-1.0, tokens=2.0).loss(seen)) == pytest.approx(-total / 2)
