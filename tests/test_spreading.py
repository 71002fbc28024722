"""The parts of a run side by side: when it pays, the same rows as in one process, and how a failure ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tabular_run import small_spec

from harness import completing, launching, lending, pipeline, plugins, spreading
from harness.errors import HarnessError, UsageError
from harness.leaderboard import UNCOMPARED, read_csv

METHODS = ("one_shot", "random_direction", "grpo")  # the first two want the same batch, gradient and selection draws
SMALL = ("evaluation.problems=20", "evaluation.bin_samples=0", "search.problems=16", "method.grpo.steps=4")


def silent(*_: object) -> None:
    pass


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Small runs are spread too; how many processes each had."""
    started: list[int] = []
    spread = launching.side_by_side

    def side_by_side(tasks: list[launching.Task], **how: Any) -> None:
        started.append(len(tasks))
        spread(tasks, **how)

    monkeypatch.setattr(launching, "side_by_side", side_by_side)
    monkeypatch.setattr(spreading, "ROLLOUTS", 1)
    return started


def completed(out: Path, *, workers: int, sets: tuple[str, ...] = SMALL, **changes: Any) -> Path:
    spec = small_spec(*sets, methods=METHODS, workers=workers, budget=128, **changes)
    root = pipeline.create(spec, out=out, command="harness run")
    completing.complete(root, plugins.load(), progress=silent, workers=workers)
    return root


def rows(root: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in UNCOMPARED} for row in read_csv(root / "leaderboard.csv")]


def stages(root: Path) -> list[tuple[str, ...]]:
    events = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    return sorted((event["method"], event["stage"]) for event in events)


def test_parts_side_by_side_give_the_rows_of_one_process(tmp_path: Path, counted: list[int]) -> None:
    alone, together = (completed(tmp_path / str(workers), workers=workers) for workers in (1, 2))
    assert counted == [2]
    assert rows(together) == rows(alone)
    assert stages(together) == stages(alone), "what parts tell is in the run's events"
    assert not (together / lending.SHARED).exists()
    shards, drawn = (sorted(p.relative_to(root) for p in root.glob("rollouts/*/*/*")) for root in (alone, together))
    assert shards == drawn


def test_a_part_that_fails_ends_the_run_with_its_message(tmp_path: Path, counted: list[int]) -> None:
    with pytest.raises(UsageError, match='one_shot needs an engine with "linear"'):
        completed(tmp_path, workers=2, sets=(*SMALL, "method.one_shot.direction=lora4"))
    assert counted == [2]


def test_what_is_finished_is_not_spread_again(tmp_path: Path, counted: list[int]) -> None:
    root = completed(tmp_path, workers=2)
    before = rows(root)
    (root / "methods/grpo/0/scores.json").unlink()
    completing.complete(root, plugins.load(), progress=silent, workers=2)
    assert counted == [2], "one part that is left takes all workers"
    assert rows(root) == before


@pytest.mark.parametrize(
    ("changes", "parts", "processes"),
    [
        ({"workers": 2}, 10, 2),
        ({"workers": 16}, 10, 5),
        ({"workers": 1}, 10, 1),
        ({"workers": 2}, 3, 1),
        ({"workers": 2, "budget": 64}, 10, 0),
        ({"workers": 2, "model": "org/large-7B"}, 10, 1),
    ],
)
def test_processes_are_as_many_as_pay(changes: dict[str, Any], parts: int, processes: int) -> None:
    class Engine:
        def identity(self) -> dict[str, str]:
            return {"revision": "x"}

    class Run:
        spec = small_spec(**{"budget": 8192, **changes})
        engine = Engine()

    found = plugins.load()
    assert spreading.processes(Run(), found, parts=parts) == processes  # type: ignore[arg-type]
    Run.engine.identity = lambda: {"device": "a GPU"}  # type: ignore[method-assign]
    assert spreading.processes(Run(), found, parts=parts) <= 1  # type: ignore[arg-type]


def test_every_number_of_a_queue_is_taken_once() -> None:
    with launching.queue_of([7, 300, 0]) as queue:
        first = launching.taken(queue)
        assert next(first) == 7
        assert list(launching.taken(queue)) == [300, 0]
        assert list(first) == []


def test_a_process_that_dies_is_no_finished_part() -> None:
    with pytest.raises(HarnessError, match="signal 9"):
        spreading._end(launching.Task("", Path()), 0.0, launching.Failure("its process was killed by signal 9", False))
