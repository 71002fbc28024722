"""random_search: its noise, its budget, what it hands to selection, and the density read from its probe."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tabular_kit import draw
from tabular_run import PLAIN, execute, small_spec

from harness import leaderboard, pipeline, plugins, store
from harness.errors import UsageError
from harness.leaderboard import UNCOMPARED, Row
from harness.plugins import Plugins
from harness.report import density, results
from harness.report import html as pages
from harness.types import Candidate, Move, Outcome, Policy, Problem, Rollout, SampleRequest, Score, Search, Shard
from harness_engines.hf import HfEngine
from harness_engines.model import CausalModel
from harness_engines.tabular import Tabular
from harness_engines.tabular_domain import Tabular as Domain

FEW = ("method.random_search.perturbations=15", "method.random_search.keep=3")


def noise(seed: str = "1f", sigma: float = 0.05) -> Policy:
    return Policy(base="x", moves=(Move(kind="noise", path="", digest=seed, step=sigma),))


def searched(tmp_path: Path, *sets: str, **changes: Any) -> tuple[Path, Row]:
    root, rows = execute(small_spec(*sets, methods=("random_search",), **changes), tmp_path)
    return root, next(row for row in rows if row["method"] == "random_search" and row["seed"] == 0)


def probe_of(root: Path) -> Search:
    found: Search = store.read_json(root / "methods/random_search/0/probe.json")
    return found


def problems_of(root: Path, split: str) -> dict[str, Problem]:
    lines = store.read_lines(root / "problems.jsonl")
    return {line["problem"].id: line["problem"] for line in lines if line["split"] == split}


def deltas(model: CausalModel, policy: Policy) -> dict[str, torch.Tensor]:
    return {name: t.float() - model.base[name].float() for name, t in model.weights(policy).items()}


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


@pytest.fixture
def model(random_model: Path, tmp_path: Path) -> CausalModel:
    return CausalModel(str(random_model), tmp_path, dtype="float32", device="cpu")


def test_noise_has_the_stated_share_of_each_tensors_rms(model: CausalModel) -> None:
    ratios, dimensions = [], set()
    for name, delta in deltas(model, noise(sigma=0.05)).items():
        dimensions.add(delta.dim())
        expected, n = 0.05 * rms(model.base[name]), delta.numel()
        assert rms(delta) == pytest.approx(expected, rel=4 / math.sqrt(2 * n)), name
        assert abs(float(delta.mean())) < 4.5 * expected / math.sqrt(n), name
        ratios.append(rms(delta) / rms(model.base[name]))
    assert dimensions == {1, 2}, "norms are perturbed like matrices"
    assert np.mean(ratios) == pytest.approx(0.05, rel=0.1)
    assert model.displacement(noise(sigma=0.05)).relative == pytest.approx(0.05, rel=0.05)


def test_noise_scales_with_sigma_alone(model: CausalModel) -> None:
    small, large = deltas(model, noise(sigma=0.01)), deltas(model, noise(sigma=0.04))
    for name in small:
        torch.testing.assert_close(4 * small[name], large[name], rtol=1e-3, atol=1e-6)


def test_tensors_of_one_shape_do_not_share_noise(model: CausalModel) -> None:
    """The published code's quirk: one seed for every tensor moves equal shapes together."""
    found = deltas(model, noise())
    first, second = (found[f"model.layers.{i}.self_attn.q_proj.weight"].flatten() for i in (0, 1))
    assert first.shape == second.shape
    cosine = float(first @ second / (first.norm() * second.norm()))
    assert abs(cosine) < 4.5 / math.sqrt(len(first))


def test_noise_is_made_again_from_its_seed_and_differs_between_seeds(
    model: CausalModel, random_model: Path, tmp_path: Path
) -> None:
    again = CausalModel(str(random_model), tmp_path, dtype="float32", device="cpu")
    name = "model.layers.0.mlp.up_proj.weight"
    ours, same = model.weights(noise("1f"))[name], again.weights(noise("1f"))[name]
    assert torch.equal(ours, same)
    assert not torch.equal(ours, again.weights(noise("20"))[name])


