"""Options of methods: every value that cannot work is refused by the option's name, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tabular_run import small_spec

from harness import plugins
from harness.contracts import Check
from harness.errors import UnknownName, UsageError
from harness.limits import MOST, above, at_least, each, one_of, within
from harness.methods import check_options, methods_of
from harness.plugins import Registration
from harness.testing.watching import StandIn

FOUND = plugins.load({})
OPTIONS = [
    (one.name, option)
    for one in (FOUND.lookup("method", name) for name in FOUND.names("method"))
    if one.distribution == plugins.OWN
    for option in getattr(one.load(), "options", {})
]
COUNT = ("0", "-1", str(MOST + 1))
BAD: Mapping[str, tuple[str, ...]] = {
    "aggregation": ("token",),
    "beta": ("0", "-0.1", "inf"),
    "cap": ("-1",),
    "checkpoints": COUNT,
    "clip_high": ("-0.1",),
    "clip_low": ("-0.1",),
    "clip_norm": ("-1.0",),
    "critic_lr": ("0", "-1", "inf"),
    "depths": ("[]", "[0.0]", "[0.5, 1.5]"),
    "direction": ("foo", "lora", "lora0", "4"),
    "entropy": ("inf", "-inf"),
    "epochs": COUNT,
    "examples": ("-1",),
    "gae_lambda": ("-0.1", "1.1"),
    "group": ("-1", "1"),
    "k": COUNT,
    "keep": COUNT,
    "kind": ("em",),
    "kl": ("-0.1", "inf"),
    "lr": ("0", "-1", "inf"),
    "minibatch": COUNT,
    "mode": ("twice",),
    "n": COUNT,
    "per_problem": COUNT,
    "perturbations": COUNT,
    "pick": ("spread",),
    "policy": ("inf",),
    "population": ("1", *COUNT),
    "problem": ("ladder/1/0", "[1]", "[['ladder/1/0']]"),
    "rate": ("-0.1", "1.1"),
    "reward": ("forma",),
    "scheme": ("grop",),
    "sigma": ("0", "-0.1", "inf"),
    "sigmas": ("[]", "[0.0]", "[0.1, -0.1]", "[inf]"),
    "steps": COUNT,
    "temperature": ("-0.1", "inf"),
    "temperatures": ("[-0.1]", "[0.5, inf]"),
    "tries": COUNT,
    "updates_per_batch": COUNT,
    "value": ("-0.1", "inf"),
    "value_clip": ("-0.1",),
    "weight_decay": ("-0.1", "inf"),
}
FREE = {
    "antithetic", "dedupe", "rank_one", "resample", "whiten",  # yes or no
    "history", "label", "prompt", "separator",  # any text
}  # fmt: skip


def checked(*sets: str, methods: list[str], found: plugins.Plugins = FOUND) -> dict[str, dict[str, Any]]:
    spec = small_spec(*sets, methods=methods)
    return check_options(spec, methods_of(spec, found))


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_what_a_built_in_cannot_run_with_is_refused_by_name(name: str, option: str) -> None:
    assert (option in BAD) != (option in FREE), f"say which values of {option} cannot work, or that all do"
    for value in BAD.get(option, ()):
        with pytest.raises(UsageError, match=rf"method\.{name}\.{option}\b"):
            checked(f"method.{name}.{option}={value}", methods=[name])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("base_tempered", ("temperatures=[]",)),
        ("base_tempered", ("temperatures=[0, 2]",)),
        ("entropy_bonus", ("examples=0",)),
        ("evolution", ("population=2", "temperature=1")),
        (
            "grpo",
            ("clip_low=0", "clip_high=inf", "kl=0", "entropy=-0.1", "policy=0", "clip_norm=inf", "weight_decay=0"),
        ),
        ("hidden_direction", ("depths=[1]",)),
        ("one_shot", ("direction=lora3",)),
        ("one_shot", ("direction=positives_only",)),
        ("ppo", ("gae_lambda=0", "value=0", "value_clip=0")),
        ("random_search", ("perturbations=1", "keep=1", "sigmas=[1]")),
        ("rejection_sft", ("cap=0", "mode=one_step", "direction=adam")),
        ("single_example", ("group=2", "rate=0", "pick=variance", "reward=format")),
        ("single_example", ("group=0", "rate=1")),
    ],
)
def test_the_ends_of_what_is_possible_are_let_through(name: str, settings: tuple[str, ...]) -> None:
    options = checked(*(f"method.{name}.{setting}" for setting in settings), methods=[name])[name]
    for setting in settings:
        option, _, value = setting.partition("=")
        assert str(options[option]) == value


def test_a_variants_options_are_called_by_its_own_name() -> None:
    with pytest.raises(UsageError, match=r"^method\.slow\.lr must be above 0, got -1$"):
        checked("method.slow.uses=grpo", "method.slow.lr=-1", methods=["grpo", "slow"])
    with pytest.raises(UnknownName, match=r'^no method\.slow\.scheme "grop"\. Known: .*did you mean "grpo"'):
        checked("method.slow.uses=grpo", "method.slow.scheme=grop", methods=["slow"])


class Even:
    """A method of somebody else; its default would not pass."""

    name, version = "even", 1
    options: Mapping[str, Any] = {"pace": 3, "other": 1}

    @staticmethod
    def even(value: int, name: str) -> None:
        if value % 2:
            raise UsageError(f"{name} is odd: {value}")

    checks: Mapping[str, Check] = {"pace": even}


def test_a_plugins_own_check_is_asked_of_what_is_given() -> None:
    facts = {"kind": "method", "name": "even", "summary": "", "distribution": "acme", "version": "1", "target": "a:B"}
    registration: Registration = StandIn(made=Even, **facts)
    found = plugins.Plugins()
    found.registered = {**FOUND.registered, ("method", "even"): registration}
    assert checked("method.even.pace=4", "method.even.other=5", methods=["even"], found=found)["even"]["pace"] == 4
    assert checked(methods=["even"], found=found)["even"]["pace"] == 3
    with pytest.raises(UsageError, match=r"^method\.even\.pace is odd: 5$"):
        checked("method.even.pace=5", methods=["even"], found=found)


@pytest.mark.parametrize(
    ("check", "good", "bad", "said"),
    [
        (within(0, 1), [0, 0.5, 1], [-0.1, 1.1, float("nan")], "a must be at (least 0|most 1), got"),
        (at_least(2), [2, MOST], [1, MOST + 1], "a must be at (least 2|most 10,000,000), got"),
        (above(0, 1), [0.1, 1], [0, -1, 1.1, float("nan")], "a must be (above 0|at most 1), got"),
        (one_of(["ab", "4"]), ["ab", 4], ["abc", 5], 'no a ".*". Known: 4, ab'),
        (each(above(0)), [[], [1, 2]], [[1, 0]], "a must be above 0, got 0"),
        (each(above(0), least=2), [[1, 2]], [[], [1]], "a must have at least 2 values, got"),
    ],
)
def test_what_checks_let_through(check: Check, good: list[Any], bad: list[Any], said: str) -> None:
    for value in good:
        check(value, "a")
    for value in bad:
        with pytest.raises(UsageError, match=said):
            check(value, "a")
