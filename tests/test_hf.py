"""The hf engine on a random tiny transformer: sampling, scoring and gradients against plain transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from harness import seeds, store
from harness.contracts import Optimizer
from harness.errors import HarnessError, UsageError
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Finish, Move, Policy, Rollout, SampleRequest, Shard, WeightedGroup
from harness_engines.hf import HfEngine
from harness_engines.local import Local

OPTIONS = {
    "dtype": "float32",
    "device": "cpu",
    "workers": 1,
    "shard_rollouts": 16,
    "microbatch_tokens": 256,
    "trust_remote_code": False,
}
PROMPTS = ("2+2=", "Name a colour, please: ", "x", "def f(a):\n    ")
BASE = Policy(base="random")


def make_engine(model: Path, root: Path, **changes: object) -> HfEngine:
    return HfEngine(str(model), root, {**OPTIONS, **changes})


def request(prompt: str, count: int = 4, *, temperature: float = 1.0, max_tokens: int = 12) -> SampleRequest:
    idxs = tuple(range(count))
    return SampleRequest(
        problem_id=prompt,
        prompt=prompt,
        sample_idxs=idxs,
        seeds=tuple(seeds.seed_for(0, "test", prompt, i) for i in idxs),
        temperature=temperature,
        max_tokens=max_tokens,
    )


def shards(**changes: float) -> list[Shard]:
    requests = [request(prompt, **changes) for prompt in PROMPTS]  # type: ignore[arg-type]
    return [tuple(requests[:3]), tuple(requests[3:])]


def drawn(engine: HfEngine, **changes: float) -> list[Rollout]:
    return [rollout for shard in engine.sample(shards(**changes), BASE) for rollout in shard]


def batch_of(rollouts: list[Rollout], *, sub_batches: int = 2) -> FixedBatch:
    groups = []
    for prompt in PROMPTS:
        own = tuple(r for r in rollouts if r.problem_id == prompt)
        weights = seeds.generator(seeds.seed_for(1, "weights", prompt)).normal(size=len(own))
        groups.append(WeightedGroup(own, weights))
    return FixedBatch(tuple(tuple(groups[i::sub_batches]) for i in range(sub_batches)), float(len(rollouts)))


def test_a_policy_that_was_scored_has_a_gradient(random_model: Path, tmp_path: Path) -> None:
    """Scoring forms it without what a backward needs, if nobody sees to it."""
    engine, fresh = (make_engine(random_model, tmp_path) for _ in range(2))
    away = Policy(base="random", moves=(Move(kind="noise", path="", digest="ab", step=0.1),))
    rollouts = drawn(engine)
    engine.score(rollouts, away, temperature=1.0)
    for name, one in (("scored", engine), ("fresh", fresh)):
        one.gradient(batch_of(rollouts), away, PolicyGradient(), out=Path(f"{name}.safetensors"))
    assert (tmp_path / "scored.safetensors").read_bytes() == (tmp_path / "fresh.safetensors").read_bytes()


def plain_logprobs(model: torch.nn.Module, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities by one unpadded, uncached forward of the whole sequence."""
    tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))
    logits = model(tokens[None]).logits[0]
    start = len(rollout.prompt_tokens) - 1
    logprobs = torch.log_softmax(logits[start:-1].float() / temperature, -1)
    return logprobs.gather(1, tokens[start + 1 :, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_trainer_and_plain_forward_agree(random_model: Path, tmp_path: Path, temperature: float) -> None:
    engine = make_engine(random_model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    rollouts = drawn(engine, temperature=temperature)
    scores = engine.score(rollouts, BASE, temperature=temperature)
    for rollout, score in zip(rollouts, scores, strict=True):
        with torch.no_grad():
            expected = plain_logprobs(plain, rollout, temperature).numpy()
        np.testing.assert_allclose(rollout.logprobs, expected, atol=1e-4)
        np.testing.assert_allclose(score.logprobs_T, expected, atol=1e-4)


def test_finish_tells_truncated_from_ended(random_model: Path, tmp_path: Path) -> None:
    rollouts = drawn(make_engine(random_model, tmp_path), count=64, max_tokens=40)
    assert {r.finish for r in rollouts} == {Finish.STOP, Finish.LENGTH}
    for r in rollouts:
        assert (r.completion_tokens[-1] == 0) == (r.finish is Finish.STOP)
        assert 0 not in r.completion_tokens[:-1]
        assert len(r.completion_tokens) == 40 or r.finish is Finish.STOP


def test_greedy_equals_transformers_generate(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    for rollout in drawn(engine, temperature=0.0, count=1):
        prompt = torch.tensor(rollout.prompt_tokens.astype(int))[None]
        out = plain.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False)
        assert out[0, prompt.shape[1] :].tolist() == rollout.completion_tokens.tolist()


def test_first_token_frequencies_match_probabilities(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    count = 4000
    (rollouts,) = engine.sample([(request("x", count, max_tokens=1),)], BASE)
    with torch.no_grad():
        prompt = torch.tensor(rollouts[0].prompt_tokens.astype(int))[None]
        expected_V = torch.softmax(plain(prompt).logits[0, -1], -1).numpy()
    observed_V = np.bincount([int(r.completion_tokens[0]) for r in rollouts], minlength=len(expected_V)) / count
    z_V = (observed_V - expected_V) / np.sqrt(expected_V * (1 - expected_V) / count)
    assert np.abs(z_V[expected_V * count > 20]).max() < 4.5


def test_a_rollout_depends_on_its_seed_not_on_other_shards(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    first, second = shards()
    together = list(engine.sample([first, second], BASE))
    (alone,) = engine.sample([second], BASE)
    assert [r.completion_tokens.tolist() for r in alone] == [r.completion_tokens.tolist() for r in together[1]]
    assert len({tuple(r.completion_tokens.tolist()) for r in together[0]}) > len(first)


def test_workers_give_bitwise_equal_rollouts_scores_and_gradients(random_model: Path, tmp_path: Path) -> None:
    one, two = make_engine(random_model, tmp_path), make_engine(random_model, tmp_path, workers=2)
    try:
        ours, theirs = drawn(one), drawn(two)
        for a, b in zip(ours, theirs, strict=True):
            assert a.completion_tokens.tolist() == b.completion_tokens.tolist()
            assert a.logprobs.tobytes() == b.logprobs.tobytes()
        batch = batch_of(ours)
        first = one.gradient(batch, BASE, PolicyGradient(), out=Path("one.safetensors"))
        second = two.gradient(batch, BASE, PolicyGradient(), out=Path("two.safetensors"))
        third = two.moments(batch, BASE, PolicyGradient(), out=Path("three.safetensors"), rms=Path("two.rms"))
        assert first.digest == second.digest == third.digest
        one.moments(batch, BASE, PolicyGradient(), out=Path("three.safetensors"), rms=Path("one.rms"))
        assert store.digest(tmp_path / "one.rms") == store.digest(tmp_path / "two.rms")
    finally:
        one.close()
        two.close()


def test_a_worker_error_reaches_the_parent(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path, workers=2)
    try:
        missing = Policy(base="random", moves=(Move(kind="direction", path="nowhere", digest="0"),))
        with pytest.raises(HarnessError, match="nowhere"):
            list(engine.sample(shards(), missing))
        assert len(drawn(engine)) == 16
    finally:
        engine.close()


@pytest.mark.parametrize("microbatch", [1, 24, 100_000])
def test_microbatch_size_does_not_change_the_gradient(random_model: Path, tmp_path: Path, microbatch: int) -> None:
    reference = make_engine(random_model, tmp_path)
    batch = batch_of(drawn(reference))
    reference.gradient(batch, BASE, PolicyGradient(), out=Path("reference.safetensors"))
    other = make_engine(random_model, tmp_path, microbatch_tokens=microbatch)
    other.gradient(batch, BASE, PolicyGradient(), out=Path("other.safetensors"))
    expected, found = load_file(tmp_path / "reference.safetensors"), load_file(tmp_path / "other.safetensors")
    assert sum(float((found[n] - expected[n]).norm() ** 2) for n in expected) ** 0.5 < 1e-5 * sum(
        float(t.norm() ** 2) for t in expected.values()
    ) ** 0.5  # fmt: skip


def test_gradient_equals_plain_autograd_and_counts_once(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    batch = batch_of(drawn(engine))
    direction = engine.gradient(batch, BASE, PolicyGradient(), out=Path("g.safetensors"))
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    total = torch.zeros(())
    for group in (g for sub in batch.groups for g in sub):
        for rollout, weight in zip(group.rollouts, group.weights_G, strict=True):
            total = total + weight * plain_logprobs(plain, rollout).sum()
    (total / batch.normaliser).backward()
    found = load_file(tmp_path / "g.safetensors")
    expected = {name: p.grad for name, p in plain.named_parameters()}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5)
    assert direction.norm == pytest.approx(sum(float(t.norm() ** 2) for t in expected.values()) ** 0.5, rel=1e-4)
    assert direction.groups_used == 4
    assert direction.logprob_gap is not None
    assert direction.logprob_gap < 1e-4


def test_gradient_against_finite_differences_in_float64(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path, dtype="float64")
    batch, objective = batch_of(drawn(engine), sub_batches=1), PolicyGradient()
    direction = engine.gradient(batch, BASE, objective, out=Path("g.safetensors"))
    raw = load_file(tmp_path / "g.safetensors")
    local = engine.local
    unit = {name: seeds.generator(seeds.seed_for(3, name)).normal(size=t.shape) for name, t in raw.items()}
    slope = sum(float((raw[n].double() * torch.from_numpy(u)).sum()) for n, u in unit.items())

    def value(step: float) -> float:
        moved = {n: t + step * torch.from_numpy(unit[n]) for n, t in local.model.base.items()}
        return -_loss(local, moved, batch) / batch.normaliser

    difference = (value(1e-5) - value(-1e-5)) / 2e-5
    assert slope == pytest.approx(difference, rel=1e-5)
    assert direction.sub_batches == 1
    assert direction.snr is None


def _loss(local: Local, weights: dict[str, torch.Tensor], batch: FixedBatch) -> float:
    return local.gradient_at(weights, batch, 0, PolicyGradient()).loss


def test_kl_and_entropy_equal_sums_over_the_vocabulary(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    rollouts = drawn(engine, temperature=0.8)
    policy = _stepped(engine, tmp_path, step=0.05)
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    moved = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            parameter += 0.05 * load_file(tmp_path / "d.safetensors")[name]
    for rollout, score in zip(rollouts, engine.score(rollouts, BASE, temperature=0.8, kl_to=policy), strict=True):
        tokens = torch.tensor(np.concatenate([rollout.prompt_tokens, rollout.completion_tokens]).astype(int))
        start = len(rollout.prompt_tokens) - 1
        with torch.no_grad():
            p_TV = torch.log_softmax(plain(tokens[None]).logits[0, start:-1] / 0.8, -1)
            q_TV = torch.log_softmax(moved(tokens[None]).logits[0, start:-1] / 0.8, -1)
        np.testing.assert_allclose(score.kl_T, (p_TV.exp() * (p_TV - q_TV)).sum(-1).numpy(), atol=1e-5)
        np.testing.assert_allclose(score.entropy_T, -(p_TV.exp() * p_TV).sum(-1).numpy(), atol=1e-5)


def _stepped(engine: HfEngine, root: Path, *, step: float) -> Policy:
    noise = {
        name: torch.from_numpy(seeds.generator(seeds.seed_for(5, name)).normal(size=t.shape)).float()
        for name, t in engine.local.model.base.items()
    }
    save_file(noise, root / "d.safetensors")
    return Policy(base="random", moves=(Move(kind="direction", path="d.safetensors", digest="d", step=step),))


def test_base_weights_are_untouched_and_displacement_is_measured(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    before = {name: t.clone() for name, t in engine.local.model.base.items()}
    policy = _stepped(engine, tmp_path, step=0.05)
    list(engine.sample(shards(), policy))
    moved = engine.displacement(policy)
    noise = load_file(tmp_path / "d.safetensors")
    assert moved.norm == pytest.approx(0.05 * sum(float(t.norm() ** 2) for t in noise.values()) ** 0.5, rel=1e-3)
    assert moved.changed > 0.99
    assert engine.displacement(BASE) == (0.0, 0.0, 0.0)
    assert all(torch.equal(before[name], p.data) for name, p in engine.local.model.parameters.items())


def test_materialised_policy_loads_like_any_model(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    policy = _stepped(engine, tmp_path, step=0.05)
    engine.materialise(policy, tmp_path / "export")
    again = make_engine(tmp_path / "export", tmp_path)
    ours = [r for shard in engine.sample(shards(), policy) for r in shard]
    assert [r.text for r in ours] == [r.text for r in drawn(again)]


def test_trainer_steps_equal_torch_adamw_and_survive_save_and_load(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path)
    batch, optimizer = batch_of(drawn(engine)), Optimizer(lr=1e-3, clip=0.5)
    straight = engine.trainer(BASE, optimizer)
    for _ in range(3):
        straight.step(batch, PolicyGradient())
    straight.checkpoint(tmp_path / "straight.safetensors")
    first = engine.trainer(BASE, optimizer)
    first.step(batch, PolicyGradient())
    first.save(tmp_path / "state.safetensors")
    second = engine.trainer(BASE, optimizer)
    second.load(tmp_path / "state.safetensors")
    for _ in range(2):
        second.step(batch, PolicyGradient())
    second.checkpoint(tmp_path / "resumed.safetensors")
    assert store.digest(tmp_path / "straight.safetensors") == store.digest(tmp_path / "resumed.safetensors")
    plain = AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()
    reference = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(3):
        reference.zero_grad()
        total = torch.zeros(())
        for group in (g for sub in batch.groups for g in sub):
            for rollout, weight in zip(group.rollouts, group.weights_G, strict=True):
                total = total - weight * plain_logprobs(plain, rollout).sum()
        (total / batch.normaliser).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        reference.step()
    found = load_file(tmp_path / "straight.safetensors")
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(found[name], parameter.data, rtol=0, atol=2e-4)


def test_bf16_gradients_are_accumulated_in_fp32(random_model: Path, tmp_path: Path) -> None:
    engine = make_engine(random_model, tmp_path, dtype="bfloat16")
    rollouts = drawn(engine)
    engine.gradient(batch_of(rollouts), BASE, PolicyGradient(), out=Path("g.safetensors"))
    assert {t.dtype for t in load_file(tmp_path / "g.safetensors").values()} == {torch.float32}


def test_a_path_that_is_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="cannot load model"):
        make_engine(tmp_path / "empty", tmp_path)