def test_candidates_are_formed_in_fp32_and_cast_once(random_model: Path, tmp_path: Path, model: CausalModel) -> None:
    """In bf16 the fp32 noise is added to the stored base, and only the sum is rounded."""
    coarse = CausalModel(str(random_model), tmp_path, dtype="bfloat16", device="cpu")
    equal = count = 0
    for name, formed in coarse.weights(noise(sigma=0.3)).items():
        fine = coarse.base[name].float()
        wanted = fine + deltas(model, noise(sigma=0.3))[name] * (rms(fine) / rms(model.base[name]))
        assert formed.dtype == torch.bfloat16
        equal, count = equal + int((formed == wanted.bfloat16()).sum()), count + formed.numel()
    assert equal / count > 0.999, "noise rounded by itself first would round every few weights differently"
    assert coarse.base is coarse.weights(Policy(base="x")), "the base itself is never touched"


def test_workers_form_the_same_candidate(random_model: Path, tmp_path: Path) -> None:
    options = {"dtype": "float32", "device": "cpu", "shard_rollouts": 2, "microbatch_tokens": 512,
               "trust_remote_code": False}  # fmt: skip
    shards: list[Shard] = [
        (SampleRequest(problem_id=text, prompt=text, sample_idxs=(0,), seeds=(7,), temperature=1.0, max_tokens=12),)
        for text in ("abc", "de")
    ]
    found = []
    for workers in (1, 2):
        engine = HfEngine(str(random_model), tmp_path, {**options, "workers": workers})
        drawn = [r for shard in engine.sample(shards, noise(sigma=0.3)) for r in shard]
        found.append([(r.completion_tokens.tolist(), r.logprobs.tolist()) for r in drawn])
        engine.close()
    assert found[0] == found[1]


class Counting(Tabular):
    """Keeps every completion's request as an outsider sees it."""

    seen: list[tuple[str, float]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            Counting.seen += [(request.problem_id, request.temperature) for request in shard for _ in request.seeds]
        return super().sample(shards, policy)


def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *sets: str, budget: int) -> tuple[Path, Row, int, int]:
    """A run, its row, and the training and selection completions that its engine was asked for."""
    Counting.seen = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:Counting")
    root, rows = execute(small_spec(*PLAIN, *sets, methods=("random_search",), budget=budget), tmp_path, found=found)
    row = next(r for r in rows if r["method"] == "random_search" and r["seed"] == 0)
    train, selection = problems_of(root, "train/0"), problems_of(root, "selection")
    drawn = [(name, temperature) for name, temperature in Counting.seen if name in train]
    assert {temperature for _, temperature in drawn} == {0.0}
    return root, row, len(drawn), sum(name in selection for name, _ in Counting.seen)


def test_the_default_spends_the_budget_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """63 perturbations and the base on 16 problems each are 1024; seven of them and the base on 128, once each."""
    root, row, train, selection = counted(tmp_path, monkeypatch, budget=1024)
    assert train == row["train_rollouts"] == 1024
    assert selection == row["selection_rollouts"] == 1024
    probe = probe_of(root)
    assert [len(c.score.problem_ids) for c in probe.candidates] == [16] * 64
    assert len({c.score.problem_ids for c in probe.candidates}) == 1, "the same problems for all"
    assert [sum(c.step == s for c in probe.candidates) for s in (0.0, 0.02, 0.04, 0.07)] == [1, 21, 21, 21]
    assert row["updates"] == 0


