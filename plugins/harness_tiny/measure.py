"""Measure a model on the ladders: `python -m harness_tiny.measure`.

Does: sample test problems of each domain and level, judge strictly and leniently, print one Markdown row per level.
Doesn't: train, record or compare; that is what runs are for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import numpy.typing as npt

from harness.contracts import Domain
from harness.seeds import seed_for
from harness.types import Outcome, Policy, Problem, SampleRequest
from harness_engines.hf import HfEngine
from harness_tiny import weights_path

DOMAINS = {"math": "Math", "code": "Code", "arc": "Arc"}
OPTIONS = {
    "device": "auto",
    "dtype": "float32",
    "workers": 1,
    "shard_rollouts": 1024,
    "microbatch_tokens": 8192,
    "trust_remote_code": False,
}
MAX_TOKENS = 144
_SHARD = 1024


class Judged(NamedTuple):
    """Correct verdicts of `samples` draws for each problem, [problems, samples]."""

    strict_PG: npt.NDArray[np.bool_]
    lenient_PG: npt.NDArray[np.bool_]


class Row(NamedTuple):
    """Rates of one level; `error` is the standard error of `rate` clustered by problem."""

    rate: float
    error: float
    solved: float
    lenient: float
    greedy: float
    greedy_lenient: float


def _requests(problems: list[Problem], samples: int, *, temperature: float) -> list[SampleRequest]:
    indices = tuple(range(samples))
    return [
        SampleRequest(
            problem_id=problem.id,
            prompt=problem.prompt,
            sample_idxs=indices,
            seeds=tuple(seed_for(0, "measure", problem.id, i) for i in indices),
            temperature=temperature,
            max_tokens=MAX_TOKENS,
        )
        for problem in problems
    ]


def completions(engine: HfEngine, problems: list[Problem], samples: int, *, temperature: float) -> list[list[str]]:
    """Texts [problems][samples] of the base policy."""
    requests = _requests(problems, samples, temperature=temperature)
    step = max(1, _SHARD // samples)
    shards = [tuple(requests[start : start + step]) for start in range(0, len(requests), step)]
    texts: dict[str, list[str]] = {problem.id: [] for problem in problems}
    for rollouts in engine.sample(shards, Policy(base="")):
        for rollout in rollouts:
            texts[rollout.problem_id].append(rollout.text)
    return [texts[problem.id] for problem in problems]


def judge(domain: Domain, problems: list[Problem], texts: list[list[str]]) -> Judged:
    """Strict and lenient verdicts; equal completions of one problem are judged once."""
    strict, lenient = [], []
    for problem, drawn in zip(problems, texts, strict=True):
        free = replace(problem, meta={**problem.meta, "answer_format": "lenient"})
        verdicts = {text: (_right(domain, problem, text), _right(domain, free, text)) for text in set(drawn)}
        strict.append([verdicts[text][0] for text in drawn])
        lenient.append([verdicts[text][1] for text in drawn])
    return Judged(np.array(strict), np.array(lenient))


def _right(domain: Domain, problem: Problem, text: str) -> bool:
    return domain.verify(problem, text).outcome is Outcome.CORRECT


def measure(engine: HfEngine, domain: Domain, problems: list[Problem], *, samples: int) -> Row:
    drawn = judge(domain, problems, completions(engine, problems, samples, temperature=1.0))
    greedy = judge(domain, problems, completions(engine, problems, 1, temperature=0.0))
    rates_P = drawn.strict_PG.mean(axis=1)
    return Row(
        rate=float(rates_P.mean()),
        error=float(rates_P.std(ddof=1)) / math.sqrt(len(rates_P)),
        solved=float(drawn.strict_PG.any(axis=1).mean()),
        lenient=float(drawn.lenient_PG.mean()),
        greedy=float(greedy.strict_PG.mean()),
        greedy_lenient=float(greedy.lenient_PG.mean()),
    )


def rows(engine: HfEngine, name: str, *, levels: list[int], problems: int, samples: int) -> Iterator[tuple[int, Row]]:
    domain: Any = getattr(import_module(f"harness_{name}.domain"), DOMAINS[name])()
    drawn = list(import_module(f"harness_{name}.ladder").problems("test", seed=0, limit=5 * problems))
    for level in levels:
        yield level, measure(engine, domain, [p for p in drawn if p.level == level], samples=samples)
    if hasattr(domain, "close"):
        domain.close()


@click.command()
@click.option("--model", type=click.Path(path_type=Path), default=weights_path(), help="Checkpoint folder.")
@click.option("--domain", "names", type=click.Choice(list(DOMAINS)), multiple=True, help="Default: all three.")
@click.option("--level", "levels", type=click.IntRange(1, 5), multiple=True, help="Default: all five.")
@click.option("--problems", default=60, show_default=True, help="Test problems of each level.")
@click.option("--samples", default=16, show_default=True, help="Draws of each problem at temperature 1.")
def main(model: Path, *, names: tuple[str, ...], levels: tuple[int, ...], problems: int, samples: int) -> None:
    """Print pass rates on the ladders' test split: mean and clustered standard error, pass@SAMPLES, greedy, lenient."""
    engine = HfEngine(str(model), Path(), OPTIONS)
    click.echo(f"| domain | level | T=1 | pass@{samples} | T=1 lenient | greedy | greedy lenient |")
    click.echo("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names or DOMAINS:
        wanted = list(levels) or [1, 2, 3, 4, 5]
        for level, row in rows(engine, name, levels=wanted, problems=problems, samples=samples):
            click.echo(
                f"| {name} | {level} | {row.rate:.3f} ± {row.error:.3f} | {row.solved:.2f} "
                f"| {row.lenient:.3f} | {row.greedy:.2f} | {row.greedy_lenient:.2f} |"
            )
    engine.close()


if __name__ == "__main__":
    main()
