"""Engines and models that fail: a row that says why, or the run's end with a message, and nothing lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tabular_run import PLAIN, execute, small_spec, temporary
from test_pipeline import comparable

from harness import pipeline, plugins, stepping
from harness.contracts import Optimizer
from harness.errors import EngineFailure, HarnessError, NoSignal, NotFinite, UsageError
from harness.leaderboard import Row
from harness.plugins import Plugins
from harness.types import Policy, SampleRequest
from harness_engines.hf import HfEngine

SPEC = (*PLAIN, "engine.shard_rollouts=32", "evaluation.problems=10", "search.problems=16")


def with_engine(name: str) -> Plugins:
    found = plugins.load({})
    if name:
        known = found.registered["engine", "tabular"]
        found.registered["engine", "tabular"] = replace(known, target=f"failing_engines:{name}")
    return found


def run(name: str, *sets: str, method: str = "one_shot", model: str = "tabular") -> Row:
    """The method's row of the first seed."""
    spec = small_spec(*SPEC, *sets, methods=[method], budget=128, model=model)
    _, rows = execute(spec, temporary(), found=with_engine(name))
    assert rows[0]["method"] == "base"
    assert rows[0]["status"].startswith("ok")
    return next(row for row in rows if row["method"] == method)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("FewerRollouts", "drew other rollouts than asked for: 19 of 20, the first difference at place 19"),
        ("OtherOrder", "drew other rollouts than asked for: 20 of 20, the first difference at place 0"),
        ("FewerShards", "drew 1 shards where 2 were asked for"),
        ("NoTokens", "has no token, not even the one that ends it"),
        ("FewerLogprobs", "has 3 tokens and 1 log-probabilities"),
        ("NegativeTokens", "has tokens that are no numbers of a vocabulary"),
        ("UnknownTokens", "the engine failed in a gradient: IndexError"),
        ("NoUnicode", "has a text that is no Unicode"),
        ("LogprobsAboveZero", "a drawn token has log-probability"),
        ("RaisesInTheMiddle", "the engine failed sampling: RuntimeError: CUDA error: device-side assert"),
        ("CannotStart", "the engine failed at its start: RuntimeError: header too large"),
        ("NegativeKl", "a KL divergence of -1"),
    ],
)
def test_a_fault_of_the_engine_ends_the_run_with_a_message(fault: str, message: str) -> None:
    with pytest.raises(EngineFailure, match=message):
        run(fault)


def test_a_base_that_is_not_finite_ends_the_run() -> None:
    with pytest.raises(NotFinite, match=r"log-probabilities of drawn tokens of policy \w+ are NaN or infinite"):
        run("NanLogits")


def test_a_gap_between_sampler_and_trainer_ends_the_run() -> None:
    with pytest.raises(HarnessError, match="trainer and sampler disagree by 3 nats"):
        run("Gap")


@pytest.mark.parametrize(
    ("fault", "method", "status"),
    [
        ("NanGradient", "one_shot", "not finite: a gradient has norm nan"),
        ("InfiniteGradient", "one_shot", "not finite: a gradient has norm inf"),
        ("ZeroGradient", "one_shot", "no signal: the direction has norm zero"),
        ("NanCandidates", "one_shot", "not finite: "),
        ("NanKl", "one_shot", "not finite: no step along the direction has a finite KL"),
        ("NanScores", "one_shot", "not finite: "),
        ("NanStep", "grpo", "not finite: an optimizer step has loss"),
        ("NanCandidates", "grpo", "not finite: "),
        ("EndsAtOnce", "one_shot", "no signal: no group with both rewards"),
    ],
)
def test_what_is_not_finite_or_no_direction_is_a_status_and_scored_as_the_base(
    fault: str, method: str, status: str
) -> None:
    few = ("method.grpo.steps=4",) if method == "grpo" else ()
    row = run(fault, *few, method=method)
    assert row["status"].startswith(status)
    assert row["delta"] == 0
    assert row["pass@1"] == row["base_pass@1"]
    assert row["train_rollouts"] > 0, "what was drawn is charged"


