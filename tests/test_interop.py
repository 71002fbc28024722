"""What goes out and how another harness sees it: an exported winner in plain transformers, and lm-eval on a run.

One small run on the embedded model serves all tests. Where lm-eval is not installed, the tests of `harness eval` have it
replaced by ten lines that generate with the model it is lent.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file
from tabular_run import PLAIN, REPOSITORY, execute, invoke, small_spec, temporary
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from harness import appraising, config, leaderboard, lmeval, store
from harness.contracts import Loaded
from harness.errors import UsageError
from harness.lmeval import Answers, Asking, Examiner
from harness.report import drawn, results
from harness.types import Move, Policy, Score
from harness_engines import steering
from harness_engines.hf import HfEngine
from harness_math.domain import Math

TASK = REPOSITORY / "tests/lm_eval_tasks/ladder.yaml"
PROBLEMS = [json.loads(line) for line in TASK.with_suffix(".jsonl").read_text().splitlines()]
ARC = REPOSITORY / "benchmarks/lm_eval_tasks"
needs_lm_eval = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs lm-eval")
MAX_TOKENS = 128


@functools.cache
def small() -> Path:
    """A run of one_shot on the embedded model that is tested on PROBLEMS; not to be changed."""
    sets = (*PLAIN, "evaluation.problems=20", "evaluation.samples=1", "search.kl_targets=[0.1]")
    changes = {"methods": ("one_shot",), "budget": 512, "selection_budget": 128, "workers": 1}
    root, _ = execute(config.load("math", file=None, changes=changes, sets=sets), temporary())
    return root


@functools.cache
def exported() -> Path:
    target = temporary() / "winner"
    result = invoke("export", str(small()), str(target), "--method", "one_shot")
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    shutil.copytree(small(), tmp_path / small().name)
    return tmp_path / small().name


def row_of(root: Path, method: str, *, engine: str = "hf") -> dict[str, Any]:
    (row,) = [
        r
        for r in leaderboard.of_engine(root / "leaderboard.csv", engine)
        if (r["method"], r["seed"]) == (method, "all")
    ]
    return row


def greedy(model: Any, tokenizer: Any) -> dict[str, str]:
    """What plain transformers answers, by problem."""
    prompts = tokenizer([problem["prompt"] for problem in PROBLEMS], return_tensors="pt", padding=True)
    told = model.generate(**prompts, do_sample=False, max_new_tokens=MAX_TOKENS)[:, prompts["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(told, skip_special_tokens=True)
    return {problem["id"]: text for problem, text in zip(PROBLEMS, texts, strict=True)}


def said(method: str) -> dict[str, str]:
    """What the policy answered greedily in the run."""
    found = results.load(small())
    (folder,) = drawn.folders(found, method, 0, found.tests["ladder"], greedy=True)
    return {one.judged.problem_id: one.text for one in drawn.completions(small(), folder)}


def test_an_exported_winner_answers_in_plain_transformers_as_in_the_run() -> None:
    answers = greedy(AutoModelForCausalLM.from_pretrained(exported()), AutoTokenizer.from_pretrained(exported()))
    assert answers == said("one_shot")
    assert answers != said("base"), "the winner is the base: nothing is shown"


def test_an_export_holds_all_that_a_loader_wants() -> None:
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        path.name for path in exported().iterdir()
    }
    assert GenerationConfig.from_pretrained(exported()).eos_token_id == 0
    assert [path.name for path in exported().parent.iterdir()] == ["winner"], "nothing unfinished is left beside it"


def test_the_model_card_says_where_the_policy_comes_from() -> None:
    card = (exported() / "README.md").read_text()
    row, manifest = row_of(small(), "one_shot"), store.read_json(small() / "manifest.json")
    _, front, text = card.split("---\n", maxsplit=2)
    assert front.splitlines() == ["library_name: transformers", "tags: [oneshot-harness, rlvr]"]
    for fact in (small().name, manifest["spec_hash"], f"one_shot (version {row['method_version']}), seed 0", row["step"],
                 f"KL(base, policy) {row['kl']}", row["command"], "512 to train"):  # fmt: skip
        assert fact in text
    scores = f"{float(row['pass@1']):.3f} ({float(row['base_pass@1']):.3f}) | {float(row['greedy']):.3f}"
    assert f"| ladder | 20 x 1 | {float(row['delta']):+.3f}" in text
    assert scores in text


def test_a_hub_id_is_named_as_the_base_model(root: Path) -> None:
    path = root / "leaderboard.csv"
    store.write_text(path, path.read_text().replace(",tiny,", ",Qwen/Qwen2.5-Math-1.5B,"))
    invoke("export", str(root), str(root / "winner"), "--method", "base")
    assert "base_model: Qwen/Qwen2.5-Math-1.5B\n" in (root / "winner/README.md").read_text()
    assert "| step |" not in (root / "winner/README.md").read_text()


def test_a_failed_export_leaves_nothing(root: Path) -> None:
    store.write_text(root / "leaderboard.csv", "")
    with pytest.raises(IndexError):
        invoke("export", str(root), str(root / "winner"), "--method", "one_shot")
    assert not list(root.glob("*winner*"))


def test_the_tasks_problems_are_the_ladders() -> None:
    made = Math().problems("ladder", "test", seed=0, limit=20)
    assert [{"id": p.id, "prompt": p.prompt, "answer": p.answer} for p in made] == PROBLEMS


class Stand:
    """In the place of Examiner: the same task, without lm-eval. Equal weights are asked once in all tests."""

    name = "lm-eval stand-in"
    told: ClassVar[dict[tuple[float, ...], list[str]]] = {}

    def __init__(self, asking: Asking) -> None:
        assert asking == Asking([str(TASK)], 0, 32)

    def examine(self, loaded: Loaded) -> dict[str, Answers]:
        weights = tuple(float(parameter.double().sum()) for parameter in loaded.model.parameters())
        if weights not in self.told:
            self.told[weights] = list(greedy(*loaded).values())
        told = [re.findall(r"\\boxed\{(-?\d+)\}", text) for text in self.told[weights]]
        right = tuple(int(bool(t) and t[-1] == p["answer"]) for t, p in zip(told, PROBLEMS, strict=True))
        ids, nan = tuple(map(str, range(len(right)))), float("nan")
        score = Score(problem_ids=ids, n=(1,) * len(right), correct=right, correct_free=right, format=nan, truncated=nan,
                      unparsed=nan, timeouts=nan, errors=0)  # fmt: skip
        return {"ladder_math": Answers(score, "exact_match,boxed", "d", True, {})}


@pytest.fixture(params=["stand-in", pytest.param("lm-eval", marks=needs_lm_eval)])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who answers, as the column `engine` names it."""
    if request.param == "lm-eval":
        return "lm-eval 0.4.13"
    monkeypatch.setattr(appraising, "Examiner", Stand)
    return Stand.name


