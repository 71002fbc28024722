"""Verifiers that fail in every way they can: each item's verdict, the next items', and what is left running."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tabular_kit import BASE, problems
from tabular_run import temporary
from test_verifying import gone

from harness import evaluating, sampling, supervising
from harness.errors import VerifierFailure
from harness.sampling import Draw, Judged
from harness.types import Outcome, Problem, Verdict
from harness.verifying import VerifierPool, check_errors
from harness_engines.tabular import Tabular

TARGET = "failing_domains:Failing"
MEMORY = 96 << 20
ERROR, TIMEOUT, CORRECT = Outcome.ERROR, Outcome.TIMEOUT, Outcome.CORRECT
# What the verifier does: the outcome of the item and what the verdict says of it. After 20 errors there are no retries.
FAULTS: dict[str, tuple[Outcome, str]] = {
    "once raise": (CORRECT, ""),
    "once segfault": (CORRECT, ""),
    "once none": (CORRECT, ""),
    "once says error": (CORRECT, ""),
    "raise": (ERROR, "exception: KeyError: 'boo'"),
    "recurse": (ERROR, "exception: RecursionError: too deep"),
    "sys.exit": (ERROR, "exception: SystemExit: 3"),
    "interrupt": (ERROR, "exception: KeyboardInterrupt"),
    "base exception": (ERROR, "exception: Own: mine"),
    "exception without text": (ERROR, "exception: Mute"),
    "segfault": (ERROR, "death: killed by signal 11 (SIGSEGV)"),
    "abort": (ERROR, "death: killed by signal 6 (SIGABRT)"),
    "os._exit": (ERROR, "death: ended with status 0"),
    "none": (ERROR, "exception: TypeError: verify gave NoneType, not a Verdict"),
    "text": (ERROR, "exception: TypeError: verify gave str, not a Verdict"),
    "outcome": (ERROR, "exception: ValueError: 'maybe' is not a valid Outcome"),
    "extracted object": (
        ERROR,
        "exception: TypeError: a Verdict's extracted, format_ok and detail are of types function, bool, str",
    ),
    "extracted nan": (
        ERROR,
        "exception: TypeError: a Verdict's extracted, format_ok and detail are of types float, bool, str",
    ),
    "format": (
        ERROR,
        "exception: TypeError: a Verdict's extracted, format_ok and detail are of types str, NoneType, str",
    ),
    "detail": (
        ERROR,
        "exception: TypeError: a Verdict's extracted, format_ok and detail are of types str, bool, bytes",
    ),
    "garble": (ERROR, "death: something other than verdicts"),
    "forge": (ERROR, "death: something other than verdicts"),
    "pour": (ERROR, "death: something other than verdicts"),
    "close": (ERROR, "death: ended with status 1"),
    "die behind a child": (ERROR, "death: ended with status 3"),
    "says error": (ERROR, "the sandbox is gone"),
    "limit raises": (ERROR, "exception: LookupError: no limit"),
    "limit nan": (ERROR, "exception: ValueError: time_limit gave nan"),
    "limit text": (ERROR, "exception: ValueError: could not convert string to float"),
    "hang": (TIMEOUT, "time: killed after"),
    "fill": (TIMEOUT, "memory: MemoryError"),
    "long extracted": (CORRECT, ""),
    "long detail": (CORRECT, "x" * 300),
    "flood": (CORRECT, ""),
    "fork": (CORRECT, ""),
    "handlers": (CORRECT, ""),
}


def item(folder: Path, completion: str) -> tuple[Problem, str]:
    name = completion if completion.startswith("limit") else "p"
    return Problem(id=name, prompt=name, answer=str(folder)), completion


def verdicts(faults: Iterable[str], *, workers: int) -> dict[str, Verdict]:
    """Of the faults and, after each, of an item that is right."""
    folder = temporary()
    words = [word for fault in faults for word in (fault, f"right after {fault}")] + ["wrong"]
    with VerifierPool(TARGET, workers=workers, memory_limit=MEMORY) as pool:
        return dict(zip(words, pool.verify([item(folder, word) for word in words]), strict=True))


@cache
def judged() -> dict[str, Verdict]:
    return verdicts(FAULTS, workers=2)


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(TARGET, memory_limit=MEMORY) as pool:
        yield pool


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_verdict_that_says_why_and_the_next_item_is_judged(fault: str) -> None:
    outcome, detail = FAULTS[fault]
    found = judged()[fault]
    assert found.outcome is outcome
    assert found.detail.startswith(detail)
    assert judged()[f"right after {fault}"].outcome is CORRECT
    assert judged()["wrong"].outcome is Outcome.WRONG


def test_one_worker_and_two_give_the_same_verdicts() -> None:
    some = ("raise", "segfault", "none", "garble", "fork", "limit nan", "fill", "once segfault", "once says error")
    alone = verdicts(some, workers=1)
    assert [told(alone[word]) for word in alone] == [told(judged()[word]) for word in alone]


def told(v: Verdict) -> tuple[Any, ...]:
    return v.outcome, v.extracted, v.format_ok, v.detail


def test_an_answer_of_any_length_is_kept_short_and_distinct() -> None:
    found = judged()["long extracted"].extracted
    assert found is not None
    assert found.startswith("999")
    assert len(found) < 500
    assert "10000000 characters, sha256" in found


def test_a_leak_costs_workers_and_no_verdict(tmp_path: Path, pool: VerifierPool) -> None:
    """Five items fill a worker; its fresh successor takes the rest, not one worker for each item."""
    folders = [tmp_path / str(i) for i in range(24)]
    started = time.monotonic()
    found = pool.verify([item(folder, "leak") for folder in folders])
    assert {v.outcome for v in found} == {CORRECT}
    assert time.monotonic() - started < 20
    assert {v.outcome for v in pool.verify([item(folder, "right") for folder in folders])} == {CORRECT}


def test_a_daemon_ends_with_the_pool(tmp_path: Path) -> None:
    with VerifierPool(TARGET) as pool:
        assert pool.verify([item(tmp_path, "daemon")])[0].outcome is CORRECT
        pid = int((tmp_path / "daemon").read_text())
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    assert gone(pid)


def test_a_daemon_ends_with_a_worker_that_is_killed(tmp_path: Path, pool: VerifierPool) -> None:
    pool.verify([item(tmp_path, "daemon"), item(tmp_path, "hang")])
    assert gone(int((tmp_path / "daemon").read_text()))


def test_a_worker_that_dies_after_its_answer_costs_nothing(tmp_path: Path, pool: VerifierPool) -> None:
    assert pool.verify([item(tmp_path, "alarm")])[0].outcome is CORRECT
    time.sleep(0.3)
    assert [v.outcome for v in pool.verify([item(tmp_path, "right"), item(tmp_path, "wrong")])] == [CORRECT, "wrong"]


def test_a_worker_that_no_longer_reads_is_replaced(
    tmp_path: Path, pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a pipe holds is sent to it, which must not stop the pool."""
    monkeypatch.setattr(supervising, "START_SECONDS", 3.0)
    assert pool.verify([item(tmp_path, "busy thread")])[0].outcome is CORRECT
    time.sleep(0.3)
    assert pool.verify([item(tmp_path, "right" * 100_000)])[0].outcome is CORRECT


