"""The base with a solved problem before every prompt: what one example gives without training.

Does: find training problems that the base solved in the base batch; put one of them, with the base's own correct
completion, before every prompt; choose among `tries` of them, and none, on the selection split.
Doesn't: move a weight, or show several examples at once.

The reference is Wang et al. (2504.20571, table 16): one problem with a response of the model's own took
Qwen2.5-Math-1.5B from 36.0 to 59.0 on MATH-500. Departures, numbered:
1. The example is chosen on selection among several; theirs is pi_1, found by its history in a long training run.
2. Its completion was judged correct. It costs the rollouts of the base batch, shared with other methods.
3. Prompt and completion stand as the model would see and write them, then `separator`. A model that never met two
   documents in one context, such as the embedded one, is not expected to gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.contracts import Check, Spending
from harness.errors import NoSignal
from harness.limits import at_least
from harness.sampling import RolloutBatch
from harness.stages import Stages
from harness.types import Contender, Outcome, Rollout


class InContext:
    """Options: how many examples to try, and what stands between the example and the prompt."""

    name, version = "in_context", 1
    options: Mapping[str, Any] = {"tries": 7, "separator": "\n\n"}
    checks: Mapping[str, Check] = {"tries": at_least(1)}

    def spends(self, options: Mapping[str, Any]) -> Spending:
        return Spending(passes=0)

    def run(self, stages: Stages) -> Contender:
        prefixes = ["", *examples(stages, stages.base_batch())]
        contenders = [Contender(policies=(stages.base,), prefix=prefix) for prefix in prefixes]
        return contenders[stages.select(contenders).chosen]


def examples(stages: Stages, batch: RolloutBatch) -> list[str]:
    """`tries` solved training problems, in their order, that leave room for a prompt; raises NoSignal for none.

    Each is shown with the first of its correct completions that the model ended by itself.
    """
    solved: dict[str, int] = {}
    for judged in batch.judged():
        if judged.verdict.outcome is Outcome.CORRECT and not judged.truncated:
            earlier = solved.get(judged.problem_id, judged.sample_idx)
            solved[judged.problem_id] = min(earlier, judged.sample_idx)
    shown: list[str] = []
    longest = 0
    for problem in stages.train_problems:
        longest = max(longest, len(batch.group(problem.id)[0].prompt_tokens))
    for problem in stages.train_problems:
        if problem.id in solved and len(shown) < int(stages.options["tries"]):
            rollout = next(r for r in batch.group(problem.id) if r.sample_idx == solved[problem.id])
            if _fits(stages, rollout, longest):
                shown.append(f"{problem.prompt}{rollout.text}{stages.options['separator']}")
    if not shown:
        raise NoSignal(
            f"the base solved {len(solved)} training problems, and no solution leaves room for a prompt in a context of "
            f"{stages.context} tokens"
            if solved
            else "the base solved no training problem: there is no example to show"
        )
    return shown


def _fits(stages: Stages, example: Rollout, longest: int) -> bool:
    """Whether the longest training prompt and a whole completion fit behind the example."""
    size = len(example.prompt_tokens) + len(example.completion_tokens)
    return stages.context is None or size + longest + stages.max_tokens <= stages.context
