"""Choose among contenders by their scores on the same problems with the same draws.

Does: score each, with progress; make the record of the search.
Doesn't: say how many problems and samples there are (stages.py), or which of near-equals wins (stepping.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import evaluating, searching, stepping
from harness.budget import Cost
from harness.run import Run
from harness.types import Candidate, Contender, Policy, Problem, Search


def among(
    run: Run,
    contenders: Sequence[Contender],
    problems: Sequence[Problem],
    *,
    seed: int,
    samples: int,
    purpose: str,
    label: str,
    cautious: bool,
) -> tuple[Search, Cost]:
    """Every contender on all problems; the cost does not count rollouts: the caller says which budget they are of."""
    cost, candidates = Cost(), []
    for done, contender in enumerate(contenders):
        run.progress(label, done, len(contenders))
        scored = evaluating.scored(run, contender, problems, seed=seed, samples=samples, purpose=purpose)
        policy = contender.policies[0]
        temperature = run.spec.sampling.temperature if contender.temperature is None else contender.temperature
        entropy, spent = searching.entropy(run, [scored.batch], policy, temperature)
        cost = cost.plus(scored.cost).plus(spent)
        relative = run.engine.displacement(policy).relative
        step = size(policy) if purpose == "probe" else 0.0
        candidates.append(
            Candidate(policy=policy, step=step, relative_step=relative, score=scored.score, entropy=entropy)
        )
    run.progress(label, len(contenders), len(contenders))
    chosen, best = stepping.choose(candidates, cautious=cautious)
    return Search(candidates=tuple(candidates), chosen=chosen, best=best), cost


def size(policy: Policy) -> float:
    """The step of its last move; 0 for the base."""
    return policy.moves[-1].step if policy.moves else 0.0
