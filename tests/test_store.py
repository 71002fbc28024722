"""The run folder: whole-or-absent files, records that come back equal, a journal that replays or refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import evaluating, pipeline, sampling, store, types
from harness.budget import Cost
from harness.errors import HarnessError
from harness.types import Candidate, Contender, Direction, Move, Outcome, Policy, Problem, Score, Search, Verdict

MOVE = Move(kind="direction", path="a/b.safetensors", digest="0f", step=0.1 + 0.2)
POLICY = Policy(base="tiny", moves=(MOVE, Move(kind="checkpoint", path="c", digest="1e")))
SCORE = Score(
    problem_ids=("p", "q"), n=(4, 0), correct=(1, 0), correct_free=(2, 0), format=0.5, truncated=0.0, unparsed=0.25,
    timeouts=0.0, errors=4,
)  # fmt: skip
CANDIDATE = Candidate(policy=POLICY, step=1.5, relative_step=1e-3, score=SCORE, kl=0.08, entropy=None, kl_target=0.08)
DIRECTION = Direction(id="d", kind="raw", norm=1.0, weight_norm=2.0, path="p", digest="e", snr=-0.5, logprob_gap=1e-6)
VERDICT = Verdict(outcome=Outcome.TIMEOUT, extracted="½", format_ok=True, detail="line\nbreak", seconds=0.1)
CONTENDER = Contender(policies=(POLICY, Policy(base="tiny")), temperature=0.0, n=16, combine="vote", prefix="Q: ")
DRAW = sampling.Draw(purpose="train/0", policy=POLICY, temperature=1.0, samples=4, max_tokens=8)
JUDGED = sampling.Judged(problem_id="p", sample_idx=3, verdict=VERDICT, free=VERDICT, truncated=True, tokens=7)
EVALUATION = evaluating.Evaluation(sampled=SCORE, greedy=SCORE, wide=None)
SEARCH = Search(candidates=(CANDIDATE, CANDIDATE), chosen=0, best=1)
TRAIN_STEP = types.TrainStep(policy=POLICY, pass_rate=0.5, groups_dead=1, mean_tokens=3.5, loss=-0.25, grad_norm=2.0)
EXAMPLES: list[Any] = [
    Problem(id="p", prompt="1 + 1", answer=[1, {"x": None}], level=2, subject="s", meta={"answer_format": "strict"}),
    VERDICT, MOVE, POLICY, CONTENDER, DIRECTION, SCORE, CANDIDATE, SEARCH, DRAW, JUDGED, EVALUATION,
    types.SampleRequest(problem_id="p", prompt="x", sample_idxs=(0, 1), seeds=(2**62, 1), temperature=1.0, max_tokens=4),
    sampling.JudgedShard(judged=(JUDGED, JUDGED), cost={"wall_seconds": 0.5}),
    sampling.RolloutBatch(root="", folder="0/x", problem_ids=("p",), shards=(("p",), ()), temperature=1.0, samples=4),
    pipeline.Tested(evaluation=EVALUATION, cost={"wall_seconds": 0.5}),
    pipeline.Finished(
        status="ok", contender=CONTENDER, search=SEARCH, direction=DIRECTION, cost=Cost(updates=1)._asdict(),
        tests={"ladder": pipeline.Tested(evaluation=EVALUATION, cost={})}, trained=(TRAIN_STEP,),
    ),
    TRAIN_STEP,
]  # fmt: skip


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_record_survives_json(value: Any, tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", value)
    back = store.read_json(tmp_path / "x.json")
    if isinstance(value, Problem):
        value = dataclasses.replace(value, answer=_tuples(value.answer))
    assert back == value
    assert type(back) is type(value)


def test_enums_come_back_as_enums(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", JUDGED)
    assert store.read_json(tmp_path / "x.json").verdict.outcome is Outcome.TIMEOUT


def test_every_record_has_an_example() -> None:
    """Rollouts hold arrays and live in shards (tests/test_sampling.py); all other records are JSON."""
    assert {type(value).__name__ for value in EXAMPLES} == set(store.RECORDS) - {"Rollout"}


def test_a_nan_share_survives(tmp_path: Path) -> None:
    store.write_json(tmp_path / "x.json", dataclasses.replace(SCORE, format=math.nan))
    assert math.isnan(store.read_json(tmp_path / "x.json").format)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.text().filter(lambda k: k != "!"), inner),
    max_leaves=8,
)


@given(JSON)
def test_plain_values_survive(value: Any) -> None:
    assert store.decode(json.loads(json.dumps(store.encode(value)))) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_fingerprint_ignores_key_order(value: dict[str, int]) -> None:
    assert store.fingerprint(value) == store.fingerprint(dict(reversed(value.items())))


def test_fingerprint_tells_values_apart() -> None:
    values: list[Any] = [
        1,
        1.5,
        "1",
        True,
        None,
        [1],
        {"a": 1},
        {"a": 2},
        POLICY,
        dataclasses.replace(POLICY, moves=()),
    ]
    assert len({store.fingerprint(value) for value in values}) == len(values)


def test_a_writer_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def writer(temporary: str) -> None:
        Path(temporary).write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write_via(tmp_path / "new/file", writer)
    assert not (tmp_path / "new/file").exists()
    assert list((tmp_path / "new").iterdir()) == [], "half-written temporary files fill the disk"


def test_a_failed_rewrite_keeps_the_old_content(tmp_path: Path) -> None:
    store.write_text(tmp_path / "file", "old")

    def writer(temporary: str) -> None:
        Path(temporary).write_text("half")
        raise OSError

    with pytest.raises(OSError):
        store.write_via(tmp_path / "file", writer)
    assert (tmp_path / "file").read_text() == "old"


def test_a_killed_writer_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import os; from pathlib import Path; from harness import store\n"
        f"store.write_via(Path({str(tmp_path / 'file')!r}), lambda t: (Path(t).write_text('half'), os._exit(9)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    assert not (tmp_path / "file").exists()


def test_lines_keep_records_and_text(tmp_path: Path) -> None:
    rows = [{"split": "test", "problem": EXAMPLES[0]}, {"text": "a\u2028b ü"}]
    store.write_lines(tmp_path / "rows.jsonl", rows)
    first, second = store.read_lines(tmp_path / "rows.jsonl")
    assert first["problem"].id == "p"
    assert second == rows[1]


def _calls(folder: Path, arguments: list[Any], seen: list[Any]) -> list[Any]:
    journal = store.Journal(folder)

    def work(argument: Any) -> tuple[Any, Cost]:
        seen.append(argument)
        return {"value": argument, "score": SCORE}, Cost(train_rollouts=3, wall_seconds=0.25)

    return [journal.call("stage", a, lambda a=a: work(a)) for a in arguments]


def test_journal_replays_results_and_costs(tmp_path: Path) -> None:
    seen: list[Any] = []
    first = _calls(tmp_path, [1, POLICY], seen)
    again = _calls(tmp_path, [1, POLICY], seen)
    assert seen == [1, POLICY]
    assert [replayed for *_, replayed in first + again] == [False, False, True, True]
    assert [call[:2] for call in again] == [call[:2] for call in first]
    assert again[0][1] == Cost(train_rollouts=3, wall_seconds=0.25)


def test_journal_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seen: list[Any] = []
    _calls(tmp_path, [1], seen)
    _calls(tmp_path, [1, 2], seen)
    assert seen == [1, 2]


def test_journal_refuses_other_arguments(tmp_path: Path) -> None:
    _calls(tmp_path, [1], [])
    with pytest.raises(HarnessError, match=r"other arguments.*Start a new run"):
        _calls(tmp_path, [2], [])


def test_journal_refuses_another_stage(tmp_path: Path) -> None:
    """A method whose stages changed order must not mix with what its old version left."""
    _calls(tmp_path, [1], [])
    with pytest.raises(HarnessError, match="Start a new run"):
        store.Journal(tmp_path).call("other", 1, lambda: (None, Cost()))


def test_an_unfinished_call_is_done_again(tmp_path: Path) -> None:
    def fail() -> tuple[Any, Cost]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.Journal(tmp_path).call("stage", 1, fail)
    seen: list[Any] = []
    _calls(tmp_path, [1], seen)
    assert seen == [1]
