"""What the runs of a suite share: engine calls counted from outside, costs charged in full, and nothing shared that differs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tabular_kit import BASE, problems
from tabular_run import PLAIN, small_spec

from harness import leaderboard, pipeline, plugins, provenance, sampling
from harness.config import RunSpec
from harness.leaderboard import UNCOMPARED, Row
from harness.lending import Lender, Wanted
from harness.sampling import Draw
from harness.types import Outcome, Policy, Problem, Rollout, Shard, Verdict
from harness.verifying import VerifierPool
from harness_engines.tabular import Tabular

METHODS = ("base", "base_tempered", "one_shot")


class Counting(Tabular):
    """Keeps what it is asked to sample, as an outsider sees it: (policy, temperature, seed) of every completion."""

    seen: list[tuple[str, float, int]] = []  # noqa: RUF012 - shared by the engines of one test

    def sample(self, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
        for shard in shards:
            Counting.seen += [(policy.id, r.temperature, seed) for r in shard for seed in r.seeds]
        return super().sample(shards, policy)


def run(spec: RunSpec, root: Path, *, shared: Path | None) -> tuple[list[Row], Counter[tuple[str, float, int]]]:
    """Rows of the run, and its engine's draws."""
    Counting.seen = []
    found = plugins.load({})
    entry = found.registered["engine", "tabular"]
    found.registered["engine", "tabular"] = replace(entry, target=f"{__name__}:Counting")
    if not root.exists():
        pipeline.open_folder(root, spec, command="harness run", date="now")
    rows = pipeline.execute(root, found, progress=lambda *_: None, shared=shared)
    return rows, Counter(Counting.seen)


def comparable(rows: Sequence[Row]) -> str:
    return leaderboard.to_csv([{key: value for key, value in row.items() if key not in UNCOMPARED} for row in rows])


@pytest.mark.parametrize(("shard", "again"), [(512, 64), (16, 0)])
def test_two_budgets_draw_what_they_share_once_and_are_charged_in_full(shard: int, again: int, tmp_path: Path) -> None:
    """Test and selection draws are shared. The smaller training batch is a prefix of the larger one: it is shared
    where a shard is a group, and drawn again where all of it is one shard."""
    small = (*PLAIN, "evaluation.problems=8", "search.problems=8", "search.kl_targets=[0.08]")
    few = "method.base_tempered.temperatures=[0.5]"
    specs = [
        small_spec(*small, few, f"engine.shard_rollouts={shard}", methods=METHODS, budget=budget, selection_budget=64)
        for budget in (64, 128)
    ]
    alone = [run(spec, tmp_path / f"alone-{spec.budget}", shared=None) for spec in specs]
    common = alone[0][1] & alone[1][1]
    assert sum(common.values()) >= 64 + 8 * 5 + 64, "training, test and selection draws"

    shared = tmp_path / "shared"
    rows, first = run(specs[0], tmp_path / "64", shared=shared)
    others, second = run(specs[1], tmp_path / "128", shared=shared)
    assert first == alone[0][1], "nothing to borrow yet"
    assert sum(second.values()) == sum(alone[1][1].values()) - sum(common.values()) + again
    assert sum((first & second).values()) == again
    assert comparable(rows) == comparable(alone[0][0])
    assert comparable(others) == comparable(alone[1][0]), "rollouts, tokens and verifier calls are charged all the same"


def test_borrowed_seconds_are_those_of_the_run_that_drew(tmp_path: Path) -> None:
    spec = small_spec(methods=("base",))
    first, _ = run(spec, tmp_path / "first", shared=tmp_path / "shared")
    second, drawn = run(spec, tmp_path / "second", shared=tmp_path / "shared")
    assert not drawn
    for one, other in zip(first, second, strict=True):
        assert one["wall_seconds"] == other["wall_seconds"] > 0
    for path in sorted((tmp_path / "first" / "verdicts").rglob("*.json")):
        own = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert own.stat().st_ino == path.stat().st_ino, "a second name, no second file"


