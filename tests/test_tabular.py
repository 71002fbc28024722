"""The tabular engine and its domain against enumeration: sampling, scores, policies, problems."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tabular_kit import BASE, MODEL, chances, checkpoint, completions, draw, flat, noise, problems

from harness.errors import UnknownName, UsageError
from harness.types import Finish, Outcome, Policy, Problem
from harness_engines import tabular, tabular_policy
from harness_engines.tabular_domain import ANSWERS, Task, prompt_of, task_of
from harness_engines.tabular_domain import Tabular as Domain


@pytest.fixture
def engine(tmp_path: Path) -> tabular.Tabular:
    return tabular.Tabular(MODEL, tmp_path, {"shard_rollouts": 64})


def test_pass_rates_are_exactly_those_of_the_model_name(engine: tabular.Tabular) -> None:
    for level, rate in enumerate((0.5, 0.2, 0.05), start=1):
        assert tabular_policy.pass_rate(engine.base, level) == pytest.approx(rate, abs=1e-14)
        judged = [r.text == f"A{p.answer}" for p in problems([level]) for r in completions(p)]
        assert chances(engine, level)[judged].sum() == pytest.approx(rate, abs=1e-14)
        free = tabular_policy.pass_rate(engine.base, level, strict=False)
        assert free == pytest.approx(chances(engine, level)[::ANSWERS].sum())
    assert tabular_policy.pass_rate(engine.base, 5) == tabular_policy.pass_rate(engine.base, 3)
    assert all(float(t.norm()) > 0 for t in engine.base.values())


def test_modal_completion_is_wrong_at_low_pass_rates(tmp_path: Path) -> None:
    engine, items = tabular.Tabular("tabular:.17,.15,.1", tmp_path, {}), problems([1, 2, 3])
    greedy = [group[0].text for group in draw(engine, items, 1, temperature=0.0)]
    assert greedy == [f"A{items[0].answer}", f"B{items[1].answer}", f"B{(items[2].answer + 1) % ANSWERS}"]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_frequencies_follow_enumeration(engine: tabular.Tabular, temperature: float) -> None:
    (problem,) = problems([2])
    (rollouts,) = draw(engine, [problem], 6000, temperature=temperature)
    names = [r.text for r in completions(problem)]
    counts = np.bincount([names.index(r.text) for r in rollouts], minlength=len(names))
    expected = 6000 * chances(engine, 2, temperature)
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi2 - 23) < 4 * math.sqrt(2 * 23)
    logprobs = np.log(chances(engine, 2, temperature))
    for rollout in rollouts[:50]:
        assert rollout.logprobs.sum() == pytest.approx(logprobs[names.index(rollout.text)], abs=1e-5)


def test_a_rollout_depends_on_its_seed_alone(engine: tabular.Tabular) -> None:
    items = problems([1, 2, 3])
    together, alone = draw(engine, items, 8), [draw(engine, [p], 8)[0] for p in items]
    assert [[r.text for r in g] for g in together] == [[r.text for r in g] for g in alone]
    assert [r.text for g in together for r in g] != [r.text for g in draw(engine, items, 8, run=1) for r in g]


def test_completions_cut_short_are_truncated_and_scored(engine: tabular.Tabular) -> None:
    (problem,) = problems([1])
    for tokens, finish in ((1, Finish.LENGTH), (2, Finish.LENGTH), (3, Finish.STOP)):
        (rollouts,) = draw(engine, [problem], 4, tokens=tokens)
        for rollout, score in zip(rollouts, engine.score(rollouts, BASE, temperature=1.0), strict=True):
            assert rollout.finish is finish
            assert (len(rollout.text), len(rollout.completion_tokens)) == (min(tokens, 2), tokens)
            assert score.logprobs_T == pytest.approx(rollout.logprobs, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_average_to_the_enumerated_entropy_and_kl(engine: tabular.Tabular, temperature: float) -> None:
    other = Policy(base="tabular", moves=(checkpoint(engine, noise(engine, 1), "noise", kind="direction"),))
    tables = engine.tables(other)
    for level in (1, 2, 3):
        every, chance = completions(problems([level])[0]), chances(engine, level, temperature)
        scores = engine.score(every, BASE, temperature=temperature, kl_to=other)
        theirs = engine.score(every, other, temperature=temperature)
        logs, other_logs = (np.array([s.logprobs_T.sum() for s in found]) for found in (scores, theirs))
        assert np.exp(logs) == pytest.approx(chance, rel=1e-5)
        kl = tabular_policy.exact_kl(engine.base, tables, [level], temperature=temperature)
        entropy = tabular_policy.exact_entropy(engine.base, [level], temperature=temperature)
        assert 3 * kl == pytest.approx(chance @ (logs - other_logs), rel=1e-4)
        assert 3 * entropy == pytest.approx(-chance @ np.log(chance), rel=1e-12)
        assert 3 * kl == pytest.approx(sum(c * s.kl_T.sum() for c, s in zip(chance, scores, strict=True)), rel=1e-5)
        assert 3 * entropy == pytest.approx(
            sum(c * s.entropy_T.sum() for c, s in zip(chance, scores, strict=True)), rel=1e-5
        )


def test_moves_add_and_replace_and_are_measured(engine: tabular.Tabular, tmp_path: Path) -> None:
    step, fresh = noise(engine, 1), noise(engine, 2)
    added = checkpoint(engine, step, "step", kind="direction", step=0.25)
    replaced = checkpoint(engine, fresh, "fresh", kind="checkpoint")
    policy = Policy(base="tabular", moves=(replaced, added))
    expected = flat(fresh) + 0.25 * flat(step)
    assert flat(engine.tables(policy)) == pytest.approx(expected, abs=1e-15)
    engine.materialise(policy, tmp_path / "model")
    again = tabular.Tabular(str(tmp_path / "model"), tmp_path, {})
    assert flat(again.base) == pytest.approx(expected, abs=0)
    assert again.identity() != engine.identity()
    only_shared = {"style_shared": torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64)}
    moved = engine.displacement(Policy(base="tabular", moves=(checkpoint(engine, only_shared, "s", kind="direction"),)))
    assert moved.norm == pytest.approx(5.0)
    assert moved.relative == pytest.approx(5.0 / np.linalg.norm(flat(engine.base)))
    assert moved.changed == pytest.approx(2 / engine.limits().parameters)


def test_domain_is_reproducible_disjoint_and_balanced() -> None:
    domain, seen = Domain(), set[str]()
    for split in ("train", "selection", "test"):
        drawn = list(domain.problems("ladder", split, seed=3, limit=100))
        assert drawn == list(domain.problems("ladder", split, seed=3, limit=100))
        assert [p.level for p in drawn] == [1, 2, 3, 4, 5] * 20
        hashes = {p.content_hash for p in drawn} | {p.id for p in drawn}
        assert len(hashes) == 200
        assert not hashes & seen
        seen |= hashes
    assert pickle.loads(pickle.dumps(domain)).version == domain.version
    with pytest.raises(UnknownName, match="split"):
        domain.problems("ladder", "tests", seed=0, limit=1)


def test_verdicts_tell_wrong_format_from_wrong_answer() -> None:
    domain, (problem,) = Domain(), problems([4])
    lenient = Problem(id=problem.id, prompt=problem.prompt, answer=problem.answer)
    for case in (problem, lenient):
        for completion, expected in domain.specimens(case):
            assert domain.verify(case, completion).outcome is expected, completion[:40]
    verdict = domain.verify(lenient, f"B{problem.answer}")
    assert (verdict.outcome, verdict.format_ok, verdict.extracted) == (Outcome.CORRECT, False, str(problem.answer))
    assert domain.verify(problem, f"A{problem.answer}").format_ok


def test_prompts_name_their_last_task() -> None:
    assert task_of(prompt_of(Task(1, 4)) + "A4\n" + prompt_of(Task(3, 77))) == (3, 77)
    with pytest.raises(UsageError, match="class"):
        task_of("What is 2 + 2?")


@pytest.mark.parametrize("model", ["tabular:.5,1.2", "tabular:", "tabular:a", "no/such/folder"])
def test_models_that_do_not_exist_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        tabular.Tabular(model, tmp_path, {})
