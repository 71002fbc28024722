"""The domain "countdown": reach a target from given numbers, each used at most once.

Does: name the benchmarks, draw and read problems, judge completions, make specimens.
Doesn't: demand the shortest solution, or whole numbers on the way to it (as the television game does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from harness import config, datasets
from harness.contracts import Benchmark, Specimen
from harness.errors import BadRow, UnknownName, UsageError
from harness.seeds import python_random, seed_for
from harness.types import Outcome, Problem, Verdict
from harness_countdown import puzzles
from harness_countdown.claim import lenient_claim, strict_claim
from harness_countdown.expression import Expression, Malformed

SPLITS = ("train", "selection", "test")
GAME24_FILE = "logic/game24.jsonl"
_WASTE = 200  # draws per problem before the generator gives up
PROMPT = (
    "Numbers: {numbers}. Target: {target}. Write an arithmetic expression with + - * / and parentheses that equals the "
    'target. Use {which}. End with one line that is "Answer:", a space and the expression.\n'
)


class Countdown:
    """Domain "countdown". `Problem.answer` is {"numbers": [...], "target": N, "use_all": true or false}."""

    name, version = "countdown", 1

    def benchmarks(self) -> Iterator[Benchmark]:
        yield Benchmark("ladder", SPLITS, "strict", licence="Apache-2.0", source="generated", max_tokens=256)
        source = f"princeton-nlp/tree-of-thought-llm, {GAME24_FILE}"
        yield Benchmark("game24", SPLITS, "lenient", licence="MIT", source=source, max_tokens=512)

    def problems(self, benchmark: str, split: str, *, seed: int, limit: int) -> Iterator[Problem]:
        if benchmark not in ("ladder", "game24"):
            raise UnknownName("benchmark of countdown", benchmark, ["ladder", "game24"])
        datasets.require_split(benchmark, split, SPLITS)
        if benchmark == "ladder":
            return _ladder(split, seed=seed, limit=limit)
        problems = datasets.split_by_hash(map(self.read, _game24()), split)
        return datasets.draw(problems, split, seed=seed, limit=limit)

    def read(self, row: Mapping[str, Any]) -> Problem:
        """{"numbers" or "nums": [whole numbers], "target": N, "use_all"?} or {"Puzzles": "1 2 4 7"}."""
        if "Puzzles" in row:
            numbers = _whole_numbers("Puzzles", str(row["Puzzles"]).split())
            return _problem(numbers, 24, use_all=True, row=row)
        field = "nums" if "nums" in row else "numbers"
        target = row.get("target")
        if type(target) is not int:
            raise BadRow(f"field target: found {target!r}, understood is a whole number")
        return _problem(_whole_numbers(field, row.get(field)), target, use_all=row.get("use_all") is True, row=row)

    def rows(self) -> Iterator[Mapping[str, Any]]:
        yield {"id": 1, "numbers": [3, 5, 7], "target": 26}
        yield {"nums": [19, 36, 55, 7], "target": 65}
        yield {"Puzzles": "1 2 4 7"}

    def verify(self, problem: Problem, completion: str) -> Verdict:
        in_format = strict_claim(completion)
        claim = in_format if problem.strict or in_format is not None else lenient_claim(completion)
        if claim is None:
            return Verdict(outcome=Outcome.UNPARSED, detail="no expression where the format has it")
        try:
            found = Expression(claim)
        except Malformed as error:
            return Verdict(outcome=Outcome.UNPARSED, detail=str(error))
        fault = _fault(found, problem.answer)
        return Verdict(
            outcome=Outcome.WRONG if fault else Outcome.CORRECT,
            extracted=found.text,
            format_ok=in_format is not None,
            detail=fault,
        )

    def specimens(self, problem: Problem) -> Iterator[Specimen]:
        answer: Any = problem.answer
        numbers, target = answer["numbers"], answer["target"]
        gold = str(problem.meta.get("solution") or puzzles.solve(numbers, target))
        unless_strict = Outcome.UNPARSED if problem.strict else Outcome.CORRECT
        yield Specimen(f"Answer: {gold}", Outcome.CORRECT)
        yield Specimen(f"First I try {numbers[0]}+{numbers[-1]}.\nAnswer: {gold}\n", Outcome.CORRECT)
        yield Specimen(f"so \\boxed{{{gold} = {target}}}", unless_strict)
        yield Specimen(f"<think>1+1</think><answer>{gold}</answer>", unless_strict)
        yield Specimen(f"Answer: {gold}-0", Outcome.WRONG)
        yield Specimen(f"Answer: {gold}+1-1", Outcome.WRONG)
        yield Specimen(f"Answer: {target}", Outcome.WRONG)
        yield Specimen(f"Answer: ({'+'.join(map(str, numbers))})/({numbers[0]}-{numbers[0]})", Outcome.WRONG)
        yield Specimen(f"Answer: {gold} or {gold}", Outcome.UNPARSED)
        yield Specimen(f"Answer: {gold}\nAnswer: {target}", Outcome.UNPARSED if problem.strict else Outcome.WRONG)
        yield Specimen(f"Answer: int('{target}')", Outcome.UNPARSED)
        yield Specimen("Answer: 9**9**9**9", Outcome.UNPARSED)
        yield Specimen("Answer: " + "(" * 10_000 + gold + ")" * 10_000, Outcome.UNPARSED)
        yield Specimen("", Outcome.UNPARSED)


def _fault(found: Expression, answer: Any) -> str:
    """Why the expression is wrong, or nothing."""
    used, given = Counter(found.numbers), Counter(answer["numbers"])
    if foreign := used - given:
        return f"uses {next(iter(foreign))}, which is not given (so often)"
    if answer["use_all"] and used != given:
        return f"leaves {next(iter(given - used))} unused"
    if found.value is None:
        return "divides by zero"
    return "" if found.value == answer["target"] else f"is worth {found.value}"


def _problem(
    numbers: list[int], target: int, *, use_all: bool, row: Mapping[str, Any] | None = None, **meta: Any
) -> Problem:
    which = "every number exactly once" if use_all else "each number at most once"
    bare = Problem(
        id="",
        prompt=PROMPT.format(numbers=", ".join(map(str, numbers)), target=target, which=which),
        answer={"numbers": numbers, "target": target, "use_all": use_all},
        meta={"answer_format": "lenient" if row is not None else "strict", **meta},
    )
    named = [str((row or {})[key]) for key in ("task_id", "unique_id", "id") if key in (row or {})]
    return replace(bare, id=named[0] if named else bare.content_hash[:12])


def _whole_numbers(field: str, found: Any) -> list[int]:
    numbers = [int(n) if isinstance(n, str) and n.isascii() and n.isdigit() else n for n in _list(found)]
    if not numbers or not all(type(number) is int and 0 <= number < 10**9 for number in numbers):
        raise BadRow(f"field {field}: found {found!r}, understood are whole numbers from 0 on")
    return sorted(numbers)


def _list(found: Any) -> list[Any]:
    return list(found) if isinstance(found, list | tuple) else []


def _ladder(split: str, *, seed: int, limit: int) -> Iterator[Problem]:
    """Levels in rotation, without end in practice: `_WASTE` draws for each problem wanted."""
    rng = python_random(seed_for(seed, f"countdown/{split}"))
    seen: set[str] = set()
    for _ in range(_WASTE * limit):
        if len(seen) >= limit:
            return
        level = puzzles.LEVELS[len(seen) % len(puzzles.LEVELS)]
        puzzle = puzzles.draw(rng, level)
        if puzzle is None:
            continue
        problem = replace(
            _problem(list(puzzle.numbers), puzzle.target, use_all=False, solution=puzzle.solution), level=level
        )
        if problem.content_hash not in seen and datasets.split_of(problem) == split:
            seen.add(problem.content_hash)
            yield problem


def _game24() -> list[dict[str, Any]]:
    folder = config.data_folder()
    path = folder / GAME24_FILE if folder is not None else None
    if path is None or not path.exists():
        raise UsageError(
            f"benchmark game24 needs {path or GAME24_FILE + ' under the folder that HARNESS_DATA names'}: one JSON row a "
            'line with a field "Puzzles" ("1 2 4 7"), from src/tot/data/24/24.csv of princeton-nlp/tree-of-thought-llm'
        )
    return datasets.read_rows(path)
