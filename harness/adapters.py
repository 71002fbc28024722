"""Any domain's verifier as a reward function of another trainer: TRL's GRPOTrainer (trl 1.16 and later).

Does: turn what TRL passes (completions, columns of the data set) into problems and texts, judge them in the same pool
of killable workers as a run does (verifying.py), and price the verdicts by the same table (config.RewardSpec).
Doesn't: import trl, weigh, or train. What TRL logs as a reward is what the harness would have given.

What a reward function of TRL must know, and what is done about it here:

1. A reward of None is outside TRL's group mean and gives no advantage. That is what a failing verifier gets. A time
   limit is a fact about the completion and is priced like any other outcome.
2. TRL calls with small batches for hours. Whether the verifier can still be trusted is therefore asked of the latest
   2000 verdicts, where the share at which the harness stops (1 %) is the number at which it stops (20), and not of one
   call. Of a larger call all are asked, as in a run.
3. A column of a data set has one type, and a field that only some rows have is null in the others: nulls are dropped.
"""

from __future__ import annotations

import json
import math
import os
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from harness import completions, isolation, plugins
from harness.config import RewardSpec, RunSpec
from harness.contracts import Domain
from harness.errors import BadRow, UsageError
from harness.plugins import Registration
from harness.types import Outcome, Problem, Verdict
from harness.verifying import ERROR_COUNT, ERROR_SHARE, VerifierPool, check_errors

# The column of `trl_rows`. Not "problem": that is the question in rows of MATH.
COLUMN = "harness_problem"
WINDOW = round(ERROR_COUNT / ERROR_SHARE)
# Lists that TRL passes beside the data set's columns.
_NO_COLUMNS = ("completion_ids", "environments")


def trl_rows(
    domain: str, benchmark: str = "ladder", *, split: str = "train", seed: int = 0, limit: int
) -> list[dict[str, str]]:
    """At most `limit` problems of a benchmark as rows for `datasets.Dataset.from_list`, for `trl_reward(domain)`.

    Each row is {"prompt": text, "harness_problem": the problem as JSON}; other columns may be added, and the prompt be
    replaced (by chat messages, for one). Raises UnknownName, or UsageError for what cannot be had.
    """
    found: Domain = plugins.load().lookup("domain", domain).load()()
    problems = found.problems(benchmark, split, seed=seed, limit=limit)
    return [{"prompt": problem.prompt, COLUMN: json.dumps(asdict(problem))} for problem in problems]


def trl_reward(
    domain: str,
    *,
    rewards: RewardSpec | None = None,
    fields: Mapping[str, str] | None = None,
    timeout: float | None = None,
    workers: int = 0,
) -> TrlReward:
    """A domain's verifier for `GRPOTrainer(reward_funcs=...)`; the domain is one that `harness plugins` lists.

    The training set has either the column that `trl_rows` makes, or the domain's rows as `harness verify` understands
    them, in the data set's own field names (math: problem and answer; code: entry_point and test; ...), each row with
    the `prompt` that TRL wants. `fields` says where a field has another name: {"answer": "gold"} takes the field
    `answer` from the column `gold`; {"prompt": "task"} is for a field that TRL's prompt has taken the name of.

    `rewards` is 1 for CORRECT and 0 for the rest by default; an ERROR of the verifier is None. `timeout` replaces the
    domain's own limits, in wall seconds of one completion; `workers` 0 means one a core.

    Warns when the completions will be executed below isolation level `landlock`. Raises UnknownName and UsageError.
    """
    registration = plugins.load().lookup("domain", domain)
    level = isolation.level(registration.load()())
    if weak := isolation.warning(level):
        warnings.warn(f"isolation: {level}. {weak}", stacklevel=2)
    return TrlReward(registration, rewards=rewards, fields=fields, timeout=timeout, workers=workers)


