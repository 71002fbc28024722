"""The engines `ray` and `ray-vllm`: `hf` and `vllm` whose workers are actors on the nodes of a Ray cluster, one for each CPU or GPU.

Does: join the cluster that Ray finds (RAY_ADDRESS, else one that `ray start` made on this machine), else start one here;
sample shards, score candidates, reduce sub-batches and judge completions on its actors, and give a lost actor's tasks to
others. Sub-batches come back as fp32 sums and are reduced in index order, so that a run is the one that `hf` (`vllm`) makes.
Doesn't: share folders with other nodes, replace lost actors, or train (`trainer`) anywhere but in this process.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from harness.contracts import Transfers
from harness.errors import HarnessError, UsageError
from harness.weighing import MAX_SUB_BATCHES
from harness_engines import judges
from harness_engines.hf import HfEngine
from harness_engines.hosting import DECIDING, EMBEDDED, Facts, Host, facts
from harness_engines.judges import Judge, Judges
from harness_engines.local import Local, ModelSpec
from harness_engines.plugin import VLLM
from harness_engines.pooling import Lost, Pool
from harness_engines.sending import Errand, Reduction, Sender
from harness_engines.vllm import VllmEngine

START_SECONDS = 600  # for an actor to be placed and to load the model
REDUCED = ("gradient", "hidden")  # methods of Local over a sub-batch


class RayEngine(HfEngine):
    """`options` as those of HfEngine; `workers` counts actors on all nodes. Raises UsageError where ray is missing."""

    deciding: ClassVar[tuple[str, ...]] = DECIDING  # packages that every node has in the same version

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        _library()
        super().__init__(model, root, options)
        self._wanted, self._embedded = int(options["workers"]), model == EMBEDDED
        self._cluster: Joined | None = None

    def _run(self, name: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        cluster, kind = self._joined(), Reduction if name in REDUCED else Errand
        return cluster.pool.run([kind(cluster.sender, name, task) for task in tasks])

    def verifiers(self, target: str) -> Judges:
        """See harness.contracts.Engine."""
        return Judges(lambda: self._judges(target))

    def _judges(self, target: str) -> Pool:
        crew, places, _, _ = self._joined()
        return Pool(crew, crew.judges(target, places, expected=judges.level(target)))

    def _joined(self) -> Joined:
        """The cluster, with the model loaded on its actors; joined when it is first needed."""
        if self._cluster is None:
            crew = Actors()
            with contextlib.ExitStack() as undo:
                undo.callback(crew.close)
                expected = facts(self.spec.path, self.deciding)
                places = crew.hosts(self._travelling(), self._factory, count=self._wanted, expected=expected)
                undo.pop_all()
            self._cluster = Joined(crew, places, Pool(crew, list(places)), Sender(self.root, crew.put))
        return self._cluster

    def _travelling(self) -> ModelSpec:
        """The spec as it makes sense elsewhere. An actor sees its own GPU only."""
        path = Path(self.spec.path)
        name = EMBEDDED if self._embedded else str(path.resolve()) if path.is_dir() else self.spec.path
        return self.spec._replace(path=name, device=self.spec.device.partition(":")[0])

    @staticmethod
    def transfers(parameters: float) -> Transfers:
        """See harness.contracts.Engine. A drawn token is its number, log-probability, entropy and about 4 bytes of text."""
        numbers = 4 * parameters
        return Transfers(
            gradient=MAX_SUB_BATCHES * numbers, policy=numbers, drawn=16.0, weighed=8.0, sharing=MAX_SUB_BATCHES
        )

    def close(self) -> None:
        if self._cluster is not None:
            self._cluster.pool.close()
            self._cluster.crew.close()
            self._cluster = None
        super().close()


class RayVllmEngine(RayEngine, VllmEngine):
    """Its actors draw through vLLM, one in each. `options` as those of RayEngine and VllmEngine."""

    deciding = (*DECIDING, *VLLM)


class Actors:
    """Actors of a Ray cluster; implements harness_engines.pooling.Crew. The cluster is left to whoever started it."""

    def __init__(self) -> None:
        self._ray = _library()
        self._own = not self._ray.is_initialized()
        if self._own:
            self._join()

    def _join(self) -> None:
        try:
            self._ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
        except (self._ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
            raise HarnessError(
                f"no Ray cluster could be joined or started: {str(error).strip().partition(chr(10))[0]}. It is the one of "
                "RAY_ADDRESS, else the last one that `ray start` made on this machine; every process needs the same "
                "RAY_AUTH_MODE and token (docs/ray.md)."
            ) from error

    def hosts(
        self, spec: ModelSpec, factory: Callable[[ModelSpec], Local], *, count: int, expected: Facts
    ) -> dict[Hashable, str]:
        """At most `count`, and one for each CPU or GPU of the cluster, with the ids of their nodes.

        Raises HarnessError where there is none, or where one is not like the driver.
        """
        gpus = int(spec.device == "cuda")
        there = int(self._ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
        made = self._ray.remote(Placed).options(num_cpus=1, num_gpus=gpus, scheduling_strategy="SPREAD")
        workers = self._opened([made.remote(spec, fetch, factory) for _ in range(min(count, there))], expected)
        return dict(zip(workers, self._ray.get([worker.place.remote() for worker in workers]), strict=True))

    def judges(self, target: str, places: Mapping[Hashable, str], *, expected: str) -> list[Hashable]:
        """One on each node that has hosts, with as many processes as it has hosts. Raises HarnessError as `hosts`."""
        at = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        made = [
            self._ray.remote(Judge)
            .options(num_cpus=0, scheduling_strategy=at(node_id=node, soft=False))
            .remote(target, count)
            for node, count in Counter(places.values()).items()
        ]
        return self._opened(made, expected)

    def _opened(self, workers: Sequence[Any], expected: Any) -> list[Any]:
        """Those that are ready in time; the others are ended. Raises HarnessError where none is."""
        tickets = {worker.open.remote(expected): worker for worker in workers}
        done = self._ray.wait(list(tickets), num_returns=len(tickets), timeout=START_SECONDS)[0] if tickets else []
        ready = [worker for ticket, worker in tickets.items() if ticket in done and self._answered(ticket)]
        for worker in workers:
            if worker not in ready:
                self.end(worker)
        if not ready:
            raise HarnessError(
                f"none of {len(workers)} Ray actors started within {START_SECONDS} s. The cluster may have no CPU (or GPU) "
                "that is free: `ray status` says who uses them."
            )
        return ready

    def _answered(self, ticket: Any) -> bool:
        try:
            self.result(ticket)
        except Lost:
            return False
        return True

    def put(self, content: Any) -> Any:
        return self._ray.put(content)

    def submit(self, worker: Any, message: Any) -> Any:
        return worker.do.remote(message)

    def wait(self, tickets: Sequence[Any]) -> Sequence[Any]:
        self._ray.wait(tickets)  # it prefers the first ones, so that the last might wait for ever
        ready: Sequence[Any] = self._ray.wait(tickets, num_returns=len(tickets), timeout=0)[0]
        return ready

    def result(self, ticket: Any) -> Any:
        """A copy: what Ray gives is a view of its store, and read-only."""
        errors = self._ray.exceptions
        gone = (errors.RayActorError, errors.ActorUnschedulableError, errors.ObjectLostError, errors.NodeDiedError)
        try:
            return copy.deepcopy(self._ray.get(ticket))
        except errors.RayTaskError as error:
            raise HarnessError(f"an engine worker failed:\n{error}") from error
        except gone as error:
            raise Lost(str(error).strip().partition("\n")[0]) from error

    def end(self, worker: Any) -> None:
        if self._ray.is_initialized():
            self._ray.kill(worker)

    def close(self) -> None:
        if self._own:
            self._ray.shutdown()


class Joined(NamedTuple):
    """What an engine has of a cluster: the actors, their nodes, the pool of them, and what sends to them."""

    crew: Actors
    places: Mapping[Hashable, str]
    pool: Pool
    sender: Sender


class Placed(Host):
    """A host that says where it is."""

    def place(self) -> str:
        """The id of its node."""
        return str(_library().get_runtime_context().get_node_id())


def fetch(reference: Any) -> Any:
    """In an actor: what a reference stands for."""
    return _library().get(reference)


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            'the engine "ray" needs the extra "ray", which is not installed here: pip install \'oneshot-harness[ray]\' on '
            "every node. Or use --engine hf."
        ) from error
