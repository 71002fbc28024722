"""Failure modes: known errors are called by their names, and the shares are those that the corpus draws."""

from __future__ import annotations

import math as maths
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner

from harness.contracts import Domain
from harness.seeds import python_random
from harness.types import Outcome, Problem
from harness_arc import ladder as arc
from harness_arc.domain import Arc
from harness_code import ladder as code
from harness_code.domain import Code
from harness_math import ladder as math
from harness_math.domain import Math
from harness_tiny import corpus_arc, corpus_code, corpus_math, measure, modes_table
from harness_tiny.document import weighted
from harness_tiny.modes import Completion, arc_names, classify, code_spec, math_spec, names_rule

LADDERS: dict[str, Any] = {"math": math, "code": code, "arc": arc}
CORPORA: dict[str, Any] = {"math": corpus_math, "code": corpus_code, "arc": corpus_arc}
SHARES = ("CONFUSED", "CONFUSED_VALUE", "BAD_STYLE", "EARLY", "SLIP", "DIRECT")
COUNT = 500


class Drawn(NamedTuple):
    spec: Any
    problem: Problem


class Judge:
    """The three domains' own verdicts; the code sandbox is started once."""

    def __init__(self) -> None:
        self.domains: dict[str, Domain] = {"math": Math(), "code": Code(), "arc": Arc()}

    def __call__(self, problem: Problem, text: str, *, domain: str) -> Completion:
        free = replace(problem, meta={**problem.meta, "answer_format": "lenient"})
        verdicts = [self.domains[domain].verify(p, text).outcome is Outcome.CORRECT for p in (problem, free)]
        return Completion(text, *verdicts)

    def modes(self, problem: Problem, text: str, *, domain: str) -> frozenset[str]:
        return classify(problem, self(problem, text, domain=domain), domain=domain)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    made = Judge()
    yield made
    made.domains["code"].close()  # type: ignore[attr-defined]


