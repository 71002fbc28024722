"""What the parts of a diagnosis share: the run, the folder RUN/diagnosis, the meter, and gradients that several need.

Does: store each finished part with its cost and read it back; draw completions of its own; make the gradients of the base
batch and of a second draw, and the kinds of direction of both.
Doesn't: compute a statistic. Gradients lie in `vectors`, which is emptied at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import store, weighing
from harness.budget import Cost
from harness.contracts import Optimizer
from harness.diagnosis import kinds, parts, products
from harness.diagnosis.parts import Job, Meter
from harness.diagnosis.products import Products, Vector
from harness.diagnosis.subject import Subject
from harness.run import Run
from harness.sampling import Draw, RolloutBatch
from harness.types import Problem
from harness.weighing import MAX_SUB_BATCHES

VERSION = 1  # of what the parts mean: those of another version are made again
FOLDER = "diagnosis"


class Keeper:
    """One diagnosis of one run; `meter` sums what its parts took, in this call or an earlier one."""

    def __init__(self, run: Run, found: Subject) -> None:
        self.run, self.found, self.meter = run, found, Meter()
        self.root, self.folder, self.vectors = run.root, run.root / FOLDER, Path(FOLDER) / "vectors"

    def part(self, name: str, key: Any, work: Callable[[Meter], Any]) -> Any:
        """The result of `work`, stored with its cost; read back where it was made for the same `key`."""
        path, wanted = self.folder / f"{name}.json", store.fingerprint([VERSION, key])
        entry = store.read_json(path) if path.exists() else {}
        if entry.get("key") != wanted:
            meter = Meter()
            result = work(meter)
            entry = {"key": wanted, "result": result, "cost": meter.spent._asdict()}
            store.write_json(path, entry, compact=True)
        self.meter.charge(Cost(**entry["cost"]))
        return entry["result"]

    def multiplied(self, name: str, key: Any, work: Callable[[Meter], Mapping[str, Vector]]) -> Products:
        """As `part`, of the inner products of the vectors that `work` makes."""
        path = self.folder / f"{name}.safetensors"

        def multiply(meter: Meter) -> list[str]:
            found = products.multiply(work(meter))
            products.save(found, path)
            return list(found.labels)

        self.part(name, key, multiply)
        return products.load(path)

    def base(self) -> Path:
        """The base weights in fp32, as a trainer starts from them."""
        path = self.root / self.vectors / "base.safetensors"
        if not path.exists():
            self.run.engine.trainer(self.run.base, Optimizer(lr=0.0)).checkpoint(path)
        return path

    def moved(self) -> dict[str, Vector]:
        """The displacements of all ways."""
        return {label: vector for way in self.found.ways for label, vector in way.moved(self.root, self.base()).items()}

    def fresh(self, problems: Sequence[Problem], *, samples: int, seed: int, meter: Meter) -> RolloutBatch:
        """Completions that no method has met: their seeds are of a purpose of their own."""
        draw = Draw(
            purpose="diagnosis",
            policy=self.run.base,
            temperature=self.run.spec.sampling.temperature,
            samples=samples,
            max_tokens=self.run.max_tokens,
        )
        label = f"diagnosis: fresh draw of {len(problems) * samples}, seed {seed}"
        ((batch, cost),) = self.run.collect([draw], problems, run_seed=seed, label=label)
        meter.charge(cost._replace(eval_rollouts=len(problems) * samples))
        return batch

    def rollouts(self, seed: int) -> int:
        """Of one draw: the base batch as it was."""
        problems = len(self.run.problems.train[seed])
        return self.run.spec.budget // problems * problems

    def cuts(self, seed: int) -> list[tuple[str, ...]]:
        return parts.cut(self.run.problems.train[seed], MAX_SUB_BATCHES)

    def drawn(self, seed: int, meter: Meter) -> dict[str, Vector]:
        """Gradients of the parts of the base batch (a0, ...) and of a second draw on its problems (b0, ...)."""
        base, problems = self.found.base(self.run, seed), self.run.problems.train[seed]
        again = self.fresh(problems, samples=base.batch.samples, seed=seed, meter=meter)
        second = weighing.weigh(again, problems, rewards=self.run.spec.rewards, scheme=base.weighed.scheme)
        batches = {"a": base.weighed, "b": second}
        jobs = [
            Job(f"{name}{i}", weighed, own)
            for name, weighed in batches.items()
            for i, own in enumerate(self.cuts(seed))
        ]
        label = f"diagnosis: gradients of two draws, seed {seed}"
        return parts.gradients(self.run, jobs, folder=self.vectors / str(seed), label=label, meter=meter)

    def kinds(self, seed: int, drawn: Callable[[], Mapping[str, Vector]]) -> dict[str, Vector]:
        """Every kind of direction of both draws, by kind and draw ("sign/a"); `drawn` gives their parts where needed."""
        wanted = list(dict.fromkeys((*kinds.ALWAYS, *self.found.kinds)))
        like = self.root / self.found.base(self.run, seed).raw.path
        found: dict[str, Vector] = {}
        for draw in "ab":

            def own(draw: str = draw) -> list[Vector]:
                return [vector for name, vector in drawn().items() if name.startswith(draw)]

            made = kinds.make(own, wanted, like=like, root=self.root, folder=self.vectors / f"kinds-{seed}{draw}")
            found |= {f"{kind}/{draw}": vector for kind, vector in made.items()}
        return found

    def forget(self, folder: str = "") -> None:
        shutil.rmtree(self.root / self.vectors / folder, ignore_errors=True)