@pytest.mark.parametrize(
    "changes",
    [("model=tabular:.5,.2,.05",), ("sampling.temperature=0.7",), ("engine.dtype=bfloat16",), ("seeds=1",)],
    ids=lambda sets: sets[0],
)
def test_another_model_temperature_or_dtype_shares_nothing(changes: tuple[str, ...], tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    base = (*PLAIN, "evaluation.problems=20")
    run(small_spec(*base, methods=("base",)), tmp_path / "one", shared=shared)
    spec = small_spec(*base, *changes, methods=("base",))
    _, drawn = run(spec, tmp_path / "two", shared=shared)
    sampled = [draw for draw in drawn if draw[1] > 0]
    assert len(sampled) == (0 if changes == ("seeds=1",) else 20 * 4)


@pytest.mark.parametrize("part", ["revision", "verifier", "package", "checkout"])
def test_another_revision_verifier_or_code_is_another_draw(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, found = small_spec(), plugins.load({})
    registration, identity = found.lookup("domain", "tabular"), {"revision": "a"}
    engine = SimpleNamespace(identity=lambda: identity)
    domain = registration.load()()
    before = provenance.of_draws(spec, engine, registration, domain)  # type: ignore[arg-type]
    assert provenance.of_draws(spec, engine, registration, domain) == before  # type: ignore[arg-type]
    if part == "revision":
        identity["revision"] = "b"
    elif part == "verifier":
        domain.version = 2
    elif part == "package":
        monkeypatch.setattr(provenance, "versions", lambda: {"torch": "0"})
    else:
        monkeypatch.setattr(provenance, "_checkout", lambda: ["another diff"])
    assert provenance.of_draws(spec, engine, registration, domain) != before  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool("harness_engines.tabular_domain:Tabular") as found:
        yield found


def collect(root: Path, pool: Any, lender: Lender, items: Sequence[Problem], *, samples: int) -> int:
    """Collect one draw; how many completions were sampled for it."""
    Counting.seen = []
    engine = Counting("tabular", root, {"shard_rollouts": 64})
    draw = Draw(purpose="train/0", policy=BASE, temperature=1.0, samples=samples, max_tokens=4)
    ((batch, _),) = sampling.collect(
        [draw], items, run_seed=0, engine=engine, pool=pool, progress=lambda *_: None, lender=lender
    )
    assert sum(len(batch.group(problem.id)) for problem in items) == samples * len(items)
    return len(Counting.seen)


def test_a_prefix_is_shared_where_whole_shards_are_equal(tmp_path: Path, pool: VerifierPool) -> None:
    """128 samples of one problem are the first two shards of 512 samples; two problems are no whole shard of five."""
    lender, (one, *_) = Lender(tmp_path / "shared", "x"), problems((1,))
    assert collect(tmp_path / "a", pool, lender, [one], samples=128) == 128
    assert collect(tmp_path / "b", pool, lender, [one], samples=512) == 512 - 128
    few, many = problems((1, 2)), problems((1, 2, 3, 4, 5))
    assert collect(tmp_path / "c", pool, lender, few, samples=16) == 32
    assert collect(tmp_path / "d", pool, lender, many, samples=16) == 80, "other shards are drawn, whatever they share"


def test_the_answer_is_part_of_what_is_shared(tmp_path: Path, pool: VerifierPool) -> None:
    """Equal ids and prompts with another answer or format: other verdicts."""
    lender, items = Lender(tmp_path / "shared", "x"), problems((1, 2))
    assert collect(tmp_path / "a", pool, lender, items, samples=4) == 8
    assert collect(tmp_path / "b", pool, lender, items, samples=4) == 0
    for number, change in enumerate(({"answer": "A9"}, {"meta": {"answer_format": "lenient"}})):
        changed: Any = change
        others = [replace(problem, **changed) for problem in items]
        assert collect(tmp_path / str(number), pool, lender, others, samples=4) == 8


class Failing:
    """A pool whose first verdict is an error."""

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        return [Verdict(outcome=Outcome.WRONG if index else Outcome.ERROR) for index in range(len(items))]


def test_the_errors_of_a_verifier_are_not_lent(tmp_path: Path, pool: VerifierPool) -> None:
    lender, items = Lender(tmp_path / "shared", "x"), problems((1, 2))
    assert collect(tmp_path / "a", Failing(), lender, items, samples=4) == 8
    assert collect(tmp_path / "b", pool, lender, items, samples=4) == 8
    assert collect(tmp_path / "c", pool, lender, items, samples=4) == 0


def wanted(root: Path) -> Wanted:
    return Wanted(["a shard"], root / "rollouts" / "0", root / "verdicts" / "0")


def test_half_a_shard_is_none(tmp_path: Path) -> None:
    """A run killed between the two files of a shard has lent nothing."""
    lender, own = Lender(tmp_path / "shared", "x"), wanted(tmp_path / "a")
    for path in own[1:]:
        path.parent.mkdir(parents=True)
        path.write_text(path.parent.name)
    lender.lend(own)
    (verdicts,) = (tmp_path / "shared").glob("*.json")
    verdicts.unlink()
    other = wanted(tmp_path / "b")
    with lender.borrowed([other]):
        assert not other.verdicts.exists()
    lender.lend(own)
    with lender.borrowed([other]):
        assert (other.rollouts.read_text(), other.verdicts.read_text()) == ("rollouts", "verdicts")


def test_a_disk_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    lender, own, other = Lender(tmp_path / "shared", "x"), wanted(tmp_path / "a"), wanted(tmp_path / "b")
    for path in own[1:]:
        path.parent.mkdir(parents=True)
        path.write_text(path.parent.name)
    lender.lend(own)
    with lender.borrowed([other]):
        assert other.verdicts.read_text() == "verdicts"
        assert other.verdicts.stat().st_ino != own.verdicts.stat().st_ino


HOLD = """
import sys, time
from pathlib import Path
from harness.lending import Lender, Wanted
root = Path(sys.argv[1])
lender, own = Lender(root / "shared", "x"), Wanted(["a shard"], root / "a/rollouts", root / "a/verdicts")
with lender.borrowed([own]):
    print("holding", flush=True)
    time.sleep(float(sys.argv[2]))
    (root / "a").mkdir()
    own.rollouts.write_text("r")
    own.verdicts.write_text("v")
    lender.lend(own)
"""


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_waits_for_the_one_that_draws_and_not_for_a_dead_one(dies: bool, tmp_path: Path) -> None:
    seconds = "60" if dies else "1"
    line = [sys.executable, "-c", HOLD, str(tmp_path), seconds]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"
        started = time.monotonic()
        if dies:
            other.kill()
        own = wanted(tmp_path / "b")
        with Lender(tmp_path / "shared", "x").borrowed([own]):
            assert own.verdicts.exists() != dies
        assert time.monotonic() - started < 30
