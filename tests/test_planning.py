"""What `--dry-run` promises: against what methods then do, and against sums by hand where nothing can be run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tabular_run import execute, invoke, small_spec

from harness import config, estimating, planning, plugins, sizing
from harness.contracts import Spending
from harness.methods import check_options, methods_of
from harness.planning import Sizes

FEW = ("evaluation.problems=10", "evaluation.wide_problems=5", "evaluation.wide_samples=8", "search.problems=16",
       "search.kl_targets=[0.08]")  # fmt: skip
MODELS = sorted(Path(__file__).parent.parent.glob("benchmarks/*/*.toml"))


def test_what_a_run_spends_is_what_was_promised(tmp_path: Path) -> None:
    """Every installed method that runs on this engine: training and test rollouts exactly, selection and trained
    tokens at most; a method without an optimizer makes no update."""
    found = plugins.load({})
    every = {name: found.lookup("method", name).load() for name in found.names("method")}
    engine = found.lookup("engine", "tabular").load()
    names = tuple(
        n for n, method in every.items() if all(hasattr(engine, need) for need in getattr(method, "needs", ()))
    )
    assert "ppo" in names
    sets = (*FEW, f"evaluation.wide_methods={json.dumps(names)}", "method.random_search.perturbations=15")
    spec = small_spec(*sets, methods=names, budget=512)
    methods = methods_of(spec, found)
    options = check_options(spec, methods)
    sizes = Sizes(512, 32, (10,), 0, "")
    root, rows = execute(spec, tmp_path, found=found)
    told = {name: planning.stage(spec, name, planning.spends(m, options[name]), sizes) for name, m in methods.items()}
    prompt = max(len(p["problem"].prompt.encode()) for p in _problems(root))
    for row in rows:
        if row["seed"] == 0:
            one = told[row["method"]]
            assert one.train == row["train_rollouts"], row["method"]
            assert one.evaluation == row["eval_rollouts"], row["method"]
            assert one.selection >= row["selection_rollouts"], row["method"]
            shared = 2 if row["method"] == "dpo" else 16  # completions that share a prompt
            assert one.graded * (3 + prompt / shared) >= row["train_tokens"], row["method"]
            assert one.spends.optimizer >= (row["updates"] > 0), row["method"]
            assert (one.graded > 0) == (row["train_tokens"] > 0), row["method"]


def _problems(root: Path) -> list[Any]:
    from harness import store

    return list(store.read_lines(root / "problems.jsonl"))


def test_a_vote_is_counted_by_its_completions() -> None:
    """The wide draws are for methods whose completions count one by one."""
    spec = config.load("tabular", file=None, changes={}, sets=("evaluation.problems=10",))
    sizes = Sizes(4096, 256, (10, 5), 0, "")
    assert planning.stage(spec, "grpo", Spending(), sizes).evaluation == 15 * 5 + 60 * (10 + 5) + 4 * 100
    assert planning.stage(spec, "grpo", Spending(tests=9), sizes).evaluation == 15 * 9
    assert planning.stage(spec, "base", Spending(tests=9), sizes).evaluation == 15 * (9 + 16)


def model(folder: Path, *, parameters: int) -> Path:
    folder.mkdir()
    rows = parameters // 100
    save_file({"a": np.zeros((rows, 50), np.float16), "b": np.zeros((rows, 50), np.float16)}, folder / "m.safetensors")
    return folder


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("Qwen/Qwen2.5-Math-1.5B", 1.5e9), ("meta-llama/Llama-3.2-3B-Instruct", 3e9), ("x/SmolLM2-135M", 135e6),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1.5e9), ("openai-community/gpt2", math.nan), ("x/Q4B2", math.nan),
        ("Qwen/Qwen3-30B-A3B", 30e9),
    ],
)  # fmt: skip
def test_a_name_tells_the_size(name: str, size: float) -> None:
    assert sizing.parameters(name) == pytest.approx(size, nan_ok=True)


def test_a_folder_tells_the_size(tmp_path: Path) -> None:
    folder = model(tmp_path / "Some-7B", parameters=2000)
    assert sizing.parameters(str(folder)) == 2000
    assert sizing.is_small(config.load("math", file=None, changes={"model": str(folder)}, sets=()))
    assert not sizing.is_small(config.load("math", file=None, changes={"model": "a/b"}, sets=()))
    assert sizing.is_small(config.load("math", file=None, changes={}, sets=()))


def test_hours_are_two_and_six_flops_a_parameter() -> None:
    """1.5e9 parameters, one method of N rollouts of L tokens: 2 P N L / (10 % of the peak) + 6 P N (L + prompt / G) / (40 %)."""
    spec = config.load("math", file=None, changes={"model": "x/y-1.5B", "budget": 1600}, sets=("search.samples=1",))
    pace = estimating.assumed(spec, max_tokens=1000)
    one = planning.stage(spec, "one_shot", Spending(selection=0), Sizes(1600, 0, (), 1000, ""))
    by_hand = 2 * 1.5e9 * 1600 * 1000 / 98.9e12 + 6 * 1.5e9 * 1600 * (1000 + 256 / 16) / 395.6e12
    assert planning.hours(one, spec, pace) * 3600 == pytest.approx(by_hand)
    assert "not measured" in pace.note
    assert pace.memory(gradient=False, optimizer=False) == 2 * 2 * 1.5e9
    assert pace.memory(gradient=True, optimizer=True) == 1.5e9 * (4 + 3 * 4 + 4 * 4)


def test_the_cache_of_a_known_configuration_counts(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", parameters=2000)
    sizes = {"num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 1536}
    (folder / "config.json").write_text(json.dumps(sizes))
    spec = config.load("math", file=None, changes={"model": str(folder)}, sets=("engine.shard_rollouts=128",))
    a_token = 28 * 2 * 2 * 128 * 2  # layers, keys and values, heads, width, bytes
    assert estimating.assumed(spec, max_tokens=3072).cache == a_token * 128 * (3072 + 256)


def test_an_absent_model_of_absent_data_is_planned_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    sets = ("--budget", "2048", "--set", "evaluation.wide_samples=0", "--method", "one_shot")
    result = invoke("run", "--domain", "math", "--model", "nobody/none-2B", "--benchmark", "gsm8k", "--dry-run", *sets)
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert re.search(r"one_shot │ 2048 │ 2048 │ 10300 │", told)
    assert "2.00B parameters" in told
    assert "Estimated, not measured" in told
    assert "not at hand" in told or "gsm8k" in told
    wrong = invoke("run", "--domain", "math", "--model", "nobody/none-2B", "--benchmark", "gsm9k", "--dry-run")
    assert wrong.exit_code == 2


@pytest.mark.parametrize("path", MODELS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_spec_in_benchmarks_loads(path: Path) -> None:
    spec = config.load(None, file=path, changes={}, sets=())
    assert spec.domain == path.parent.name
    assert config.to_toml(spec)
