"""Where a finished run keeps the completions and verdicts behind a test score.

Does: name the draws of a method on a test set again, as the run named them, and read what was said.
Doesn't: draw; wide draws are not named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import evaluating, sampling, shards, store
from harness.report.results import Results
from harness.sampling import Judged
from harness.types import Problem


def known(found: Results) -> bool:
    """False for an older run folder, whose draws cannot be named."""
    return "max_tokens" in found.manifest


def folders(found: Results, method: str, seed: int, problems: list[Problem], *, greedy: bool = False) -> Iterator[str]:
    """One for each policy that the method handed in: what it was scored by in `seed` on these test problems."""
    spec, contender = found.manifest["spec"], found.finished[method, seed].contender
    temperature = spec["sampling"]["temperature"] if contender.temperature is None else contender.temperature
    samples = contender.n or spec["evaluation"]["samples"]
    if greedy:
        temperature, samples = 0.0, 1
    for policy in contender.policies:
        draw = evaluating.test_draw(
            contender, policy, temperature=temperature, samples=samples, max_tokens=found.manifest["max_tokens"]
        )
        yield sampling.folder_of(draw, problems, seed if temperature else 0)


class Completion(NamedTuple):
    """What a policy said of a problem, and what became of it."""

    text: str
    judged: Judged


def completions(root: Path, folder: str) -> Iterator[Completion]:
    """Those of one folder; none where its rollouts are gone."""
    verdicts = (
        judged
        for path in sorted((root / "verdicts" / folder).glob("shard-*.json"))
        for judged in store.read_json(path).judged
    )
    return map(Completion, shards.texts(root, folder), verdicts)