class TrlReward:
    """What `trl_reward` returns. TRL logs it under the domain's name, and the share of each outcome beside it.

    Workers start at the first call and end with `close()`, with the `with` block, when the object is dropped, or with
    the calling process. One thread at a time may call. Picklable until the first call.
    """

    def __init__(
        self,
        registration: Registration,
        *,
        rewards: RewardSpec | None = None,
        fields: Mapping[str, str] | None = None,
        timeout: float | None = None,
        workers: int = 0,
    ) -> None:
        if timeout is not None and not 0 < timeout < math.inf:
            raise UsageError(f"timeout must be a number of seconds above 0, got {timeout}")
        self.__name__ = registration.name
        self._registration = registration
        self._rewards, self._fields = rewards or RewardSpec(), dict(fields or {})
        count = workers or RunSpec(domain=registration.name).num_workers
        self._pool = VerifierPool(registration.target, workers=count, override=timeout)
        self._recent: list[Verdict] = []
        self._end_with_me()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._end_with_me()

    def _end_with_me(self) -> None:
        weakref.finalize(self, _close, self._pool, os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; a later call starts new ones."""
        self._pool.close()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        **others: Any,
    ) -> list[float | None]:
        """One reward per completion, in order: text, or chat messages of which the last, the assistant's, is judged.

        `others` are what TRL passes: of these, lists are columns with one value per completion. Raises BadRow for a row
        that the domain does not understand, VerifierFailure when the verifier does not start or fails too often.
        """
        columns = {name: values for name, values in others.items() if isinstance(values, list)}
        problems = self._problems({**columns, "prompt": prompts}, len(completions))
        verdicts = self._pool.verify(list(zip(problems, map(_text, completions), strict=True)))
        self._check(verdicts)
        if log_metric is not None:
            counts = Counter(verdict.outcome for verdict in verdicts)
            for outcome in Outcome:  # all of them each time: TRL averages over the calls that name one
                log_metric(f"{self.__name__}/{outcome}", counts[outcome] / max(1, len(verdicts)))
        return [self._rewards.of(verdict.outcome) for verdict in verdicts]

    def _problems(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[Problem]:
        if COLUMN in columns:
            known = {text: Problem(**json.loads(text)) for text in set(columns[COLUMN])}
            return [known[text] for text in columns[COLUMN]]
        domain = completions.reading(self._registration.load()())
        names = {name: name for name in columns if name not in _NO_COLUMNS} | self._fields
        if missing := sorted(set(names.values()) - set(columns)):
            raise UsageError(f"fields: the training set has no column {', '.join(missing)}; it has {_listed(columns)}")
        problems: dict[str, Problem] = {}  # by text, since a group's rows are equal, and == takes True for 1
        found = []
        for place in range(count):
            cells = {field: columns[name][place] for field, name in names.items()}
            row = {field: cell for field, cell in cells.items() if cell is not None}
            if (key := repr(row)) not in problems:
                try:
                    problems[key] = domain.read(row)
                except BadRow as error:
                    raise BadRow(
                        f"{error}. The training set has the columns {_listed(columns)}; "
                        'fields={"field": "column"} takes a field from a column of another name'
                    ) from error
            found.append(problems[key])
        return found

    def _check(self, verdicts: Sequence[Verdict]) -> None:
        short = [Verdict(outcome=verdict.outcome, detail=verdict.detail) for verdict in verdicts]
        recent = [*self._recent, *short][-max(WINDOW, len(short)) :]
        check_errors(recent)
        self._recent = recent[-WINDOW:]


def _close(pool: VerifierPool, owner: int) -> None:
    if os.getpid() == owner:  # a forked copy of the process must not end the workers of the original
        pool.close()


def _listed(columns: Mapping[str, object]) -> str:
    return ", ".join(sorted(set(columns) - set(_NO_COLUMNS)))


def _text(completion: Any) -> str:
    """What the verifier reads: "" where the last message is not the assistant's (a tool's, say)."""
    if isinstance(completion, str):
        return completion
    last = completion[-1] if completion else {}
    content = last.get("content") if last.get("role") == "assistant" else None
    if isinstance(content, list):  # of parts: texts and, in other models, images
        return "".join(part.get("text") or "" for part in content)
    return content or ""
