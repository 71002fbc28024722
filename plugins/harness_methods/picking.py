"""The examples that `single_example` trains on: by pass rate, by variance over a recorded run, at random, by name.

Does: probe the base where that is needed, choose, put another prompt or another label in their place.
Doesn't: update anything. What the probe draws is charged like every other training rollout.

Departures from Wang et al. (2504.20571), numbered:
1. They rank by the standard deviation of the training accuracy over a whole earlier run (`pick = "variance"` with
   `history`). The default is p(1 - p) over a probe of the base, at most an eighth of the budget: no earlier run.
2. Equals stand in the order of the training problems, which differs between run seeds; theirs in that of the file.
3. A changed prompt makes another problem with an id of its own, since draws are named by the ids of problems.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from harness import limits, seeds
from harness.errors import NoSignal, UnknownName, UsageError
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Outcome, Problem

PROBE = 8  # the probe takes at most one part in so many of the budget
GOLD, COMMON_WRONG = "gold", "common_wrong"
PICKS = ("pass_rate", "random", "variance")


class Picked(NamedTuple):
    """The examples, and the label rewarded for each of them; without labels the verdict counts."""

    problems: tuple[Problem, ...]
    labels: Mapping[str, str]


def require_id(value: object, name: str) -> None:
    """Raises UsageError for what is no text."""
    if not isinstance(value, str):
        raise UsageError(f"{name} must be ids of training problems, got {limits.short(value)}")


def pick(stages: Stages) -> Picked:
    """The examples of the options. Raises UsageError, or NoSignal when a wrong label is asked for and none is found."""
    options, probed = stages.options, None
    count = min(int(options["examples"]), len(stages.train_problems))
    if options["problem"]:
        chosen = _named(stages)
    elif len(stages.train_problems) == count:
        chosen = list(stages.train_problems)
    elif options["pick"] == "pass_rate":
        probed = _probe(stages, stages.train_problems, count=count)
        chosen = nearest(stages.train_problems, probed, rate=float(options["rate"]))[:count]
    elif options["pick"] == "variance":
        chosen = _by_history(stages, count)
    else:
        order = seeds.generator(seeds.seed_for(stages.seed, "single_example")).permutation(len(stages.train_problems))
        chosen = [stages.train_problems[place] for place in order[:count]]
    if options["label"] == COMMON_WRONG and probed is None:
        probed = _probe(stages, chosen, count=len(chosen))
    labels = _labels(str(options["label"]), chosen, probed)
    problems = tuple(chosen) if not options["prompt"] else (_reworded(chosen, str(options["prompt"])),)
    return Picked(problems, {new.id: labels[old.id] for new, old in zip(problems, chosen, strict=True) if labels})


def _named(stages: Stages) -> list[Problem]:
    names, known = stages.options["problem"], {problem.id: problem for problem in stages.train_problems}
    for name in names:
        if name not in known:
            raise UnknownName("training problem of this seed", name, known)
    return [known[name] for name in dict.fromkeys(names)]


def _by_history(stages: Stages, count: int) -> list[Problem]:
    """The training problems whose recorded accuracy varied most, found by id or by its last part."""
    if not stages.options["history"]:
        raise UsageError(f'pick = "variance" reads method.{stages.method}.history: name a recorded run')
    found = stages.history(str(stages.options["history"]))
    names = {
        problem.id: problem.id if problem.id in found else problem.id.rpartition("/")[2]
        for problem in stages.train_problems
    }
    own = {
        problem.id: (problem, found[names[problem.id]])
        for problem in stages.train_problems
        if names[problem.id] in found
    }
    if len(own) < count:
        raise UsageError(
            f"{stages.options['history']} has {len(found)} problems and {len(own)} of the training problems: "
            f"{count} are to be chosen. Train on the problems of that run, with the same seed."
        )
    order = by_spread({name: accuracies for name, (_, accuracies) in own.items()})
    return [own[name][0] for name in order[:count]]


def by_spread(histories: Mapping[str, Sequence[float]]) -> list[str]:
    """Names by the standard deviation of their accuracies, the largest first."""
    return sorted(histories, key=lambda name: -float(np.std(histories[name])))


def nearest(problems: Sequence[Problem], probed: RolloutBatch, *, rate: float) -> list[Problem]:
    """The problems of the batch, those of a pass rate nearest to `rate` first, those without a verdict last."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in probed.problem_ids}
    for entry in probed.judged():
        if entry.verdict.outcome is not Outcome.ERROR:
            outcomes[entry.problem_id].append(entry.verdict.outcome)
    rates = {name: own.count(Outcome.CORRECT) / len(own) if own else 2.0 for name, own in outcomes.items()}
    return sorted((p for p in problems if p.id in rates), key=lambda p: abs(rates[p.id] - rate))


def _probe(stages: Stages, problems: Sequence[Problem], *, count: int) -> RolloutBatch:
    """Base rollouts of `problems`, or of so many that the best `count` can be chosen; what they leave divides by it."""
    limit = stages.budget.train // PROBE
    most = min(stages.group, limit // min(2 * count, len(problems)))
    for samples in range(most, 1, -1):
        few = problems[: limit // samples]
        if (stages.budget.train - len(few) * samples) % count == 0:
            return stages.sample(few, stages.base, samples=samples, iteration=0)
    raise UsageError(
        f"no probe of at most {limit} rollouts, an eighth of the budget, leaves the same for each of {count} examples: "
        f'raise --budget, or set method.{stages.method}.pick to "random"'
    )


def _labels(label: str, chosen: Sequence[Problem], probed: RolloutBatch | None) -> dict[str, str]:
    if label == GOLD:
        return {}
    if label != COMMON_WRONG or probed is None:
        return {problem.id: label for problem in chosen}
    return {problem.id: common_wrong(problem, probed) for problem in chosen}


def common_wrong(problem: Problem, probed: RolloutBatch) -> str:
    """The most frequent wrong canonical answer, the first one met among equals. Raises NoSignal when there is none."""
    own = [entry.verdict for entry in probed.judged() if entry.problem_id == problem.id]
    wrong = Counter(v.extracted for v in own if v.outcome is Outcome.WRONG and v.extracted is not None)
    if not wrong:
        raise NoSignal(
            f"none of {len(own)} rollouts of {problem.id} has a wrong answer: there is no common wrong label"
        )
    return wrong.most_common(1)[0][0]


def _reworded(chosen: Sequence[Problem], prompt: str) -> Problem:
    if len(chosen) > 1:
        raise UsageError(f"prompt stands for that of one example, and there are {len(chosen)}")
    changed = replace(chosen[0], prompt=prompt)
    return replace(changed, id=f"{changed.id}+{changed.content_hash[:8]}")
