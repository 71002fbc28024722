"""Whole runs on the tabular engine: budgets, rows, errors that become statuses, and runs that may not continue."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tabular_run import execute, finished, small_spec

from harness import leaderboard, pipeline, plugins, store
from harness.config import DEFAULT_METHODS
from harness.contracts import Optimizer
from harness.errors import HarnessError, UnknownName, UsageError
from harness.hookspecs import Register, hookimpl
from harness.leaderboard import UNCOMPARED, Row, read_csv
from harness.methods import check_options, options_of, ordered
from harness.objectives import PolicyGradient
from harness.plugins import Plugins
from harness.stages import Stages
from harness.types import Contender, Policy, Problem
from harness_engines.tabular import Tabular
from harness_engines.tabular_domain import Tabular as Domain


def comparable(rows: list[Row]) -> list[dict[str, str]]:
    text = leaderboard.to_csv(rows).splitlines()
    names = text[0].split(",")
    assert names == list(leaderboard.COLUMNS)
    return [{c: str(leaderboard._cell(row[c])) for c in names if c not in UNCOMPARED} for row in rows]


def rows_of(root: Path, **values: str) -> list[Row]:
    return [r for r in read_csv(root / "leaderboard.csv") if all(r[k] == v for k, v in values.items())]


def test_a_row_for_every_method_and_seed_and_one_for_all() -> None:
    found = [(r["method"], r["seed"]) for r in rows_of(finished())]
    assert found == [(m, s) for m in DEFAULT_METHODS for s in ("0", "1", "all")]
    assert all(r["status"].startswith("ok") for r in rows_of(finished()))


def test_every_method_spends_its_budget_and_no_more() -> None:
    for row in rows_of(finished()):
        trains = row["method"] not in ("base", "base_tempered")
        assert float(row["train_rollouts"]) == (256 if trains else 0), row["method"]
        selection = float(row["selection_rollouts"])
        assert (selection == 0) if row["method"] == "base" else (0 < selection <= 256), row["method"]
        more = {"base": 40 * 16, "one_shot": 40 * 4 * 7}.get(row["method"], 0)  # bins; the steps that were not chosen
        if row["method"] in ("base", "one_shot", "grpo"):
            more += 40 * 4 + 16 * 4  # up to 8 draws of a test problem; training problems again
        assert float(row["eval_rollouts"]) == 40 * 4 + 40 + more
        unjudged = {"train"} if row["method"] == "entropy_min" else set()  # it asks for no verdict
        assert float(row["verifier_calls"]) == sum(
            float(row[f"{kind}_rollouts"]) for kind in {"train", "selection", "eval"} - unjudged
        ), "every other generated rollout is judged and counted"


def test_shared_draws_are_made_once(tmp_path: Path) -> None:
    """one_shot, its controls and rejection_sft have the same base batch; each is charged for it."""
    methods = ("one_shot", "one_shot_shuffled", "random_direction", "rejection_sft")
    root, rows = execute(small_spec(methods=methods), tmp_path)
    assert len([p for p in (root / "rollouts/0").iterdir() if p.name.startswith("train-")]) == 1
    assert {row["train_rollouts"] for row in rows if row["method"] in methods} == {256}


def test_one_shot_gains_and_knows_its_step() -> None:
    (row,) = rows_of(finished(), method="one_shot", seed="all")
    assert float(row["pass@1"]) > float(row["base_pass@1"]) + 0.1
    assert float(row["kl"]) > 0.005
    assert float(row["relative_step"]) > 0
    assert row["direction"] == "per_tensor"
    (base,) = rows_of(finished(), method="base", seed="all")
    assert base["pass@1"] == base["base_pass@1"] == row["base_pass@1"]
    assert float(base["delta"]) == 0


def test_splits_are_disjoint_and_fixed_across_seeds() -> None:
    splits: dict[str, set[str]] = {}
    for line in store.read_lines(finished() / "problems.jsonl"):
        splits.setdefault(line["split"], set()).add(line["problem"].content_hash)
    assert {name: len(found) for name, found in splits.items()} == {
        "train/0": 16, "train/1": 16, "selection": 128, "test/ladder": 40
    }  # fmt: skip
    for seed in ("train/0", "train/1"):
        assert not splits[seed] & (splits["selection"] | splits["test/ladder"])
    assert not splits["selection"] & splits["test/ladder"]
    assert splits["train/0"] != splits["train/1"]


def test_the_same_spec_gives_the_same_rows(tmp_path: Path) -> None:
    """Seed 0 of the two-seed run is this one-seed run: no draw depends on which methods or seeds ran before."""
    _, rows = execute(small_spec(methods=("random_direction", "one_shot")), tmp_path)
    ours = comparable([r for r in rows if r["seed"] == 0])
    theirs = [
        {c: v for c, v in row.items() if c not in UNCOMPARED}
        for method in ("base", "random_direction", "one_shot")
        for row in rows_of(finished(), method=method, seed="0")
    ]
    assert ours == theirs


def test_a_finished_run_resumes_to_the_same_rows_wherever_it_lies(tmp_path: Path) -> None:
    root = tmp_path / "moved"
    shutil.copytree(finished(), root)
    shutil.rmtree(root / "methods/one_shot/1")
    pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    ours, theirs = rows_of(root), rows_of(finished())
    for row in (*ours, *theirs):
        for column in UNCOMPARED:
            del row[column]
    assert ours == theirs


def test_no_signal_is_a_status_not_a_crash(tmp_path: Path) -> None:
    methods = ["base_tempered", "one_shot", "one_shot_shuffled", "random_direction", "grpo"]
    root, rows = execute(small_spec("rewards.correct=0", seeds=2, methods=methods), tmp_path)
    for row in rows:
        if row["method"] in ("base", "base_tempered"):
            assert row["status"].startswith("ok")
            assert row["pass@1"] != ""
        else:
            assert "no signal" in row["status"]
            assert "batch pass rate" in row["status"]
            assert row["base_pass@1"] != ""
            assert row["train_rollouts"] == 256, "the batch was drawn, so it is charged"
    assert read_csv(root / "leaderboard.csv")


def test_base_always_runs_and_first() -> None:
    assert ordered(["one_shot", "base", "one_shot"]) == ["base", "one_shot"]
    assert ordered([]) == ["base"]


def test_options_are_checked_against_the_method() -> None:
    method = type("M", (), {"name": "leap", "options": {"rate": 1.0}})()
    assert options_of(method, {"rate": 2.0}) == {"rate": 2.0}
    with pytest.raises(UnknownName, match=r'method\.leap\.rte.*did you mean "method\.leap\.rate"'):
        options_of(method, {"rte": 2.0})
    with pytest.raises(UnknownName, match="does not run"):
        check_options(small_spec("method.grpo.rate=1"), {"leap": method})


class Overlapping(Domain):
    """Its test problems are its training problems."""

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        return super().problems(benchmark, "train" if split == "test" else split, seed=seed, limit=limit)


class Empty(Domain):
    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        return super().problems(benchmark, split, seed=seed, limit=0 if split == "selection" else limit)


class Votes:
    """Chooses between the base alone and votes of three policies."""

    name, version = "votes", 1
    options: Mapping[str, Any] = {}

    def run(self, stages: Stages) -> Contender:
        others = tuple(Policy(base=name) for name in ("a", "b", "c"))
        contenders = [Contender(policies=(stages.base,)), Contender(policies=others, n=4, combine="vote")]
        return contenders[stages.select(contenders).chosen]


class KeepsAfterDead:
    """Keeps the policy after a batch without signal, trains on, and chooses the kept one."""

    name, version = "keeps_after_dead", 1
    options: Mapping[str, Any] = {}

    def run(self, stages: Stages) -> Contender:
        live = stages.weigh(stages.base_batch())
        dead = dataclasses.replace(live, sub_batches=())
        trainer = stages.trainer(stages.base, Optimizer(lr=0.01))
        trainer.step(live, PolicyGradient())
        trainer.step(dead, PolicyGradient())
        kept = trainer.keep()
        trainer.step(live, PolicyGradient())
        trainer.step(live, PolicyGradient())
        stages.select([Contender(policies=(policy,)) for policy in (stages.base, kept, trainer.policy)])
        return Contender(policies=(kept,))


class Extra:
    @hookimpl
    def harness_register_domains(self, register: Register) -> None:
        register("overlapping", f"{__name__}:Overlapping", summary="x")
        register("empty", f"{__name__}:Empty", summary="x")

    @hookimpl
    def harness_register_methods(self, register: Register) -> None:
        register("votes", f"{__name__}:Votes", summary="x")
        register("keeps_after_dead", f"{__name__}:KeepsAfterDead", summary="x")

    @hookimpl
    def harness_stage_finished(self, stage: str) -> None:
        raise RuntimeError(f"observer of {stage}")


def extended() -> Plugins:
    found = plugins.load({})
    found.add(Extra(), name="extra", distribution="extra", version="1")
    return found


def test_overlapping_splits_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"16 problems are in both .*test"):
        execute(small_spec(domain="overlapping"), tmp_path, found=extended())


def test_an_empty_split_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no problems for selection"):
        execute(small_spec(domain="empty"), tmp_path, found=extended())


def test_several_policies_in_a_contender_stay_within_the_selection_budget(tmp_path: Path) -> None:
    _, rows = execute(small_spec(methods=("votes",)), tmp_path, found=extended())
    assert all(row["selection_rollouts"] <= 256 for row in rows)


def test_a_policy_kept_after_a_batch_without_signal_can_be_chosen(tmp_path: Path) -> None:
    _, rows = execute(small_spec(methods=("keeps_after_dead",)), tmp_path, found=extended())
    assert rows[-1]["status"].startswith("ok")
    assert rows[-1]["updates"] == 4


def test_observer_errors_become_events(tmp_path: Path) -> None:
    root, rows = execute(small_spec(methods=("base_tempered",)), tmp_path, found=extended())
    assert all(row["status"].startswith("ok") for row in rows)
    events = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    errors = [e["observer_error"] for e in events if "observer_error" in e]
    assert errors
    assert all(e.startswith("extra:extra.harness_stage_finished: RuntimeError: observer of ") for e in errors)
    stages = [(e["stage"], e["method"]) for e in events if "stage" in e]
    assert stages == [("evaluate", "base"), ("select", "base_tempered"), ("evaluate", "base_tempered")]


def test_a_changed_model_may_not_continue_a_run(tmp_path: Path) -> None:
    model = tmp_path / "model"
    Tabular("tabular:.5,.2", tmp_path, {}).materialise(Policy(base=""), model)
    root, _ = execute(small_spec(model=str(model), methods=("one_shot",)), tmp_path / "runs")
    (root / "methods/one_shot/0/scores.json").unlink()
    Tabular("tabular:.1,.2", tmp_path, {}).materialise(Policy(base=""), model)
    with pytest.raises(HarnessError, match="model"):
        pipeline.execute(root, plugins.load({}), progress=lambda *_: None)


def test_manifest_says_what_ran() -> None:
    manifest = store.read_json(finished() / "manifest.json")
    assert set(manifest["methods"]) == set(DEFAULT_METHODS)
    assert manifest["splits"] == {"selection": 128, "test/ladder": 40, "train/0": 16, "train/1": 16}
    assert manifest["tests"] == {"ladder": rows_of(finished())[0]["data_hash"]}
    assert {"torch", "numpy", "transformers"} <= set(manifest["packages"])
    assert manifest["domain"]["name"] == "tabular"


def test_selection_scores_are_in_no_row() -> None:
    """Best of many on selection is inflated: search.json may hold it, rows hold test scores only."""
    done = store.read_json(finished() / "methods/one_shot/0/scores.json")
    (row,) = rows_of(finished(), method="one_shot", seed="0")
    assert float(row["pass@1"]) == done.evaluation.sampled.accuracy
    assert store.read_json(finished() / "methods/one_shot/0/search.json") == done.search
    chosen, zero = done.search.winner, done.search.candidates[0]
    assert zero.step == 0
    assert zero.kl == 0
    assert float(row["step"]) == chosen.step