LATE = ("method.grpo.steps=4", "method.grpo.lr=0.2", "method.grpo.checkpoints=4")


def test_where_training_diverges_late_the_best_checkpoint_before_is_scored() -> None:
    row = run("NanStepLater", *LATE, method="grpo")
    assert row["status"].startswith("not finite: an optimizer step has loss")
    assert row["status"].endswith("In step 4 of 4: the best of the checkpoints before is scored")
    assert row["delta"] > 0
    assert row["updates"] == 3


def test_a_checkpoint_that_is_not_finite_on_other_problems_is_none() -> None:
    row = run("NanStepThenGreedy", *LATE, method="grpo")
    assert row["status"].startswith("not finite: an optimizer step has loss")
    assert row["pass@1"] == row["base_pass@1"]


def test_what_was_not_finite_once_is_so_in_a_resumed_run() -> None:
    """On a GPU the same step may come out otherwise: what the method did next is in the journal."""
    spec, out = small_spec(*SPEC, *LATE, methods=["grpo"], budget=128), temporary()
    root, whole = execute(spec, out, found=with_engine("NanStepLater"))
    (root / "methods/grpo/0/scores.json").unlink()
    (root / "DONE").unlink(missing_ok=True)
    assert comparable(pipeline.execute(root, plugins.load({}), progress=lambda *_: None)) == comparable(whole)


@pytest.mark.parametrize(
    ("fault", "highest"), [("SomeTensorsZero", 0.7), ("NanKlFarOut", 0.11), ("NoKl", 0.0)], ids=str
)
def test_a_search_goes_as_far_as_there_are_steps(fault: str, highest: float) -> None:
    """Beyond a KL that is not finite, or none at all, there is no candidate; the zero step always is one."""
    row = run(fault)
    assert row["status"].startswith("ok")
    assert (row["kl"] or 0.0) <= highest


@pytest.mark.parametrize(
    ("model", "sets", "rate"),
    [("tabular:.999999", (), 1.0), ("tabular:.000001", (), 0.0), ("tabular", ("sampling.max_tokens=1",), 0.0)],
    ids=["all correct", "all wrong", "all truncated"],
)
def test_a_batch_without_any_difference_is_a_status(model: str, sets: tuple[str, ...], rate: float) -> None:
    row = run("", *sets, model=model)
    assert row["status"].startswith("no signal: no group with both rewards among")
    assert row["base_pass@1"] == row["pass@1"] == rate
    assert row["truncated"] == (1.0 if sets else 0.0)


@pytest.mark.parametrize("fault", ["RaisesInTheMiddle", "NegativeKl"])
def test_a_run_that_its_engine_ended_goes_on_with_a_sound_one(fault: str) -> None:
    spec = small_spec(*SPEC, methods=["one_shot"], budget=128)
    ((_, whole), out) = execute(spec, temporary()), temporary()
    with pytest.raises(EngineFailure):
        execute(spec, out, found=with_engine(fault))
    (root,) = out.iterdir()
    again = pipeline.execute(root, plugins.load({}), progress=lambda *_: None)
    assert comparable(again) == comparable(whole)


def test_steps_shrink_until_there_is_a_kl_and_end_where_there_is_none() -> None:
    def overflows(step: float) -> float:
        return step**2 if step < 1e-5 else float("inf")

    solved = stepping.solve_steps(overflows, (1e-12, 1e-11, 0.1), direction_norm=1.0, weight_norm=1.0)
    assert [s.target for s in solved] == [1e-12, 1e-11]
    for nothing in (float("nan"), float("inf")):
        with pytest.raises(NotFinite):
            stepping.solve_steps(lambda _: nothing, (0.1,), direction_norm=1.0, weight_norm=1.0)  # noqa: B023
    with pytest.raises(NoSignal):
        stepping.solve_steps(lambda _: 0.0, (0.1,), direction_norm=0.0, weight_norm=1.0)