def ask(target: Path | str, *more: str) -> Any:
    return invoke("eval", str(target), "--tasks", str(TASK), "--offline", *more)


def test_rows_of_an_evaluated_run(root: Path, engine: str) -> None:
    before = (root / "leaderboard.csv").read_text()
    result = ask(root)
    assert result.exit_code == 0, result.output
    assert (root / "leaderboard.csv").read_text().startswith(before)
    rows = leaderboard.of_engine(root / "leaderboard.csv", engine)
    assert [(r["method"], r["seed"]) for r in rows] == [(m, s) for m in ("base", "one_shot") for s in ("0", "all")]
    for method in ("base", "one_shot"):
        ours, theirs = row_of(root, method), row_of(root, method, engine=engine)
        assert theirs["test_benchmark"] == "ladder_math"
        assert theirs["pass@1"] == theirs["greedy"] == ours["greedy"], "the same problems, the same greedy answers"
        assert theirs["base_pass@1"] == ours["base_greedy"]
        assert (theirs["test_problems"], theirs["test_samples"], theirs["temperature"]) == ("20", "1", "0.0")
        for same in ("run_id", "model_revision", "train_rollouts", "step", "kl", "direction", "snr"):
            assert theirs[same] == ours[same], same
        for empty in (
            "format",
            "truncated",
            "unparsed",
            "errors",
            "eval_rollouts",
            "gen_tokens",
            "wall_seconds",
            "pass@4",
        ):
            assert theirs[empty] == "", empty
    won = row_of(root, "one_shot", engine=engine)
    assert won["status"] == "ok (too few)"
    assert float(won["delta"]) == pytest.approx(float(won["pass@1"]) - float(won["base_pass@1"]))
    assert float(won["ci_low"]) < float(won["delta"]) < float(won["ci_high"])
    assert won["data_hash"] != row_of(root, "one_shot")["data_hash"]
    kept = json.loads((root / "lm-eval/ladder_math-one_shot-0.json").read_text())
    assert sum(kept["score"]["correct"]) == round(20 * float(won["pass@1"]))