def test_the_message_gives_the_five_commonest_reasons_with_their_counts() -> None:
    details = [f"exception: KeyError: '{i}'" for i in range(30)] + [
        f"death: killed by signal {i % 2}" for i in range(9)
    ]
    details += [f"exception: {name}: x" for name in "ABCD" for _ in range(3 if name < "D" else 1)] + [""]
    with pytest.raises(VerifierFailure) as caught:
        check_errors([Verdict(outcome=ERROR, detail=detail) for detail in details])
    counted = [line.split(" x ") for line in str(caught.value).splitlines()[1:-1]]
    assert [(int(count), reason) for count, reason in counted] == [
        (30, "exception: KeyError: '0'"),
        (9, "death: killed by signal 0"),
        *((3, f"exception: {name}: x") for name in "ABC"),
    ]


class Sampler(Tabular):
    """Counts the shards that were drawn."""

    drawn = 0

    def sample(self, shards: Any, policy: Any) -> Any:
        for found in super().sample(shards, policy):
            self.drawn += 1
            yield found


def broken(items: Sequence[Any]) -> list[Verdict]:
    return [Verdict(outcome=ERROR, detail="no compiler") for _ in items]


def test_a_broken_verifier_stops_the_draw_as_soon_as_that_is_certain(tmp_path: Path) -> None:
    """Not after hours of sampling: here after 24 of 800 rollouts; and nothing of its verdicts stays."""
    engine = Sampler("tabular", tmp_path, {"shard_rollouts": 8})
    draw = Draw(purpose="train/0", policy=BASE, temperature=1.0, samples=4, max_tokens=4)
    pool: Any = SimpleNamespace(verify=broken)
    items = problems([1, 2, 3, 4, 5] * 40)
    with pytest.raises(VerifierFailure, match=r"failed on 24 of 800 .*\n +24 x no compiler"):
        sampling.collect([draw], items, run_seed=0, engine=engine, pool=pool, progress=lambda *_: None)
    assert engine.drawn == 3
    assert not list(tmp_path.rglob("verdicts/**/*.json"))


def test_a_failure_of_the_lenient_judgement_is_never_a_zero() -> None:
    """Strictly unparsed, and the verifier fails when asked again leniently: outside numerator and denominator of both."""
    unparsed, failed = Verdict(outcome=Outcome.UNPARSED), Verdict(outcome=ERROR, detail="no reader")
    right = Verdict(outcome=CORRECT, format_ok=True)
    pairs = [(right, right), (unparsed, failed), (unparsed, right)]
    entries = [
        Judged(problem_id="p", sample_idx=i, verdict=own, free=free, truncated=False, tokens=1)
        for i, (own, free) in enumerate(pairs)
    ]
    batch: Any = SimpleNamespace(judged=lambda: iter(entries))
    score = evaluating.score_of([batch], [Problem(id="p", prompt="p", answer=None)])
    assert (score.n, score.correct, score.correct_free, score.errors) == ((2,), (1,), (2,), 1)