# Models of transformers, doctored.


def doctored(model: Path, tmp_path: Path, **files: dict[str, Any]) -> Path:
    """A copy with changed keys of its JSON files."""
    folder = tmp_path / "doctored"
    shutil.copytree(model, folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        kept = {k: v for k, v in {**found, **changes}.items() if v is not None}
        path.write_text(json.dumps(kept))
    return folder


def engine(folder: Path, tmp_path: Path) -> HfEngine:
    options = {
        "device": "cpu", "workers": 1, "dtype": "float32", "shard_rollouts": 8, "microbatch_tokens": 0, "trust_remote_code": False,
    }  # fmt: skip
    return HfEngine(str(folder), tmp_path, options)


def request(prompt: str, name: str = "p", tokens: int = 5) -> SampleRequest:
    return SampleRequest(
        problem_id=name, prompt=prompt, sample_idxs=(0, 1), seeds=(1, 2), temperature=1.0, max_tokens=tokens
    )


BASE = Policy(base="x")


def test_an_end_at_once_is_a_completion_of_one_token(random_model: Path, tmp_path: Path) -> None:
    every = list(range(96))
    own = engine(doctored(random_model, tmp_path, generation_config={"eos_token_id": every}), tmp_path)
    (drawn,) = own.sample([(request("ab"),)], BASE)
    assert [(r.text, len(r.completion_tokens), r.finish) for r in drawn] == [("", 1, "stop")] * 2
    assert all(np.isfinite(s.logprobs_T).all() for s in own.score(drawn, BASE, temperature=1.0))


def test_without_an_end_that_the_model_has_it_is_refused_at_the_start(random_model: Path, tmp_path: Path) -> None:
    none: dict[str, Any] = {"eos_token_id": None}
    folder = doctored(
        random_model,
        tmp_path,
        config=none,
        generation_config=none,
        tokenizer_config={"eos_token": None, "pad_token": None},
    )
    with pytest.raises(UsageError, match="names no end-of-sequence token that the model has"):
        engine(folder, tmp_path)


@pytest.mark.parametrize("pad", [None, "<strange>"])
def test_without_a_pad_token_that_the_model_has_nothing_changes(
    random_model: Path, tmp_path: Path, pad: str | None
) -> None:
    folder = doctored(random_model, tmp_path, config={"pad_token_id": None}, tokenizer_config={"pad_token": pad})
    shard = (request("ab"), request("abcdef", "q"))
    found = [own.sample([shard], BASE) for own in (engine(folder, tmp_path), engine(random_model, tmp_path))]
    ((ours,), (theirs,)) = found
    assert [r.completion_tokens.tolist() for r in ours] == [r.completion_tokens.tolist() for r in theirs]


def test_completions_end_where_the_context_does(random_model: Path, tmp_path: Path) -> None:
    """One long prompt of many costs its own completions their room, and no other's."""
    own = engine(doctored(random_model, tmp_path, config={"max_position_embeddings": 12}), tmp_path)
    shard = (request("a" * 10, "long"), request("ab", "short"))
    (drawn,) = own.sample([shard], BASE)
    lengths = {r.problem_id: len(r.completion_tokens) for r in drawn}
    assert lengths["long"] == 2 < lengths["short"]
    assert {r.finish for r in drawn if r.problem_id == "long"} == {"length"}
    with pytest.raises(UsageError, match="problem full has 12 tokens, the context of the model 12"):
        list(own.sample([(request("ab"), request("a" * 12, "full"))], BASE))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_met_at_the_first_draw(
    random_model: Path, tmp_path: Path, value: float
) -> None:
    folder = doctored(random_model, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = value
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    own = pipeline.open_engine(tmp_path, small_spec("engine.name=hf", model=str(folder)), plugins.load({}))
    with pytest.raises(NotFinite, match="log-probabilities of drawn tokens"):
        list(own.sample([(request("ab"),)], BASE))
    own.trainer(BASE, Optimizer(lr=0.1))  # what is not checked passes through
