"""A trainer as a method sees it: optimizer steps that are journalled, so that a resumed method finds them done.

Does: keep the last state (weights and moments) on disk; drop checkpoints that nobody keeps; hand out weights as files, and
the values of an actor-critic.
Doesn't: compute a gradient or hold weights: the engine's trainer does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from harness import crediting, directing, store
from harness.budget import Cost, Stopwatch
from harness.contracts import ActorCritic, Objective, Optimizer, Trainer
from harness.crediting import Values
from harness.errors import HarnessError
from harness.run import Run
from harness.types import Direction, Move, Policy, TrainStep
from harness.weighing import GradientBatch, PairedBatch, WeighedBatch

T = TypeVar("T")
# By kind of result, what observers of a stage hear of it besides its cost.
WATCHED: Mapping[type, tuple[str, ...]] = {
    TrainStep: ("pass_rate", "groups_dead", "mean_tokens", "loss", "grad_norm"),
    Direction: ("norm", "batch_pass_rate", "groups_dead", "snr", "agreement"),
}


class Call(Protocol):
    """One stage call: journalled by `stage` and `arguments`, charged with the cost that `work` returns."""

    def __call__(self, stage: str, arguments: Any, work: Callable[[], tuple[T, Cost]]) -> T: ...


class StageTrainer:
    """A trainer whose steps are journalled: after a kill, finished steps return from disk and the last state loads.

    `folder` is the method's own, `call` the stages' journalled and metered call. `policy` is the live policy; it can
    be sampled from until the second step after it, or for ever after `keep()`. `critic_lr` above 0 makes it an actor-critic.
    """

    def __init__(
        self,
        run: Run,
        policy: Policy,
        optimizer: Optimizer,
        *,
        folder: str,
        call: Call,
        trained: list[TrainStep],
        critic_lr: float = 0.0,
    ) -> None:
        self._run, self._start, self._optimizer, self._call = run, policy, optimizer, call
        self._trained, self._critic_lr = trained, critic_lr
        self._folder = f"{folder}/trainer"
        self._engine_trainer: Trainer | None = None
        self._kept: set[int] = set()
        self._written = self._valued = 0
        self.steps = 0
        self.policy = policy

    def step(self, weighed: GradientBatch, objective: Objective) -> Policy:
        """One optimizer update on a weighed batch; a batch without signal changes nothing and is counted."""
        arguments = [self._start.id, list(self._optimizer), weighed.key, objective, self.steps]
        done = self._call("train", arguments, lambda: self._step(weighed, objective))
        self._trained.append(done)
        self.policy = done.policy
        self.steps += 1
        if weighed.num_sub_batches:  # otherwise the step wrote nothing
            self._written = self.steps
        return self.policy

    def values(self, weighed: WeighedBatch) -> Values:
        """What the value head of an actor-critic says now of every token of a batch.

        The file stays, so that a resumed run gives the batch the same credits.
        """
        self._valued += 1  # draws that taught nothing have no step between them
        path = self._run.root / f"{self._folder}/values-{self._valued:04d}.safetensors"

        def work() -> tuple[str, Cost]:
            watch, live = Stopwatch(), self._live()
            return crediting.write(cast(ActorCritic, live).values(weighed), path), watch.cost()

        return crediting.read(path, self._call("values", [weighed.key, self.steps], work))

    def keep(self) -> Policy:
        """Keep the live policy's file, as a candidate for selection."""
        self._kept.add(self._written)
        return self.policy

    def _step(self, weighed: GradientBatch, objective: Objective) -> tuple[TrainStep, Cost]:
        watch = Stopwatch()
        if not weighed.num_sub_batches:
            return _seen(weighed, self.policy), watch.cost()._replace(updates=1)
        number = self.steps + 1
        trainer = self._live()
        seen = trainer.step(weighed, objective)
        out = f"{self._folder}/step-{number:04d}.safetensors"
        trainer.checkpoint(self._run.root / out)
        trainer.save(self._state(number))
        for old in range(self._written):  # the last one stays: a kill before the journal is written needs it
            if old not in self._kept:
                (self._run.root / f"{self._folder}/step-{old:04d}.safetensors").unlink(missing_ok=True)
            self._state(old).unlink(missing_ok=True)
        move = Move(kind="checkpoint", path=out, digest=store.digest(self._run.root / out))
        cost = watch.cost()._replace(updates=1, train_tokens=int(seen["tokens"]))
        policy = Policy(base=self._start.base, moves=(move,))
        return _seen(weighed, policy, loss=seen["loss"], grad_norm=seen["grad_norm"]), cost

    def _live(self) -> Trainer:
        """The engine's trainer, brought to the last finished step."""
        if self._engine_trainer is None:
            self._engine_trainer = self._made()
            if self._written:
                self._engine_trainer.load(self._last())
        return self._engine_trainer

    def _last(self) -> Path:
        state = self._state(self._written)
        if not state.exists():  # from an earlier one, or none, the steps would be others than those that are journalled
            method = state.parent.parent
            raise HarnessError(f"{state} is missing. Remove {method} to have the method start again; its draws stay")
        return state

    def _made(self) -> Trainer:
        engine = self._run.engine
        if not self._critic_lr:
            return engine.trainer(self._start, self._optimizer)
        make = directing.optional(engine, "actor_critic", method=self._folder.split("/")[1])
        live: Trainer = make(self._start, self._optimizer, critic_lr=self._critic_lr)
        return live

    def _state(self, number: int) -> Path:
        return self._run.root / f"{self._folder}/state-{number:04d}.safetensors"


@contextmanager
def weights_files(run: Run, policies: Sequence[Policy], *, folder: str) -> Iterator[list[Path]]:
    """A file of fp32 weights for each policy; a checkpoint's own, which is not rounded to the run's weight type.

    The others are in `folder` of the run, for as long as they are asked for.
    """
    with tempfile.TemporaryDirectory(dir=run.root / folder) as own:
        files = []
        for policy in policies:
            if policy.moves and policy.moves[-1].kind == "checkpoint":
                files.append(run.root / policy.moves[-1].path)
                continue
            files.append(Path(own) / f"{policy.id}.safetensors")
            run.engine.trainer(policy, Optimizer(lr=0.0)).checkpoint(files[-1])
        yield files


def watched(result: object) -> dict[str, float]:
    """Numbers in a stage's result that observers draw as they come."""
    known = {name: getattr(result, name) for name in WATCHED.get(type(result), ())}
    return {name: value for name, value in known.items() if value is not None}


def _seen(batch: GradientBatch, policy: Policy, *, loss: float = 0.0, grad_norm: float = 0.0) -> TrainStep:
    return TrainStep(
        policy=policy,
        pass_rate=batch.pass_rate,
        groups_dead=batch.groups_dead,
        mean_tokens=float("nan") if isinstance(batch, PairedBatch) else batch.mean_tokens,
        loss=loss,
        grad_norm=grad_norm,
    )
