"""Tasks for workers that can be lost, without Ray: order, loss and preference; what travels, and that it is enough."""

from __future__ import annotations

import pickle
import warnings
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness import seeds, store
from harness.errors import HarnessError
from harness.objectives import PolicyGradient
from harness.testing.engine_subject import FixedBatch
from harness.types import Finish, Move, Policy, Problem, Rollout, SampleRequest, Shard, WeightedGroup
from harness_engines.hf import HfEngine
from harness_engines.hosting import KEPT_FILES, Answer, Facts, Host, Kept, Portion, facts, key_of
from harness_engines.judges import CHUNK, Judge, Judges
from harness_engines.pooling import LOOK_AHEAD, QUEUED, Lost, Pool
from harness_engines.sending import Errand, Reduction, Sender

BASE = Policy(base="random")
PROMPTS = ("2+2=", "x", "Name a colour: ", "def f(a):\n    ")


class Ticket(NamedTuple):
    worker: Hashable
    number: int


class FakeCrew:
    """Answers `work(worker, message)`; the workers take turns. `lives` says how many answers a worker has in it."""

    def __init__(self, work: Any, lives: Mapping[Hashable, int] | None = None) -> None:
        self.work, self.lives = work, dict(lives or {})
        self.ended: list[Hashable] = []
        self.messages: dict[Ticket, Any] = {}
        self.submitted: list[Ticket] = []
        self.answered: dict[Hashable, int] = defaultdict(int)
        self.turn = 0

    def submit(self, worker: Hashable, message: Any) -> Ticket:
        ticket = Ticket(worker, len(self.submitted))
        self.submitted.append(ticket)
        self.messages[ticket] = message
        return ticket

    def wait(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        self.turn += 1
        return [tickets[self.turn % len(tickets)]]

    def result(self, ticket: Ticket) -> Any:
        message = self.messages.pop(ticket)
        if self.answered[ticket.worker] >= self.lives.get(ticket.worker, 10**9):
            raise Lost("killed")
        self.answered[ticket.worker] += 1
        return self.work(ticket.worker, message)

    def end(self, worker: Hashable) -> None:
        self.ended.append(worker)


class Number:
    """A job whose message is its number; `at` are the workers that have what it needs."""

    def __init__(self, number: int, at: Sequence[Hashable] = ()) -> None:
        self.number, self.at = number, at

    def worth(self, worker: Hashable) -> float:
        return float(worker in self.at)

    def message(self, worker: Hashable) -> int:
        return self.number

    def taken(self, worker: Hashable, answer: Any) -> Any:
        return answer


def numbers(count: int) -> list[Number]:
    return [Number(number) for number in range(count)]


def test_results_come_in_order_and_look_ahead_is_bounded() -> None:
    crew = FakeCrew(lambda worker, message: message)
    most, given = 0, 0
    for result in Pool(crew, "abc").run(numbers(50)):
        assert result == given
        given += 1
        most = max(most, len(crew.submitted) - given)
        assert max(sum(t.worker == w for t in crew.messages) for w in "abc") <= QUEUED
    assert given == 50
    assert 3 < most <= 3 * LOOK_AHEAD
    assert len(crew.submitted) == 50


def test_a_lost_worker_costs_what_it_had_not_answered() -> None:
    crew = FakeCrew(lambda worker, message: (worker, message), lives={"b": 2})
    pool = Pool(crew, "abc")
    with pytest.warns(UserWarning, match=r"a worker was lost \(killed\): 2 tasks go to the 2 that are left"):
        found = list(pool.run(numbers(20)))
    assert [number for _, number in found] == list(range(20))
    assert sum(worker == "b" for worker, _ in found) == 2
    assert len(crew.submitted) == 20 + QUEUED
    assert crew.ended == ["b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {worker for worker, _ in pool.run(numbers(9))} == {"a", "c"}


def test_no_worker_left_is_an_error_that_says_what_to_do() -> None:
    crew = FakeCrew(lambda worker, message: message, lives={"a": 3, "b": 0})
    pool, found = Pool(crew, "ab"), []
    with pytest.warns(UserWarning, match="lost"), pytest.raises(HarnessError, match=r"all 2 workers were lost.*resume"):
        found.extend(pool.run(numbers(9)))
    with pytest.raises(HarnessError, match="resume"):
        next(pool.run(numbers(1)))


def test_a_failed_task_reaches_the_caller_and_leaves_no_answer_behind() -> None:
    def work(_worker: Hashable, message: int) -> int:
        if message == 3:
            raise HarnessError("three")
        return message

    crew = FakeCrew(work)
    pool = Pool(crew, "ab")
    with pytest.raises(HarnessError, match="three"):
        list(pool.run(numbers(10)))
    loop = pool.run([Number(n) for n in range(4, 20)])
    assert next(loop) == 4
    loop.close()
    assert crew.messages, "nobody waits for what is under way before it is known that there is more to do"
    assert list(pool.run([Number(n) for n in range(4, 9)])) == [4, 5, 6, 7, 8]
    assert not crew.messages
    pool.close()
    assert crew.ended == ["a", "b"]


def test_tasks_go_where_what_they_need_lies() -> None:
    jobs = [Number(number, at="ba"[number % 2]) for number in range(8)]
    crew = FakeCrew(lambda worker, message: (worker, message))
    found = list(Pool(crew, "ab").run(jobs))
    assert all(worker == "ba"[number % 2] for worker, number in found)
    elsewhere = [Number(number, at="z") for number in range(8)]
    assert {worker for worker, _ in Pool(crew, "ab").run(elsewhere)} == {"a", "b"}


def rollout(number: int, tokens: int = 3, *, logprob: float = -0.5) -> Rollout:
    return Rollout(
        problem_id="p",
        sample_idx=number,
        policy="q",
        seed=number,
        prompt_tokens=np.array([1, 2], dtype=np.int32),
        completion_tokens=np.arange(tokens, dtype=np.int32),
        logprobs=np.full(tokens, logprob, dtype=np.float32),
        text="",
        finish=Finish.STOP,
    )


def test_kept_rollouts_are_the_last_ones() -> None:
    kept = Kept(limit=10)
    first, second = [rollout(0), rollout(1)], [rollout(2), rollout(3)]
    assert kept.add(first) == ()
    assert kept.add(second) == (key_of(first[0]),)
    assert kept.add([rollout(1)]) == ()
    assert list(kept.rollouts) == [key_of(rollout(n)) for n in (2, 3, 1)]
    assert kept.add([rollout(9, tokens=11)]) == tuple(
        key_of(r) for r in (rollout(2), rollout(3), rollout(1), rollout(9, 11))
    )
    assert key_of(rollout(0)) != key_of(rollout(0, logprob=-0.6))
    with pytest.raises(KeyError):
        Portion((WeightedGroup((key_of(rollout(0)),), np.ones(1)),), 1.0, 1.0).filled(kept.rollouts)  # type: ignore[arg-type]


OPTIONS = {"dtype": "float32", "device": "cpu", "workers": 1, "shard_rollouts": 8, "microbatch_tokens": 256,
           "trust_remote_code": False}  # fmt: skip


def shard_of(prompts: Sequence[str]) -> Shard:
    return tuple(
        SampleRequest(
            problem_id=prompt,
            prompt=prompt,
            sample_idxs=(0, 1, 2),
            seeds=tuple(seeds.seed_for(0, "pool", prompt, i) for i in range(3)),
            temperature=1.0,
            max_tokens=8,
        )
        for prompt in prompts
    )


class Far:
    """Hosts behind a fake crew: everything is pickled on its way, nothing but the model's folder is shared."""

    def __init__(self, engine: HfEngine, count: int, lives: Mapping[Hashable, int] | None = None) -> None:
        self.contents: list[bytes] = []
        self.hosts = {number: Host(engine.spec._replace(root=Path("/nowhere")), self._fetch) for number in range(count)}
        for host in self.hosts.values():
            host.open(facts(engine.spec.path))
        self.seen: list[Any] = []
        self.sender = Sender(engine.root, self._put)
        self.pool = Pool(FakeCrew(self._work, lives), list(self.hosts))

    def _put(self, content: Any) -> int:
        self.contents.append(content.tobytes())
        return len(self.contents) - 1

    def _fetch(self, reference: int) -> Any:
        return np.frombuffer(self.contents[reference], dtype=np.uint8)

    def _work(self, worker: Any, message: Any) -> Any:
        self.seen.append((worker, message))
        return pickle.loads(pickle.dumps(self.hosts[worker].do(pickle.loads(pickle.dumps(message)))))

    def travelled(self) -> list[Rollout]:
        """Rollouts that were sent to be reduced elsewhere than they were drawn."""
        portions = [message.arguments[0] for _, message in self.seen if message.name == "gradient"]
        return [r for portion in portions for group in portion.groups for r in group.rollouts if isinstance(r, Rollout)]

    def run(self, kind: type[Errand], name: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        return self.pool.run([kind(self.sender, name, task) for task in tasks])


def batch_of(rollouts: Sequence[Rollout]) -> FixedBatch:
    groups = []
    for prompt in PROMPTS:
        own = tuple(r for r in rollouts if r.problem_id == prompt)
        groups.append(WeightedGroup(own, np.array([1.0, -1.0, 0.5])[: len(own)]))
    return FixedBatch(tuple((group,) for group in groups), float(len(rollouts)))


def keys(parts: Sequence[Sequence[Rollout]]) -> list[bytes]:
    return [key_of(rollout) for part in parts for rollout in part]


def test_far_workers_do_what_near_ones_do(random_model: Path, tmp_path: Path) -> None:
    """Two hosts, one of which is lost while it samples: rollouts, scores and gradients are those of hf, bit by bit."""
    engine = HfEngine(str(random_model), tmp_path, OPTIONS)
    noise = {n: np.asarray(0.05 * np.sign(t.numpy())) for n, t in engine.local.model.base.items()}
    save_file(noise, tmp_path / "d.safetensors")
    moved = Policy(base="random", moves=(Move(kind="direction", path="d.safetensors", digest="abc", step=0.5),))
    shards = [shard_of([prompt]) for prompt in PROMPTS]
    far = Far(engine, 2)
    for policy in (BASE, moved):
        ours = list(engine.sample(shards, policy))
        theirs = list(far.run(Errand, "sample", [(shard, policy) for shard in shards]))
        assert keys(ours) == keys(theirs)
    assert len(far.contents) == 1  # the direction travels once
    rollouts = [r for part in ours for r in part]
    (scores,) = far.run(Errand, "score", [(rollouts, moved, 1.0, BASE)])
    for one, other in zip(scores, engine.score(rollouts, moved, temperature=1.0, kl_to=BASE), strict=True):
        assert one.kl_T.tobytes() == other.kl_T.tobytes()
    batch = batch_of(rollouts)
    _check_gradient(engine, far, batch, moved)
    assert far.travelled() == []

    lossy = Far(engine, 2, lives={0: 1})
    with pytest.warns(UserWarning, match="lost"):
        again = list(lossy.run(Errand, "sample", [(shard, moved) for shard in shards]))
    assert keys(again) == keys(ours)
    _check_gradient(engine, lossy, batch, moved)
    assert len(lossy.travelled()) == 3  # the group of the lost worker
    assert all(r.text == "" for r in lossy.travelled())


def _check_gradient(engine: HfEngine, far: Far, batch: FixedBatch, policy: Policy) -> None:
    tasks = [(batch, index, policy, PolicyGradient()) for index in range(batch.num_sub_batches)]
    expected = [engine.local.gradient(*task) for task in tasks]
    for one, other in zip(expected, far.run(Reduction, "gradient", tasks), strict=True):
        assert one.tokens == other.tokens
        assert one.logprob_gap == other.logprob_gap
        assert all(np.array_equal(array, other.arrays[name]) for name, array in one.arrays.items())


def test_files_of_policies_come_once_and_the_oldest_go(random_model: Path, tmp_path: Path) -> None:
    engine = HfEngine(str(random_model), tmp_path, OPTIONS)
    far = Far(engine, 1)
    for number in range(KEPT_FILES + 3):
        save_file({"nothing": np.zeros(1, dtype=np.float32) + number}, tmp_path / f"{number}.safetensors")
    digests = [store.digest(tmp_path / f"{number}.safetensors") for number in range(KEPT_FILES + 3)]
    moves = [Move(kind="checkpoint", path=f"{n}.safetensors", digest=digest) for n, digest in enumerate(digests)]
    host = far.hosts[0]
    for move in [*moves, moves[-1]]:
        message = far.sender.message("sample", (shard_of(["x"]), Policy(base="random", moves=(move,))))
        assert message.arguments[1].id == Policy(base="random", moves=(move,)).id
        host._bring(message.files)
        assert store.digest(host._root / move.digest) == move.digest
    assert len(far.contents) == len(moves)
    assert sorted(p.name for p in host._root.iterdir()) == sorted(digests[-KEPT_FILES - 1 :])
    host._bring(far.sender.message("sample", (shard_of(["x"]), Policy(base="random", moves=(moves[0],)))).files)
    assert len(far.contents) == len(moves) + 1


def test_a_worker_with_another_model_or_package_is_refused(random_model: Path, tmp_path: Path) -> None:
    engine = HfEngine(str(random_model), tmp_path, OPTIONS)
    host, here = Host(engine.spec, lambda reference: reference), facts(engine.spec.path)
    with pytest.raises(HarnessError, match=r"model differs: model.safetensors \w{12} where .* model.safetensors abc"):
        host.open(here._replace(model={**here.model, "model.safetensors": "abc"}))
    with pytest.raises(HarnessError, match=r"packages differs: torch 2\S+ where the run has torch 1.0"):
        host.open(Facts({**here.packages, "torch": "1.0"}, here.model))
    assert host.open(here) is None
    assert host.do(far_message()).value


def far_message() -> Any:
    return Sender(Path("/nowhere"), deque().append).message("sample", (shard_of(["x"]), BASE))


def test_answers_say_what_a_worker_has() -> None:
    sender, one = Sender(Path("/nowhere"), deque().append), rollout(0)
    errand = Errand(sender, "sample", ())
    assert errand.taken("a", Answer([one], (key_of(one), b"other"), (b"other",))) == [one]
    batch = FixedBatch(((WeightedGroup((one, rollout(1)), np.ones(2)),),), 2.0)
    job = Reduction(sender, "gradient", (batch, 0, BASE, PolicyGradient()))
    assert (job.worth("a"), job.worth("b")) == (3.0, 0.0)
    (group,) = job.message("a").arguments[0].groups
    assert group.rollouts[0] == key_of(one)
    assert isinstance(group.rollouts[1], Rollout)


def test_judges_say_what_one_pool_says() -> None:
    """Also when one of them is lost; a machine that isolates otherwise is refused."""
    target = "harness_ai2_arc.domain:Ai2Arc"
    problem = Problem(id="p", prompt="?", answer="B", meta={"choices": ["x", "y"]})
    items = [(problem, f"The answer is {'AB'[number % 2]}.\n#{number}") for number in range(3 * CHUNK + 5)]
    near, far = Judge(target, 1), {"a": Judge(target, 1), "b": Judge(target, 1)}
    crew = FakeCrew(lambda worker, chunk: far[worker].do(chunk), lives={"b": 1})
    judges = Judges(lambda: Pool(crew, list(far)))
    with pytest.warns(UserWarning, match="lost"):
        found = judges.verify(items)
    assert [v.outcome for v in found] == [v.outcome for v in near.do(items)]
    assert len({v.outcome for v in found}) == 2
    near.open("none needed")
    with pytest.raises(HarnessError, match='isolation "none needed", where the machine of the run has "full"'):
        near.open("full")
    judges.close()
    assert sorted(crew.ended) == ["a", "b"]
