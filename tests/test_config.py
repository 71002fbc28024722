"""The spec: defaults in code, TOML, --set; every mistake is a UsageError that says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tabular_run import REPOSITORY

from harness import config
from harness.config import EngineSpec, RewardSpec, RunSpec, SamplingSpec, SearchSpec
from harness.errors import UnknownName, UsageError
from harness.types import Outcome


def load(*sets: str, domain: str | None = "math", file: Path | None = None, **changes: Any) -> RunSpec:
    return config.load(domain, file=file, changes=changes, sets=sets)


def test_defaults_are_the_documented_ones() -> None:
    spec = load()
    assert spec == RunSpec(domain="math")
    assert (spec.budget, spec.num_train_problems, spec.sampling.group, spec.selection_total) == (4096, 256, 16, 4096)
    assert spec.search.kl_targets == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    assert (spec.search.problems, spec.search.samples) == (128, 4)
    assert (spec.evaluation.problems, spec.evaluation.samples, spec.sampling.temperature) == (300, 4, 1.0)
    assert (spec.model, spec.engine.name, spec.seeds) == ("tiny", "hf", 1)


@pytest.mark.parametrize("domain", ["math", "code", "arc"])
def test_shipped_default_spec_equals_the_defaults(domain: str) -> None:
    assert config.load(None, file=REPOSITORY / f"benchmarks/{domain}/default.toml", changes={}, sets=()) == RunSpec(
        domain=domain
    )


def test_every_shipped_spec_loads() -> None:
    files = sorted((REPOSITORY / "benchmarks").glob("*/*.toml"))
    assert files
    for file in files:
        spec = load(domain=None, file=file)
        assert spec.domain == file.parent.name


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NAMES = st.from_regex("[a-z_][a-z0-9_+=-]{0,9}", fullmatch=True)
SPECS = st.builds(
    RunSpec,
    domain=WORDS,
    model=WORDS,
    methods=st.lists(NAMES, max_size=3).map(tuple),
    seeds=st.integers(1, 5),
    budget=st.integers(1, 10**5).map(lambda groups: 64 * groups),
    sampling=st.builds(SamplingSpec, group=st.sampled_from([2, 16, 64]), temperature=st.floats(0.01, 10)),
    search=st.builds(SearchSpec, kl_targets=st.lists(st.floats(1e-9, 10), max_size=3).map(tuple)),
    engine=st.builds(EngineSpec, name=WORDS, trust_remote_code=st.booleans()),
    rewards=st.builds(RewardSpec, wrong=st.floats(-1, 0)),
    method=st.dictionaries(
        st.sampled_from(["one_shot", "a-b", "a=.5"]),
        st.dictionaries(
            st.sampled_from(["x", "y"]) | WORDS, WORDS | st.booleans() | st.integers(-9, 9) | st.floats(0, 1)
        ),
    ).map(lambda tables: {name: table for name, table in tables.items() if table}),
    workers=st.integers(0, 4),
)


@given(SPECS)
def test_toml_round_trip(tmp_path_factory: pytest.TempPathFactory, spec: RunSpec) -> None:
    file = tmp_path_factory.mktemp("spec") / "spec.toml"
    file.write_text(config.to_toml(spec), encoding="utf-8")
    assert load(domain=None, file=file) == spec


def test_flags_win_over_the_file_and_sets_over_flags(tmp_path: Path) -> None:
    file = tmp_path / "spec.toml"
    file.write_text('domain = "code"\nbudget = 100\nseeds = 2\nmodel = "a"\n[sampling]\ngroup = 4\n')
    spec = load(
        "model=c", "sampling.temperature=0.7", domain=None, file=file, seeds=3, model="b", budget=None, methods=()
    )
    assert (spec.domain, spec.budget, spec.seeds, spec.model) == ("code", 100, 3, "c")
    assert (spec.sampling.group, spec.sampling.temperature) == (4, 0.7)
    assert spec.methods == config.DEFAULT_METHODS


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("sampling.temperature=1", "sampling.temperature", 1.0),
        ("sampling.group=8", "sampling.group", 8),
        ("engine.trust_remote_code=true", "engine.trust_remote_code", True),
        ("engine.dtype=float32", "engine.dtype", "float32"),
        ('engine.dtype="float32"', "engine.dtype", "float32"),
        ("model=tabular:.5,.2", "model", "tabular:.5,.2"),
        ("model=a=b", "model", "a=b"),
        ("search.kl_targets=[0.1, 1]", "search.kl_targets", (0.1, 1.0)),
        ("search.kl_targets=0.1", "search.kl_targets", (0.1,)),
        ("methods=one_shot", "methods", ("one_shot",)),
        ("method.one_shot.direction=raw", "method", {"one_shot": {"direction": "raw"}}),
        (" rewards.wrong = -0.5 ", "rewards.wrong", -0.5),
    ],
)
def test_set_is_typed(text: str, field: str, value: Any) -> None:
    found: Any = load(text)
    for name in field.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [("sampling.temprature=1", "sampling.temperature"), ("buget=1", "budget"), ("serch.problems=1", "search"),
     ("evaluation.problem=1", "evaluation.problems")],
)  # fmt: skip
def test_unknown_key_names_the_nearest(text: str, nearest: str) -> None:
    with pytest.raises(UnknownName, match=f'did you mean "{nearest}"'):
        load(text)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["budget=15"], "smaller than one group of 16"),
        (["sampling.group=1"], "at least 2"),
        (["sampling.temperature=0"], "at least 0.01, got 0.0: greedy draws carry no gradient"),
        (["seeds=0"], "at least 1"),
        (["selection_budget=7"], "cannot score 8"),
        (["selection_budget=-1"], "selection"),
        (["budget"], "a.b=value"),
        (["budget.x=1"], "budget"),
        (["budget=many"], "must be int"),
        (["budget=1.5"], "must be int"),
        (["budget=true"], "must be int"),
        (["sampling.temperature=warm"], "must be float"),
        (["model=3"], "must be str"),
        (["engine=hf"], "table of options"),
        (["method.one_shot=raw"], "table of options"),
        (["budget=4096", "budget.x=1"], "is a value, not a table"),
        (["search.samples=0"], "search.samples"),
        (["search.kl_targets=[0.0, 0.1]"], "search.kl_targets"),
        (["evaluation.samples=0"], "evaluation.samples"),
        (["rewards.correct=nan"], "rewards.correct"),
        (["sampling.temperature=nan"], "sampling.temperature"),
        (["sampling.max_tokens=-1"], "sampling.max_tokens"),
    ],
)
def test_a_mistake_is_a_usage_error(sets: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(*sets)


def test_no_domain_missing_file_and_broken_toml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--domain NAME"):
        load(domain=None)
    with pytest.raises(UsageError, match="no spec file"):
        load(file=tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(UsageError, match=r"bad\.toml is not TOML"):
        load(file=tmp_path / "bad.toml")


def test_hash_ignores_workers_and_recomputed_layers_alone() -> None:
    spec = load()
    assert load("workers=7").hash == load("engine.gradient_checkpointing=true").hash == spec.hash
    assert len(spec.hash) == 8
    others = ["seeds=2", "model=x", "rewards.wrong=-1", "method.one_shot.direction=raw", "engine.shard_rollouts=64"]
    others.append("engine.fsdp=true")
    assert len({spec.hash, *(load(text).hash for text in others)}) == len(others) + 1


def test_workers_default_to_something_positive() -> None:
    assert load().num_workers >= 1
    assert load("workers=3").num_workers == 3


def test_reward_of_each_outcome() -> None:
    rewards = dataclasses.replace(RewardSpec(), wrong=-1.0, timeout=-0.5)
    assert [rewards.of(o) for o in Outcome] == [1.0, -1.0, 0.0, -0.5, None]