def test_the_exported_winner_gets_the_row_of_the_policy_in_memory(root: Path, engine: str, tmp_path: Path) -> None:
    ask(root, "--method", "one_shot")
    result = ask(exported(), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    (folder,) = (tmp_path / "out").iterdir()
    there, here = row_of(folder, "base", engine=engine), row_of(root, "one_shot", engine=engine)
    for same in ("pass@1", "greedy", "data_hash", "test_problems"):
        assert there[same] == here[same], same
    assert (there["domain"], there["model"]) == ("lm-eval", str(exported()))
    assert there["model_revision"] != here["model_revision"]


def test_a_run_does_not_lose_or_read_the_rows_of_others(root: Path, engine: str, tmp_path: Path) -> None:
    ask(root)
    with_theirs = (root / "leaderboard.csv").read_text()
    result = invoke("resume", str(root), "--quiet")
    assert result.exit_code == 0, result.output
    assert (root / "leaderboard.csv").read_text() == with_theirs
    assert "ladder_math" not in (root / "report.html").read_text()
    ask(root)
    assert (root / "leaderboard.csv").read_text().count("ladder_math") == with_theirs.count("ladder_math")
    assert invoke("leaderboard", str(root), "--into", str(tmp_path / "all")).exit_code == 0
    merged = leaderboard.read_csv(tmp_path / "all/math.csv")
    assert {(r["engine"], r["test_benchmark"]) for r in merged} == {("hf", "ladder"), (engine, "ladder_math")}


def test_methods_of_which_nothing_can_be_asked_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vote, and words before the prompt: lm-eval asks a model."""
    monkeypatch.setattr(appraising, "Examiner", Stand)
    path = root / "methods/one_shot/0/scores.json"
    done = json.loads(path.read_text())
    for change, reason in ({"combine": "vote"}, "several completions"), ({"prefix": "Q: "}, "words of its own"):
        store.write_text(path, json.dumps({**done, "contender": {**done["contender"], **change}}))
        result = ask(root)
        assert "one_shot is left out: " in result.stderr
        assert reason in result.stderr
        assert [r["method"] for r in leaderboard.of_engine(root / "leaderboard.csv", Stand.name)] == ["base", "base"]


def test_a_steered_policy_is_not_lent(tmp_path: Path) -> None:
    """Its vectors are added to hidden states: a model of plain weights would answer otherwise."""
    options = {**config.to_dict(config.load("math", file=None, changes={}, sets=()))["engine"], "workers": 1}
    engine = HfEngine("tiny", tmp_path, options)
    save_file({steering.name_of(0): torch.ones(128)}, tmp_path / "vector.safetensors")
    move = Move(kind="direction", path="vector.safetensors", digest=store.digest(tmp_path / "vector.safetensors"))
    with pytest.raises(UsageError, match="lending a steered policy is impossible"):
        engine.transformers(Policy(base="tiny", moves=(move,)))


def test_mistakes_are_said(monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(appraising, "Examiner", Stand)
    tabular, _ = execute(small_spec(*PLAIN, methods=("base",)), tmp_path)
    for arguments, words in (
        ((str(tabular),), "engine tabular holds no transformers model"),
        ((str(root), "--method", "oneshot"), 'did you mean "one_shot"'),
        (("tiny", "--method", "one_shot"), "tiny is none (no spec.toml)"),
        ((str(root / "nowhere"),), "no such folder"),
    ):
        result = ask(*arguments)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
    (root / "leaderboard.csv").unlink()
    assert f"harness resume {root}" in ask(root).stderr


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = ask(small())
    assert result.exit_code == 2
    assert "pip install 'oneshot-harness[lm-eval]'" in result.stderr


def test_data_files_lie_beside_the_task_or_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    place: Callable[[Any], Any] = lambda files: lmeval._placed(files, TASK.parent)  # noqa: E731
    assert place({"test": ["ladder.jsonl"]}) == {"test": [str(TASK.with_suffix(".jsonl"))]}
    with pytest.raises(UsageError, match=r"data file other\.jsonl is not beside its task.*HARNESS_DATA is not set"):
        place("other.jsonl")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    (tmp_path / "other.jsonl").touch()
    assert place("other.jsonl") == str(tmp_path / "other.jsonl")
    with pytest.raises(UsageError, match="nor in the folder that HARNESS_DATA names"):
        place("none.jsonl")


@needs_lm_eval
@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([str(TASK), "arc_esay"], 'lm-eval has no task "arc_esay" (near: arc_easy'),
        (["none.yaml"], "there is no task file none.yaml"),
    ],
)
def test_an_unknown_task_is_said(tasks: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        Examiner(Asking(tasks))._tasks()


@needs_lm_eval
def test_a_metric_that_is_not_right_or_wrong_makes_no_row() -> None:
    sample = {"doc_id": 0, "filter": "none", "metrics": ["bleu"], "bleu": 0.4}
    with pytest.raises(UsageError, match="its metric bleu is not right or wrong for every problem"):
        lmeval._answers("t", [sample], {"output_type": "generate_until"}, {})


@needs_lm_eval
@pytest.mark.parametrize("name", ["challenge", "easy"])
def test_ai2_arc_from_a_file_asks_what_lm_evals_own_task_asks(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's rows hold {text, label} and a label, the file's texts and an index: questions, choices and golds agree."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    texts = ["the Moon", 'it\'s "Mars"', "the Sun"]
    row = {"question": "Which of these is a planet?", "choices": texts, "answer_index": 1}
    hub = {
        "id": "x",
        "question": row["question"],
        "choices": {"text": texts, "label": ["A", "B", "C"]},
        "answerKey": "B",
    }
    (tmp_path / "ai2_arc").mkdir()
    (tmp_path / f"ai2_arc/arc_{name}_test.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "hub.jsonl").write_text(json.dumps(hub) + "\n")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (ours,) = Examiner(Asking([str(ARC / f"arc_{name}.yaml")]))._tasks()
    path = Path(sys.modules["lm_eval.tasks"].__file__ or "").parent / f"arc/arc_{name}.yaml"
    published = load_yaml(path)
    assert published["dataset_name"] == f"ARC-{name.capitalize()}"
    published.update(
        dataset_path="json", dataset_name=None, dataset_kwargs={"data_files": {"test": str(tmp_path / "hub.jsonl")}}
    )
    for split in ("training_split", "validation_split", "tag"):
        published.pop(split, None)
    theirs = ConfigurableTask(config=published)
    ((a,), (b,)) = ([*ours.test_docs()], [*theirs.test_docs()])
    for part in ("doc_to_text", "doc_to_choice", "doc_to_target"):
        assert getattr(ours, part)(a) == getattr(theirs, part)(b), part
    assert [metric["metric"] for metric in ours.config.metric_list] == ["acc", "acc_norm"]
    assert ours.config.output_type == theirs.config.output_type == "multiple_choice"
