"""PPO with a value head: credit of tokens, the loss, its gradients in both engines, and the whole method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tabular_kit import BASE, MODEL, ListBatch, checkpoint, draw, noise, problems, rewards_of
from tabular_run import execute, small_spec
from test_directions import ITEMS, weigh
from test_hf import BASE as RANDOM
from test_hf import PROMPTS, drawn, make_engine, plain_logprobs
from test_objectives import LENGTHS, batch
from transformers import AutoModelForCausalLM

from harness import crediting, directing, leaderboard, pipeline, plugins, seeds, store
from harness.contracts import Credit, Optimizer
from harness.crediting import Values
from harness.errors import HarnessError, UsageError
from harness.objectives import AGGREGATIONS, ClippedActorCritic, ClippedPolicy, PolicyGradient
from harness.pipeline import Finished
from harness.types import Policy, TokenCredit, WeightedGroup
from harness.weighing import WeighedBatch
from harness_engines import critic, sharing
from harness_engines.tabular import Tabular
from harness_engines.tabular_training import VALUES
from harness_methods.ppo import Ppo

ADAMW = Optimizer(lr=0.02, clip=None)


def written_out(values: npt.NDArray[Any], reward: float, lam: float) -> list[float]:
    """GAE as papers write it: sum over k of lam^k delta_(t+k), the reward in the last delta, no discount."""
    count = len(values)
    delta = [
        (reward if t == count - 1 else 0.0) + (values[t + 1] if t < count - 1 else 0.0) - values[t]
        for t in range(count)
    ]
    return [sum(lam**k * delta[t + k] for k in range(count - t)) for t in range(count)]


@given(
    st.lists(
        st.tuples(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=6), st.floats(-1, 1)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.0, 0.3, 0.95, 1.0]),
)
def test_gae_is_its_formula(rows: list[tuple[list[float], float]], lam: float) -> None:
    values, rewards = [np.array(own) for own, _ in rows], [reward for _, reward in rows]
    for found, own, reward in zip(crediting.gae(values, rewards, lam=lam), values, rewards, strict=True):
        assert found == pytest.approx(written_out(own, reward, lam), abs=1e-9)
        if lam == 1:
            assert found == pytest.approx(reward - own, abs=1e-9)


def valued(weighed: WeighedBatch) -> Values:
    read = [r for s in range(weighed.num_sub_batches) for group in weighed.read(s) for r in group.rollouts]
    rng = seeds.generator(2)
    own = {(r.problem_id, r.sample_idx): rng.normal(size=len(r.completion_tokens)).astype(np.float32) for r in read}
    return Values("digest", own)


def test_credits_are_whitened_over_the_tokens_of_the_whole_draw(tmp_path: Path) -> None:
    weighed = weigh(tmp_path, scheme="reinforce", whole=True)
    values = valued(weighed)
    raw, white = (crediting.credit(weighed, values, lam=0.5, whiten=whiten).credits for whiten in (False, True))
    assert raw is not None
    assert white is not None
    assert raw.key != white.key
    tokens = np.concatenate([credit.advantages_T for credit in white.of.values()])
    assert (tokens.mean(), tokens.std()) == pytest.approx((0, 1), abs=1e-6)
    before = np.concatenate([credit.advantages_T for credit in raw.of.values()])
    assert tokens == pytest.approx((before - before.mean()) / before.std(), abs=1e-5)
    for key, credit in raw.of.items():
        reward = weighed.rewards[key[0]][key[1]]
        assert credit.advantages_T == pytest.approx(written_out(values.of[key], float(reward or 0), 0.5), abs=1e-6)
        assert credit.returns_T == pytest.approx(credit.advantages_T + credit.values_T, abs=1e-6)
        assert (white.of[key].returns_T == credit.returns_T).all(), "whitening is the policy's matter"


def test_a_rollout_whose_verifier_failed_has_no_credit_and_is_not_read(tmp_path: Path) -> None:
    weighed = weigh(tmp_path, scheme="reinforce", whole=True)
    credited = crediting.credit(weighed, valued(weighed), lam=1.0, whiten=True)
    groups = {g.rollouts[0].problem_id: g for s in range(credited.num_sub_batches) for g in credited.read(s)}
    places = {name: [r.sample_idx for r in group.rollouts] for name, group in groups.items()}
    assert places == {
        p.id: own for p, own in zip(ITEMS, ([0, 1, 2, 3],) * 3 + ([0, 2, 3], [3], [0, 1, 2, 3]), strict=True)
    }
    for group in groups.values():
        assert group.credits is not None
        assert [len(c.returns_T) for c in group.credits] == [len(r.completion_tokens) for r in group.rollouts]
    assert credited.key != weighed.key


def test_a_draw_of_equal_rewards_is_not_read(tmp_path: Path) -> None:
    weighed = weigh(tmp_path, scheme="reinforce", whole=True)
    equal = replace(weighed, rewards={name: [1.0] * 4 for name in weighed.rewards})
    assert crediting.credit(equal, valued(weighed), lam=1.0, whiten=True).num_sub_batches == 0
    with pytest.raises(UsageError, match="between 0 and 1"):
        crediting.credit(weighed, valued(weighed), lam=1.5, whiten=True)


def test_values_come_back_from_their_file(tmp_path: Path) -> None:
    values = valued(weigh(tmp_path, scheme="reinforce", whole=True))
    digest = crediting.write(values.of, tmp_path / "v.safetensors")
    again = crediting.read(tmp_path / "v.safetensors", digest)
    assert digest == store.digest(tmp_path / "v.safetensors")
    assert again.of.keys() == values.of.keys()
    assert all((again.of[key] == own).all() for key, own in values.of.items())


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("clip", [0.0, 0.3])
def test_the_loss_is_its_formula(aggregation: str, clip: float) -> None:
    """One token at a time; values up to +-2 from the old ones, so that the clip binds on some and not on others."""
    values, advantages, returns, old = torch.from_numpy(seeds.generator(1).normal(size=(4, 4, 3)))
    seen = batch()._replace(values_BT=values.requires_grad_(), credit=Credit(advantages, returns, old))
    actor = ClippedPolicy(low=0.1, high=0.3, kl=0.2, aggregation=aggregation, tokens=2.5)
    goal = ClippedActorCritic(actor=actor, value=0.7, value_clip=clip)
    policy, critic_sums, bound = [], [], 0
    for row, length in enumerate(LENGTHS):
        own, errors = [], []
        for t in range(length):
            logprob, before, base = (
                float(a[row, t].detach()) for a in (seen.logprobs_BT, seen.old_logprobs_BT, seen.ref_logprobs_BT)
            )  # type: ignore[index]
            ratio, weight = np.exp(logprob - before), float(advantages[row, t])
            own.append(
                -min(ratio * weight, np.clip(ratio, 0.9, 1.3) * weight)
                + 0.2 * (np.exp(base - logprob) - 1 - base + logprob)
            )
            v, r, o = (float(a[row, t].detach()) for a in (values, returns, old))
            clipped = o + np.clip(v - o, -clip, clip)
            errors.append(0.5 * max((v - r) ** 2, (clipped - r) ** 2) if clip else 0.5 * (v - r) ** 2)
            bound += bool(clip) and (clipped - r) ** 2 > (v - r) ** 2
        policy.append(np.array(own))
        critic_sums.append(np.array(errors))
    whole = [p + 0.7 * c for p, c in zip(policy, critic_sums, strict=True)]
    expected = {
        "sequence_sum": sum(row.sum() for row in whole),
        "sequence_mean": sum(row.mean() for row in whole),
        "token_mean": sum(row.sum() for row in whole) / 2.5,
        "constant": sum(row.sum() for row in whole) / 2.5,
    }
    assert goal.loss(seen).item() == pytest.approx(expected[aggregation])
    assert 0 < bound < 9 or not clip
    assert goal.needs == {"value", "ref_logprob"}
    with pytest.raises(HarnessError, match="actor-critic"):
        goal.loss(batch())


def credited(groups: list[WeightedGroup], *, scale: float = 1.0) -> ListBatch:
    """Every group a sub-batch, with random credits."""
    made, rng = [], seeds.generator(3)
    for group in groups:
        credits = tuple(
            TokenCredit(*(scale * rng.normal(size=(3, len(r.completion_tokens)))).astype(np.float32))
            for r in group.rollouts
        )
        made.append([group._replace(credits=credits)])
    return ListBatch(made, normaliser=float(sum(len(g.rollouts) for g in groups)))


@pytest.fixture
def tabular(tmp_path: Path) -> Tabular:
    return Tabular(MODEL, tmp_path, {"shard_rollouts": 64})


def groups_of(engine: Tabular, levels: list[int], n: int = 6, run: int = 0) -> list[WeightedGroup]:
    """Weighed by their rewards."""
    items = problems(levels)
    return [
        WeightedGroup(tuple(rollouts), np.array(rewards_of(p, rollouts), dtype=float))
        for p, rollouts in zip(items, draw(engine, items, n, run=run), strict=True)
    ]


GOAL = ClippedActorCritic(actor=ClippedPolicy(aggregation="sequence_sum", kl=0.1), value=0.7, value_clip=0.3)


def test_gradients_of_policy_and_values_are_slopes_of_the_loss(tabular: Tabular) -> None:
    given_batch = credited(groups_of(tabular, [1, 2, 1]))
    heads = {name: torch.from_numpy(seeds.generator(4).normal(size=t.shape)) for name, t in head_of(tabular).items()}
    tables = {**{n: t + 0.1 * noise(tabular, 3)[n] for n, t in tabular.base.items()}, **heads}
    parts = [tabular.sub_batch(tables, given_batch, s, GOAL) for s in range(3)]
    for name, table in tables.items():
        for place in range(0, table.numel(), 7):
            ends = []
            for sign in (1, -1):
                moved = {key: t.clone() for key, t in tables.items()}
                moved[name].view(-1)[place] += sign * 1e-5
                ends.append(sum(tabular.sub_batch(moved, given_batch, s, GOAL).loss for s in range(3)))  # type: ignore[union-attr]
            found = sum(float(part.gradient[name].view(-1)[place]) for part in parts)  # type: ignore[union-attr]
            assert found == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6), (name, place)


def head_of(engine: Tabular) -> dict[str, torch.Tensor]:
    live = engine.actor_critic(BASE, ADAMW, critic_lr=0.1).tables
    return {name: live[name] for name in VALUES}


def test_with_lambda_one_and_a_frozen_zero_head_it_is_reinforce(tabular: Tabular) -> None:
    """Through credits, loss and three updates of both trainers."""
    frozen = ClippedActorCritic(actor=ClippedPolicy(aggregation="sequence_sum"), value=0.0)
    plain, live = tabular.trainer(BASE, ADAMW), tabular.actor_critic(BASE, ADAMW, critic_lr=0.1)
    for run in range(3):
        here = checkpoint(tabular, plain.tables, f"live-{run}", kind="checkpoint")
        policy = Policy(base="tabular", moves=(here,))
        groups = groups_of(tabular, [1, 2, 3], run=run)
        scored = [
            g._replace(rollouts=tuple(
                replace(r, logprobs=s.logprobs_T)
                for r, s in zip(g.rollouts, tabular.score(g.rollouts, policy, temperature=1.0), strict=True)
            ))
            for g in groups
        ]  # fmt: skip
        whole = ListBatch([scored], normaliser=18.0)
        values = live.values(whole)
        assert not any(own.any() for own in values.values())
        rewarded = []
        for g in scored:
            found = crediting.gae(
                [values[r.problem_id, r.sample_idx] for r in g.rollouts], g.weights_G.tolist(), lam=1.0
            )
            credits = tuple(
                TokenCredit(a.astype(np.float32), a.astype(np.float32), 0 * a.astype(np.float32)) for a in found
            )
            rewarded.append(g._replace(credits=credits))
        plain_step = plain.step(whole, PolicyGradient())
        step = live.step(ListBatch([rewarded], normaliser=18.0), frozen)
        assert step["grad_norm"] == pytest.approx(plain_step["grad_norm"], rel=1e-6)
    for name, table in plain.tables.items():
        torch.testing.assert_close(live.tables[name], table, rtol=0, atol=1e-6)
    assert not any(live.tables[name].any() for name in VALUES)


def test_the_head_learns_the_mean_reward_of_every_state(tabular: Tabular) -> None:
    """The least squares of returns 0 and 1 in a table: the share of correct ones among the completions that pass a state."""
    groups = [
        g._replace(credits=tuple(TokenCredit(np.zeros(3, np.float32), np.full(3, w, np.float32), np.zeros(3, np.float32))
                                 for w in g.weights_G))
        for g in groups_of(tabular, [1, 1, 2], n=40)
    ]  # fmt: skip
    whole = ListBatch([groups], normaliser=120.0)
    goal = ClippedActorCritic(actor=ClippedPolicy(policy=0.0, aggregation="sequence_sum"), value=1.0, value_clip=0.0)
    live = tabular.actor_critic(BASE, ADAMW, critic_lr=0.1)
    for _ in range(300):
        live.step(whole, goal)
    found, seen = live.values(whole), {}
    for level, group in zip((1, 1, 2), groups, strict=True):
        for rollout, reward in zip(group.rollouts, group.weights_G, strict=True):
            for t in range(3):  # the style is in the first token; the offset in the text's digit less the item
                state = (level, t, *rollout.completion_tokens[:1][:t], *([reward] if t == 2 else []))
                seen.setdefault(state, []).append((reward, found[rollout.problem_id, rollout.sample_idx][t]))
    for state, pairs in seen.items():
        rewards, values = np.array(pairs).T
        assert values.mean() == pytest.approx(rewards.mean(), abs=0.01), state
    assert all(torch.equal(live.tables[name], tabular.base[name]) for name in tabular.base), "the policy stands still"


def test_a_loaded_actor_critic_continues_as_if_uninterrupted(tabular: Tabular, tmp_path: Path) -> None:
    def trained(steps: range, state: Path | None = None) -> Any:
        live = tabular.actor_critic(BASE, ADAMW, critic_lr=0.05)
        if state is not None:
            live.load(state)
        for run in steps:
            live.step(fixed[run], GOAL)
        return live

    fixed = [credited(groups_of(tabular, [1, 2, 3], run=run)) for run in range(4)]
    straight, first = trained(range(4)), trained(range(2))
    first.save(tmp_path / "state")
    resumed = trained(range(2, 4), tmp_path / "state")
    assert all(torch.equal(straight.tables[name], t) for name, t in resumed.tables.items())
    assert any(straight.tables[name].any() for name in VALUES)
    assert all(
        (a == b).all()
        for a, b in zip(straight.values(fixed[0]).values(), resumed.values(fixed[0]).values(), strict=True)
    )
    straight.checkpoint(tmp_path / "policy")
    assert load_file(tmp_path / "policy").keys() == tabular.base.keys(), "what is sampled from has no head"


@pytest.mark.parametrize("as_trees", [True, False])
def test_the_transformers_head_is_that_of_a_plain_forward(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, as_trees: bool
) -> None:
    """Values, and the gradient of the whole loss by every weight and by the head, against autograd of transformers."""
    if not as_trees:
        monkeypatch.setattr(sharing, "shareable", lambda _: False)
    engine = make_engine(random_model, tmp_path, microbatch_tokens=256 if as_trees else 72)  # rows: groups are split
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    rollouts = drawn(engine, temperature=0.2 if as_trees else 1.0)
    groups = [WeightedGroup(tuple(r for r in rollouts if r.problem_id == p), np.zeros(4)) for p in PROMPTS]
    given_batch = replace(credited(groups, scale=0.5), temperature=0.2 if as_trees else 1.0)
    live = engine.actor_critic(RANDOM, ADAMW, critic_lr=0.1)
    head = torch.from_numpy(seeds.generator(5).normal(size=32)).float() / 8
    live.trained[critic.HEAD].data.copy_(head)
    found, own = live.values(given_batch), head.clone().requires_grad_()
    goal = replace(GOAL, actor=replace(GOAL.actor, kl=0.0))
    total = torch.zeros(())
    for group in (g for part in given_batch.sub_batches for g in part):
        for rollout, credit in zip(group.rollouts, group.credits or (), strict=True):
            tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))[None]
            hidden = plain.model(tokens).last_hidden_state[0, len(rollout.prompt_tokens) - 1 : -1]
            values_T = hidden @ own
            np.testing.assert_allclose(found[rollout.problem_id, rollout.sample_idx], values_T.detach(), atol=1e-5)
            advantages_T, returns_T, old_T = map(torch.from_numpy, credit)
            ratio_T = (
                plain_logprobs(plain, rollout, given_batch.temperature) - torch.from_numpy(rollout.logprobs)
            ).exp()
            total = total - (ratio_T * advantages_T).sum()
            kept_T = old_T + (values_T - old_T).clamp(-0.3, 0.3)
            total = total + 0.35 * torch.maximum((values_T - returns_T) ** 2, (kept_T - returns_T) ** 2).sum()
    total.backward()  # type: ignore[no-untyped-call]
    parts = [engine.local.gradient_at(live.live(), given_batch, s, goal) for s in range(4)]
    for name, parameter in [*plain.named_parameters(), (critic.HEAD, own)]:
        expected = parameter.grad.numpy()
        error = -sum(part.arrays[name].numpy() for part in parts) - expected
        assert np.linalg.norm(error) <= 1e-4 * np.linalg.norm(expected) + 1e-5, name


def test_the_transformers_actor_critic_saves_its_head_and_keeps_it_out_of_checkpoints(
    random_model: Path, tmp_path: Path
) -> None:
    engine = make_engine(random_model, tmp_path)
    rollouts = drawn(engine)
    groups = [WeightedGroup(tuple(r for r in rollouts if r.problem_id == p), np.zeros(4)) for p in PROMPTS]
    fixed = credited(groups)
    optimizer = Optimizer(lr=1e-3)
    straight, first, second = (engine.actor_critic(RANDOM, optimizer, critic_lr=0.01) for _ in range(3))
    straight.step(fixed, GOAL)
    straight.step(fixed, GOAL)
    first.step(fixed, GOAL)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    second.step(fixed, GOAL)
    assert all(torch.equal(second.trained[name], p) for name, p in straight.trained.items())
    assert float(straight.trained[critic.HEAD].detach().abs().max()) == pytest.approx(0.02, rel=0.2), (
        "two steps of its own rate"
    )
    straight.checkpoint(tmp_path / "policy")
    assert load_file(tmp_path / "policy").keys() == engine.local.model.base.keys()


def test_engines_without_a_value_head_are_refused_before_anything_is_drawn() -> None:
    class Plain:
        """Has no actor_critic."""

    engine: Any = Plain()
    with pytest.raises(UsageError, match='ppo needs an engine with "actor_critic", which Plain has not'):
        directing.require({"ppo": Ppo()}, engine)


SPEC = ("method.ppo.steps=8", "method.ppo.lr=0.1", "method.ppo.critic_lr=0.1", "evaluation.wide_methods=[]")


def run(tmp_path: Path, *sets: str, **changes: Any) -> tuple[Mapping[str, Any], Finished]:
    root, rows = execute(small_spec(*SPEC, *sets, methods=["ppo"], **changes), tmp_path)
    row = next(r for r in rows if r["method"] == "ppo" and r["seed"] == 0)
    return row, store.read_json(root / "methods/ppo/0/scores.json")


def test_it_learns_and_spends_the_budget(tmp_path: Path) -> None:
    """Two passes over two minibatches of each of eight draws."""
    row, finished = run(tmp_path, "method.ppo.gae_lambda=0.9")
    assert row["ci_low"] > 0
    assert (row["train_rollouts"], row["updates"], len(finished.trained)) == (256, 32, 32)
    assert np.mean([step.pass_rate for step in finished.trained[-8:]]) > finished.trained[0].pass_rate


def test_a_journal_with_draws_that_taught_nothing_replays(tmp_path: Path) -> None:
    """Between such draws there is no step, and yet each has values of its own."""
    sets = (*SPEC, "method.ppo.steps=16", "evaluation.problems=10")
    root, rows = execute(small_spec(*sets, methods=["ppo"], model="tabular:.05"), tmp_path)
    (root / "methods/ppo/0/scores.json").unlink()
    again = pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    before, after = (next(r for r in found if (r["method"], r["seed"]) == ("ppo", 0)) for found in (rows, again))
    assert 0 < before["updates"] < 64
    for column in set(leaderboard.COLUMNS) - set(leaderboard.UNCOMPARED):
        assert str(after[column]) == str(before[column]), column


def test_a_base_without_a_success_is_no_signal(tmp_path: Path) -> None:
    row, _ = run(tmp_path, model="tabular:.0000000001")
    assert row["status"].startswith("no signal: no group with both rewards in 8 draws")
    assert row["train_rollouts"] == 256