@pytest.mark.parametrize(
    ("perturbations", "spent"), [(100, 101 * 10), (3, 4 * 64)], ids=["rounded", "all training problems"]
)
def test_what_does_not_divide_is_left_unspent(
    perturbations: int, spent: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = (f"method.random_search.perturbations={perturbations}", "method.random_search.keep=3")
    _, row, train, _ = counted(tmp_path, monkeypatch, *sets, budget=1024)
    assert train == row["train_rollouts"] == spent <= 1024


def test_more_perturbations_than_the_budget_can_score_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lower --set method\.random_search\.perturbations"):
        searched(tmp_path, "method.random_search.perturbations=300")


def test_the_probes_base_is_the_base(tmp_path: Path) -> None:
    root, _ = searched(tmp_path, *FEW)
    base, *others = probe_of(root).candidates
    assert base.policy == Policy(base="tabular")
    assert (base.step, base.relative_step) == (0.0, 0.0)
    items = [problems_of(root, "train/0")[name] for name in base.score.problem_ids]
    rollouts = [group[0] for group in draw(Tabular("tabular", root, {}), items, 1, temperature=0.0)]
    verdicts = [Domain().verify(p, r.text).outcome is Outcome.CORRECT for p, r in zip(items, rollouts, strict=True)]
    assert base.score.correct == tuple(map(int, verdicts))
    assert set(base.score.n) == {1}
    assert all(c.relative_step == pytest.approx(c.step, rel=0.3) for c in others)
    assert len({c.policy.id for c in others}) == 15


def test_the_best_of_the_probe_meet_the_base_on_selection_and_the_winner_is_evaluated(tmp_path: Path) -> None:
    root, row = searched(tmp_path, *FEW)
    base, *others = probe_of(root).candidates
    ranked = sorted(others, key=lambda c: -c.score.accuracy)
    search: Search = store.read_json(root / "methods/random_search/0/search.json")
    assert [c.policy for c in search.candidates] == [base.policy, *(c.policy for c in ranked[:3])]
    accuracies = [c.score.accuracy for c in search.candidates]
    assert search.chosen == search.best == accuracies.index(max(accuracies))
    assert set(search.candidates[0].score.problem_ids) <= set(problems_of(root, "selection"))
    done = store.read_json(root / "methods/random_search/0/scores.json")
    assert done.contender.policies == (search.winner.policy,)
    assert row["relative_step"] == pytest.approx(search.winner.relative_step)


def test_no_weight_file_is_written_and_the_winner_can_be_exported(tmp_path: Path) -> None:
    root, _ = searched(tmp_path, *FEW)
    own = root / "methods/random_search/0"
    assert {path.name for path in own.iterdir()} == {"journal", "probe.json", "search.json", "scores.json"}
    assert not (root / "directions").exists()
    engine, policy = Tabular("tabular", root, {}), probe_of(root).candidates[5].policy
    engine.materialise(policy, tmp_path / "model")
    moved = Tabular(str(tmp_path / "model"), root, {})
    assert moved.displacement(Policy(base="")).norm == 0.0
    for name, table in engine.tables(policy).items():
        assert torch.equal(moved.base[name], table)
        assert not torch.equal(table, engine.base[name])


@pytest.mark.parametrize("moment", [1, 8, 15])
def test_an_interrupted_probe_resumes_to_the_same_row(tmp_path: Path, moment: int) -> None:
    straight, _ = searched(tmp_path / "straight", *FEW)
    spec = small_spec(*FEW, methods=("random_search",))
    root = pipeline.create(spec, out=tmp_path / "resumed", command="harness run")

    def interrupt(label: str, done: int, total: int) -> None:
        if label.startswith("random_search: probe") and done == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(root, plugins.load({}), progress=interrupt)
    assert len(list((root / "verdicts/0").glob("probe-*"))) == moment
    pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    rows = [leaderboard.read_csv(folder / "leaderboard.csv") for folder in (straight, root)]
    ours, theirs = ([{k: v for k, v in row.items() if k not in UNCOMPARED} for row in half] for half in rows)
    assert ours == theirs
    assert probe_of(root) == probe_of(straight)


def candidate(correct: int, *, sigma: float = 0.0, n: Sequence[int] = (1,) * 20) -> Candidate:
    """The first `correct` of 20 problems are right."""
    own = tuple(int(i < correct) if n[i] else 0 for i in range(20))
    score = Score(
        problem_ids=tuple(map(str, range(20))), n=tuple(n), correct=own, correct_free=own, format=1.0, truncated=0.0,
        unparsed=0.0, timeouts=0.0, errors=0,
    )  # fmt: skip
    return Candidate(policy=Policy(base="b"), step=sigma, relative_step=sigma, score=score)


def probe(base: int, **by_sigma: Sequence[int]) -> Search:
    tried = [candidate(k, sigma=float(f"0.{name[1:]}")) for name, counts in by_sigma.items() for k in counts]
    return Search(candidates=(candidate(base), *tried), chosen=0, best=0)


def test_density_by_hand() -> None:
    """Base 10 of 20. One problem is .05: at least +.05 are 11, 12 and 13 of five, and exactly .05 counts."""
    small, large = density.densities([probe(10, s1=[11, 12, 13, 10, 9], s2=[8, 7, 10, 12])])
    assert (small.sigma, small.perturbations, small.problems, small.base) == (0.1, 5, 20, 0.5)
    assert small.above == pytest.approx((3 / 5, 3 / 5, 2 / 5))
    assert small.below == pytest.approx((1 / 5, 1 / 5, 0))
    assert (small.mean, small.best) == pytest.approx((0.55, 0.65))
    assert large.above == pytest.approx((1 / 4, 1 / 4, 1 / 4))
    assert large.below == pytest.approx((2 / 4, 2 / 4, 2 / 4))
    assert density.densest([small, large]) is small


def test_density_pools_seeds_each_against_its_own_base() -> None:
    (pooled,) = density.densities([probe(10, s1=[11, 10]), probe(4, s1=[6, 3])])
    assert pooled.perturbations == 4
    assert pooled.above == pytest.approx((2 / 4, 2 / 4, 1 / 4))
    assert pooled.below == pytest.approx((1 / 4, 1 / 4, 0))
    assert pooled.base == pytest.approx(0.35)


def test_density_compares_the_problems_that_both_have() -> None:
    """The base has no verdict on problems 10 to 19: 10 of 10 against 9 of 10."""
    base = candidate(10, n=[1] * 10 + [0] * 10)
    (found,) = density.densities([Search(candidates=(base, candidate(9, sigma=0.1)), chosen=0, best=0)])
    assert found.above == (0, 0, 0)
    assert found.below == (1, 1, 1)


def test_ties_go_to_the_smaller_sigma_and_nothing_gives_nothing() -> None:
    found = density.densities([probe(10, s1=[11], s2=[11])])
    assert density.densest(found).sigma == 0.1
    assert density.densities([]) == []


def test_the_report_shows_densities_only_where_a_method_probed(tmp_path: Path) -> None:
    root, _ = searched(tmp_path / "searched", *FEW, seeds=2)
    found = results.load(root)
    assert set(found.probes) == {("random_search", 0), ("random_search", 1)}
    text = pages.write(root, Plugins()).read_text(encoding="utf-8")
    assert "<h2>Density of good perturbations</h2>" in text
    every = density.densities(found.probes_of("random_search"))
    assert [d.perturbations for d in every] == [10, 10, 10]
    for d in every:
        cells = f">{d.sigma}</td> <td[^>]*>10</td> <td[^>]*>16</td> <td[^>]*>{d.base:.3f}</td>".replace(" ", r"\s*")
        assert re.search(cells, text), cells
    plain, _ = execute(small_spec(methods=("base",)), tmp_path / "plain")
    assert "Density of good perturbations" not in pages.write(plain, Plugins()).read_text(encoding="utf-8")