def specs(domain: str, rng: random.Random, *, levels: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Iterator[Drawn]:
    """Specs and problems without end, of the rules that the corpus teaches, in its shares of the levels."""
    ladder, corpus = LADDERS[domain], CORPORA[domain]
    shares = {level: share for level, share in corpus.LEVELS.items() if level in levels}
    while True:
        level = weighted(rng, shares)
        spec = ladder.draw_spec(rng, level, rng.choice(corpus.STRATA[level]))
        problem = ladder.problem_of(spec) if spec else None
        if problem is not None:
            yield Drawn(spec, replace(problem, id=f"{domain}-{rng.random()}"))


@contextmanager
def only(domain: str, monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[ModuleType]:
    """The corpus with the named shares at one and all others at zero."""
    corpus = CORPORA[domain]
    with monkeypatch.context() as patch:
        for name in SHARES:
            known = getattr(corpus, name, None)
            value = float(name in names)
            if known is not None:
                patch.setattr(corpus, name, dict.fromkeys(known, value) if isinstance(known, dict) else value)
        yield corpus


@pytest.mark.parametrize("domain", list(LADDERS))
def test_problems_are_read_back_as_their_specs(domain: str) -> None:
    drawn = specs(domain, python_random(1))
    for _ in range(150):
        spec, problem = next(drawn)
        if domain == "math":
            assert math_spec(problem) == spec
        elif domain == "code":
            assert code_spec(problem) == spec
        else:
            names, confusion = arc_names(problem), arc.CONFUSIONS[spec.rule]
            assert arc.rule_name(spec.rule, spec.colours) in names.right
            assert arc.rule_name(confusion, spec.colours) in names.confused
            assert not names.right & names.confused
            assert names.answer == spec.output(2)
            assert names.confusion == spec.output(2, confusion)


def test_foreign_problems_are_refused() -> None:
    _, problem = next(specs("math", python_random(1)))
    with pytest.raises(ValueError, match="no problem of this ladder"):
        math_spec(replace(problem, prompt=problem.prompt.replace(".", "!")))
    _, problem = next(specs("arc", python_random(1)))
    with pytest.raises(ValueError, match="does not explain"):
        arc_names(replace(problem, answer=[[9]]))


@pytest.mark.parametrize(
    ("domain", "patched", "modes"),
    [
        ("math", ("BAD_STYLE",), {"style"}),
        ("math", ("CONFUSED",), {"confused"}),
        ("math", ("EARLY",), {"early"}),
        ("math", ("SLIP",), {"slip"}),
        ("math", ("BAD_STYLE", "CONFUSED", "EARLY", "SLIP"), {"style", "confused", "early", "slip"}),
        ("code", ("BAD_STYLE",), {"style"}),
        ("code", ("CONFUSED",), {"confused"}),
        ("code", ("CONFUSED_VALUE",), {"confused"}),
        ("code", ("EARLY",), {"early"}),
        ("code", ("SLIP",), {"slip"}),
        ("code", ("BAD_STYLE", "CONFUSED_VALUE", "EARLY"), {"style", "confused", "early"}),
        ("arc", ("BAD_STYLE",), {"style"}),
        ("arc", ("CONFUSED",), {"confused"}),
        ("arc", ("SLIP",), {"slip"}),
        ("arc", ("DIRECT", "CONFUSED"), {"direct", "confused"}),
        ("arc", ("DIRECT", "SLIP"), {"direct", "slip"}),
        ("arc", ("BAD_STYLE", "DIRECT", "CONFUSED"), {"style", "direct", "confused"}),
    ],
    ids=lambda value: "+".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_known_errors_are_called_by_their_names(
    domain: str, patched: tuple[str, ...], modes: set[str], judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A completion that is right in spite of its error has no mode; few are, and single confusions never are."""
    rng, seen = python_random(2), []
    drawn = specs(domain, rng, levels=(2, 3, 4) if "EARLY" in patched else (1, 2, 3, 4, 5))
    with only(domain, monkeypatch, *patched) as corpus:
        for _ in range(60):
            spec, problem = next(drawn)
            completion = judge(problem, corpus.solution(rng, spec), domain=domain)
            found = classify(problem, completion, domain=domain)
            assert bool(found) != completion.strict
            assert found in (set(), modes) or (completion.lenient and found == {"style"}), completion.text
            seen.append(found)
    # A slipped constant may be harmless, or there is none; a slipped cell is drawn again as it was one time in six.
    assert seen.count(frozenset(modes)) >= (15 if "SLIP" in patched and domain != "math" else 50)


@pytest.mark.parametrize("domain", list(LADDERS))
def test_without_errors_there_is_no_mode(domain: str, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = python_random(3)
    drawn = specs(domain, rng)
    for patched in ((), ("DIRECT",)) if domain == "arc" else ((),):
        with only(domain, monkeypatch, *patched) as corpus:
            for _ in range(30):
                spec, problem = next(drawn)
                text = corpus.solution(rng, spec)
                assert judge.modes(problem, text, domain=domain) == set()
                assert domain != "arc" or names_rule(text) == (not patched)


M = math.Spec(2, "Take", 47, (("subtract", 12), ("double", 0)))
C = code.Spec(2, "# Goal:", "f", (("skip", 2), ("over", 5)), "sum")
GRID = [[1, 0, 2], [0, 3, 3], [4, 0, 1]]


def problem_of_arc(rule: str) -> Problem:
    grids = ([[1, 2, 0], [3, 0, 4], [0, 1, 1]], [[2, 2, 1], [0, 4, 0], [1, 0, 3]], GRID)
    return arc.problem_of(arc.Spec(1, arc.HEADERS[0], rule, (1, 5), grids))


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("47-12=35;35*2=70;\\boxed{70}", set()),
        ("\\boxed{70}", set()),
        ("47-12=35;35*2=70; The answer is 70.", {"style"}),
        ("47-12=35;35*2=70", {"style"}),
        ("47-12=35;36*2=72;\\boxed{72}", {"slip"}),
        ("47-13=34;34*2=68;\\boxed{68}", {"slip"}),
        ("47-12=35;35*2=70;\\boxed{71}", {"slip"}),
        ("47 plus 59;59+2=62; The answer is: 62", {"confused", "slip", "style"}),
        ("47-12=35;\\boxed{35}", {"early"}),
        ("47-12=25; The answer is 25.", {"early", "slip", "style"}),
        ("47*2=94;94-12=82;\\boxed{82}", {"other"}),
        ("47*2=94;\\boxed{94}", {"other"}),
        ("47 plus 59;59*3=177;\\boxed{177}", {"confused", "other"}),
        ("47-12=35;35*2=70;70+1=71;\\boxed{71}", {"other"}),
        ("47-12=35;35*2=70;\\boxed{x}", {"other", "style"}),
        ("\\boxed{47}", {"other"}),
        ("\\boxed{13}", {"other"}),
        ("", {"other"}),
        (";;;", {"other"}),
    ],
)
def test_math_completions_by_hand(text: str, modes: set[str], judge: Judge) -> None:
    assert judge.modes(math.problem_of(M), text, domain="math") == modes


@pytest.mark.parametrize(
    ("lines", "modes"),
    [
        (("a = a[2:]", "a = [x for x in a if x>5]", "return sum(a)"), set()),
        (("return sum([x for x in a[2:] if x>5])",), set()),
        (("a = a[2:]", "a = [x for x in a if x>5]", "print(sum(a))"), {"style"}),
        (("a = a[2:]", "a = [x for x in a if x>=5]", "return sum(a)"), {"confused"}),
        (("a = a[2:]", "a = [x for x in a if x>5]", "print(sum(a[1:]))", "return"), {"confused", "style"}),
        (("a = a[3-1:]", "a = [x for x in a if x>6]", "return sum(a)"), {"confused", "slip"}),
        (("a = a[3:]", "a = [x for x in a if x>5]", "return sum(a)"), {"slip"}),
        (("a = a[2:]", "return sum(a)"), {"early"}),
        (("a = [x for x in a if x>5]", "a = a[2:]", "return sum(a)"), {"other"}),
        (("a = a[-2:]", "a = [x for x in a if x>5]", "return sum(a)"), {"other"}),
        (("a = a[3:]", "a = [x for x in a if x>5]", "a = a+a", "return sum(a)"), {"slip", "other"}),
        (("a = a[2:]", "a = [x for x in a if x>5]", "return len(a)"), {"other"}),
        (("return sum(a)",), {"other"}),
        (("a = a[2:",), {"other"}),
    ],
)
def test_code_completions_by_hand(lines: tuple[str, ...], modes: set[str], judge: Judge) -> None:
    problem = code.problem_of(C)
    assert problem is not None
    assert judge.modes(problem, "\n".join(f"    {line}" for line in lines), domain="code") == modes


@pytest.mark.parametrize(
    ("rule", "text", "modes"),
    [
        ("flip h", " # flip h: a201 b330 c104", set()),
        ("flip h", " # turn: a201 b330 c104", set()),
        ("flip h", " # flip h: a201 b330 c104\nso flip h", {"style"}),
        ("flip h", " # pull: a020 b330 c010", {"confused"}),
        ("flip h", " # pull: a020 b330 c011\nso it is pull", {"confused", "slip", "style"}),
        ("flip h", " # flip h: a201 b330 c100", {"slip"}),
        ("flip h", " # flip h: a020 b330 c010", {"slip"}),
        ("flip h", " # flip v: a401 b033 c102", {"other"}),
        ("flip h", " # flip v: a401 b033 c100", {"other", "slip"}),
        ("flip h", " # flop: a401 b033 c102", {"other"}),
        ("flip h", " a201 b330 c104", set()),
        ("flip h", " a020 b330 c010", {"direct", "confused"}),
        ("flip h", " a201 b330 c100", {"direct", "slip"}),
        ("flip h", " a020 b330 c011", {"direct", "confused", "slip"}),
        ("flip h", " a000 b000 c000", {"direct"}),
        ("flip h", " a20 b33", {"direct"}),
        ("flip h", " a111 b330 c104\nso flip h", {"direct", "slip", "style"}),
        ("flip h", " a401 b033 c102\nso it is flip v", {"direct", "other", "style"}),
        ("flip h", " # flip h:", {"other"}),
        ("flip h", "", {"other"}),
        ("recolor", " # 1 to 5: a502 b033 c405", set()),
        ("recolor", " # 1 to 4: a402 b033 c404", {"other"}),
        ("recolor", " # paint 5: a505 b055 c505", {"confused"}),
        ("paint", " # same: a102 b033 c401", {"confused"}),
        ("paint", " # paint 5: a505 b055 c555", {"slip"}),
    ],
)
def test_arc_completions_by_hand(rule: str, text: str, modes: set[str], judge: Judge) -> None:
    assert judge.modes(problem_of_arc(rule), text, domain="arc") == modes


def test_a_truncated_completion_is_that_alone() -> None:
    text = "47 plus 59;59+2=61;59"
    assert classify(math.problem_of(M), Completion(text, False, False, True), domain="math") == {"truncated"}
    assert classify(math.problem_of(M), Completion(text, True, True, True), domain="math") == set()


def expected(domain: str, spec: Any) -> dict[str, float]:
    """The corpus's own probability of each mode for a problem, coincidences aside."""
    corpus = CORPORA[domain]
    if domain == "arc":
        confused, slip = corpus.CONFUSED[spec.rule], corpus.SLIP * 5 / 6  # a new cell is the old one in one of six
        wrong = 1 - (1 - confused) * (1 - slip)
        style = corpus.BAD_STYLE[spec.header]
        return {"style": style, "confused": confused, "slip": slip, "direct": corpus.DIRECT * wrong}
    early = corpus.EARLY if len(spec.chain) > 1 else 0.0
    last = corpus.CONFUSED_VALUE[spec.value] if domain == "code" else 0.0
    kept = [maths.prod(1 - corpus.CONFUSED[name] for name, _ in chain) for chain in (spec.chain, spec.chain[:-1])]
    slipping = [domain == "math" or len(code.STAGES[name].operands) > 1 for name, _ in spec.chain]
    even = [(1 - corpus.SLIP) ** sum(places) for places in (slipping, slipping[:-1])]
    return {
        "style": corpus.BAD_STYLE[spec.opener],
        "confused": 1 - (1 - last) * ((1 - early) * kept[0] + early * kept[1]),
        "early": early,
        "slip": 1 - ((1 - early) * even[0] + early * even[1]),
    }


@pytest.mark.parametrize("domain", list(LADDERS))
def test_shares_are_those_that_the_corpus_draws(domain: str, judge: Judge) -> None:
    rng = python_random(4)
    drawn = specs(domain, rng)
    found, wanted = [], []
    for _ in range(COUNT):
        spec, problem = next(drawn)
        completion = judge(problem, CORPORA[domain].solution(rng, spec), domain=domain)
        found.append(classify(problem, completion, domain=domain))
        wanted.append(expected(domain, spec))
        assert bool(found[-1]) != completion.strict, completion.text
    assert not any(modes & {"other", "truncated"} for modes in found)
    for mode in wanted[0]:
        p_P = np.array([share[mode] for share in wanted])
        share = sum(mode in modes for modes in found) / COUNT
        assert share == pytest.approx(p_P.mean(), abs=4 * maths.sqrt((p_P * (1 - p_P)).sum()) / COUNT), mode


def test_modal_completion_and_shares_by_hand() -> None:
    right, early, style = "47-12=35;35*2=70;\\boxed{70}", "47-12=35;\\boxed{35}", "47-12=35; The answer is 35."
    a, b, c = Completion(right, True, True), Completion(early, False, False), Completion(style, False, False)
    assert modes_table.modal([c, b, a, b], a) == b
    assert modes_table.modal([c, b, a], a) == a
    assert modes_table.modal([c, b, c, b], a) == c
    problem = math.problem_of(M)
    found = modes_table.shares([problem, problem], [[c, b, a, b], [a, a, a, c]], domain="math")
    seen = {row: values.tolist() for row, values in found.items() if values.any()}
    assert seen == {
        "wrong": [0.75, 0.25],
        "by content alone": [0.5, 0.0],
        "by both": [0.25, 0.25],
        "style": [0.25, 0.25],
        "early": [0.75, 0.25],
    }


def test_rates_have_the_interval_of_their_problems() -> None:
    rate = measure.rate_of([0.0, 0.5, 1.0, 0.5])
    half = 1.96 * maths.sqrt(1 / 6) / 2
    assert rate == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert measure.rate_of([1.0, 1.0, 0.0]).high == 1.0
    assert str(measure.Rate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"


@pytest.mark.parametrize(
    ("arguments", "head"),
    [
        (["--level", "5"], "| domain | level | T=1 | pass@3 | T=1 lenient | greedy | greedy lenient |"),
        (["--level", "1", "--modes"], "| math | T=1 | greedy | modal |"),
    ],
    ids=["pass rates", "modes"],
)
def test_measure_prints_a_table(arguments: list[str], head: str) -> None:
    few = ["--domain", "math", "--problems", "2", "--samples", "3"]
    printed = CliRunner().invoke(measure.main, [*few, *arguments], catch_exceptions=False).output.splitlines()
    assert "95 %" in printed[0]
    start = printed.index(head)
    rows = [line for line in printed[start + 2 :] if line]
    assert {line.count("|") for line in printed[start:] if line} == {head.count("|")}
    assert len(rows) == (len(modes_table.ROWS) - 1 if "--modes" in arguments else 1)


def test_fewer_levels_do_not_change_the_problems() -> None:
    drawn = list(math.problems("test", seed=0, limit=20))
    with measure.opened("math", problems=4) as (_, by_level):
        assert by_level == {level: [p for p in drawn if p.level == level] for level in (1, 2, 3, 4, 5)}
        assert [len(problems) for problems in by_level.values()] == [4] * 5
