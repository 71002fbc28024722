"""Verifiers as reward functions of TRL: what it passes and gets, by hand and through its own GRPOTrainer."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from harness import adapters, plugins, sampling
from harness.adapters import COLUMN, WINDOW, TrlReward, trl_reward, trl_rows
from harness.config import RewardSpec
from harness.errors import BadRow, UnknownName, UsageError, VerifierFailure
from harness.plugins import Registration
from harness.types import Finish, Outcome, Problem, Rollout
from harness.verifying import VerifierPool
from harness_code.domain import Code
from harness_math.domain import Math

GUIDE = Path(__file__).resolve().parent.parent / "docs" / "write-a-verifier.md"
DOMAIN = """
import os, time
from harness.types import Outcome, Problem, Verdict

class Odd:
    name, version = "odd", 1

    def read(self, row):
        return Problem(id="x", prompt="x", answer=sorted(row))

    @staticmethod
    def isolation():
        return "rlimits"

    def verify(self, problem, completion):
        if completion.startswith("sleep"):
            time.sleep(600)
        if completion.startswith("raise"):
            raise RuntimeError("boo")
        outcome = Outcome(completion) if completion in list(Outcome) else Outcome.CORRECT
        return Verdict(outcome=outcome, detail=str(os.getpid()))
"""
Make = Callable[..., TrlReward]


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes rewards of a domain that sleeps and raises as told."""
    (tmp_path / "odd_adapted.py").write_text(DOMAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    registration = Registration(
        kind="domain", name="odd", target="odd_adapted:Odd", summary="", distribution="odd", version="1"
    )
    made: list[TrlReward] = []

    def make(**options: Any) -> TrlReward:
        made.append(TrlReward(registration, workers=1, **options))
        return made[-1]

    yield make
    for reward in made:
        reward.close()


def call(reward: TrlReward, completions: list[Any], **columns: list[Any]) -> list[float | None]:
    """As TRL 1.16 calls it."""
    return reward(
        prompts=["?"] * len(completions),
        completions=completions,
        completion_ids=[[1]] * len(completions),
        trainer_state=object(),
        log_extra=lambda column, values: None,
        log_metric=lambda name, value: None,
        **columns,
    )


def workers_of(reward: TrlReward) -> list[int]:
    return [worker.process.pid for worker in reward._pool._workers]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_the_column_is_the_problem() -> None:
    """Nothing is lost on the way through JSON, for ladders of every kind of answer."""
    for name, domain in (("math", Math()), ("code", Code())):
        problems = list(domain.problems("ladder", "train", seed=3, limit=5))
        rows = trl_rows(name, split="train", seed=3, limit=5)
        assert [row["prompt"] for row in rows] == [problem.prompt for problem in problems]
        assert [Problem(**json.loads(row[COLUMN])) for row in rows] == problems


def test_text_and_chat_completions() -> None:
    (row,) = trl_rows("math", limit=1)
    gold = Problem(**json.loads(row[COLUMN])).answer
    right, wrong, unparsed = f"\\boxed{{{gold}}}", "\\boxed{98765}", f"{gold}"
    asked = {"role": "assistant", "content": wrong, "tool_calls": []}
    tool = {"role": "tool", "content": right}
    parts = [{"type": "text", "text": right[:4]}, {"type": "image"}, {"type": "text", "text": right[4:]}]
    expected: list[tuple[Any, float]] = [
        (right, 1.0),
        (wrong, 0.0),
        (unparsed, -1.0),
        ([{"role": "assistant", "content": right}], 1.0),
        ([asked, tool, {"role": "assistant", "content": right}], 1.0),
        ([asked, tool], -1.0),  # what a tool says is no answer
        ([{"role": "assistant", "content": parts}], 1.0),
        ([{"role": "assistant", "content": None}], -1.0),
        ([], -1.0),
        ("", -1.0),
    ]
    with trl_reward("math", rewards=RewardSpec(unparsed=-1.0), workers=1) as reward:
        given = call(reward, [completion for completion, _ in expected], **{COLUMN: [row[COLUMN]] * len(expected)})
    assert given == [value for _, value in expected]


def test_columns_of_an_own_data_set() -> None:
    """Rows as `harness verify` takes them; nulls, which another row's field leaves, are no values."""
    with trl_reward("math", workers=1) as reward:
        given = call(
            reward,
            ["\\boxed{72}", "\\boxed{72}", "\\boxed{\\frac12}"],
            question=["How many hours are 3 days?"] * 2 + [None],
            problem=[None, None, "Halve one."],
            answer=["24 * 3 = 72\n#### 72", "71", None],
            solution=[None, None, "$\\boxed{0.5}$"],
        )
    assert given == [1.0, 0.0, 1.0]


def test_the_prompt_may_be_a_field_and_fields_may_have_other_names() -> None:
    task = {"prompt": "def twice(x):\n", "entry_point": "twice", "test": "def check(f):\n    assert f(2) == 4\n"}
    answer, chat = "def twice(x):\n    return 2 * x\n", [{"role": "user", "content": "Write twice(x), please."}]
    assert Code().read(task).prompt
    columns = {key: [value] for key, value in task.items() if key != "prompt"}
    with trl_reward("code", workers=1) as reward:
        assert reward([task["prompt"]], [answer], **columns) == [1.0]
        with pytest.raises(BadRow, match=r"field prompt.*columns entry_point, prompt, test; fields="):
            reward([chat], [answer], **columns)
    with trl_reward("code", workers=1, fields={"prompt": "task", "test": "checks"}) as reward:
        renamed = {"entry_point": ["twice"], "task": [task["prompt"]], "checks": [task["test"]], "test": ["no code"]}
        assert reward([chat], [answer], **renamed) == [1.0]
        with pytest.raises(UsageError, match="no column checks, task; it has entry_point, prompt, test"):
            reward([chat], [answer], **columns)


def test_an_error_is_none_and_a_time_limit_is_not(odd: Make) -> None:
    said: dict[str, float] = {}
    reward = odd(timeout=0.5, rewards=RewardSpec(correct=2.0, wrong=-1.0, unparsed=-2.0, timeout=-3.0))
    completions = ["right", "wrong", "unparsed", "sleep", "raise"]
    given = reward(["?"] * 5, completions, log_metric=said.__setitem__)
    assert given == [2.0, -1.0, -2.0, -3.0, None]
    assert said == {f"odd/{outcome}": 0.2 for outcome in Outcome}


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_timeout_is_a_time(odd: Make, seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout must be"):
        odd(timeout=seconds)


def test_a_verifier_that_fails_too_often_ends_the_training(odd: Make) -> None:
    with pytest.raises(
        VerifierFailure, match=r"failed on 20 of 60 completions \(limit: 1 %\)[^$]* 20 x exception.*boo"
    ):
        call(odd(), ["raise"] * 20 + ["right"] * 40)


def test_failures_in_small_calls_add_up_over_the_latest_verdicts(odd: Make) -> None:
    """TRL's calls are small: 5 failures in each of four must not pass where 20 in one do not."""
    reward = odd()
    call(reward, ["right"] * WINDOW)
    for _ in range(4):  # 20 of the latest 2000 are 1 %, which is allowed
        call(reward, ["right"] * 95 + ["raise"] * 5)
    with pytest.raises(VerifierFailure, match=f"failed on 21 of {WINDOW}"):
        call(reward, ["right"] * 99 + ["raise"])
    for _ in range(17):
        call(reward, ["right"] * 100)  # the failures of long ago leave the window
    call(reward, ["right"] * 99 + ["raise"])
    assert len(reward._recent) == WINDOW


def test_workers_start_at_the_first_call_and_end_with_close(odd: Make) -> None:
    reward = odd()
    assert reward.__name__ == "odd"
    assert workers_of(reward) == []
    assert call(reward, []) == []
    with reward:
        call(reward, ["right"])
        (pid,) = workers_of(reward)
        call(reward, ["wrong"])
        assert workers_of(reward) == [pid]
    assert gone(pid)
    assert call(reward, ["right"]) == [1.0]


def test_workers_end_with_the_object(odd: Make) -> None:
    """Here a copy, as another process has it."""
    dropped = pickle.loads(pickle.dumps(odd()))
    assert call(dropped, ["right"]) == [1.0]
    (pid,) = workers_of(dropped)
    del dropped
    gc.collect()
    assert gone(pid)


def test_a_fork_leaves_the_workers_alone_and_the_end_of_the_process_does_not(odd: Make, tmp_path: Path) -> None:
    """Without close(): a forked copy ends first, and the original must still be able to judge, then leave nothing."""
    script = f"""
        import os, sys
        from harness.adapters import TrlReward
        from harness.plugins import Registration
        reward = TrlReward({odd()._registration!r}, workers=1)
        reward(["?"], ["right"])
        pid = reward._pool._workers[0].process.pid
        if not os.fork():
            sys.exit()
        os.wait()
        os.kill(pid, 0)
        assert reward(["?"], ["wrong"]) == [0.0]
        assert [worker.process.pid for worker in reward._pool._workers] == [pid]
        print(pid)
    """
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert wait_for(lambda: gone(int(done.stdout)))


def test_names_and_isolation(odd: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match='did you mean "math"'):
        trl_reward("maths")
    found = plugins.Plugins()
    found.registered["domain", "odd"] = odd()._registration
    monkeypatch.setattr(plugins, "load", lambda: found)
    with pytest.warns(UserWarning, match="isolation: rlimits. WEAK: below landlock"):
        trl_reward("odd").close()


def test_importing_the_adapter_imports_no_trainer() -> None:
    code = (
        "import sys, harness.adapters; print(sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


class Trained(NamedTuple):
    """The trainer, and which arguments it called the reward function with that are lists."""

    trainer: Any
    lists: set[str]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The trainer of the guide's example, after its two steps in the present folder."""
    for package in ("trl", "datasets"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'oneshot-harness[trl]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    section = (
        GUIDE.read_text(encoding="utf-8").partition("## Use a verifier in your own trainer\n")[2].partition("\n## ")[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("    ") or not line]
    names: dict[str, Any] = {}
    lists: set[str] = set()
    own = TrlReward.__call__

    def spy(self: TrlReward, **arguments: Any) -> list[float | None]:
        lists.update(name for name, value in arguments.items() if isinstance(value, list))
        return own(self, **arguments)

    monkeypatch.setattr(TrlReward, "__call__", spy)
    exec(compile(textwrap.dedent("\n".join(lines)), str(GUIDE), "exec"), names)
    return Trained(names["trainer"], lists)


@pytest.mark.slow
def test_what_trl_trains_on_is_what_the_harness_gives(trained: Trained) -> None:
    """Two real steps of GRPOTrainer on the math ladder: every logged reward is the harness's own for that completion."""
    import pandas

    problems = {problem.prompt: problem for problem in Math().problems("ladder", "train", seed=0, limit=256)}
    steps = [log for log in trained.trainer.state.log_history if "reward" in log]
    assert len(steps) == 2
    assert trained.lists - set(adapters._NO_COLUMNS) == {"prompts", "completions", COLUMN}
    outcomes = []
    for number, log in enumerate(steps, start=1):
        table = pandas.read_parquet(f"trained/completions/completions_{number:05d}.parquet")
        rollouts = [
            rollout(problems[prompt], text) for prompt, text in zip(table["prompt"], table["completion"], strict=True)
        ]
        with VerifierPool("harness_math.domain:Math") as pool:
            judged = sampling.judge(rollouts, {problem.id: problem for problem in problems.values()}, pool)
        expected = [RewardSpec().of(one.verdict.outcome) for one in judged]
        assert len(expected) == 64
        assert table["math"].tolist() == expected
        assert log["rewards/math/mean"] == log["reward"] == pytest.approx(np.mean(expected))
        outcomes += [one.verdict.outcome for one in judged]
        for outcome in Outcome:
            share = np.mean([one.verdict.outcome is outcome for one in judged])
            assert log[f"math/{outcome}"] == pytest.approx(share)
        assert log["grad_norm"] > 0
    assert {Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED} <= set(outcomes)


def rollout(problem: Problem, text: str) -> Rollout:
    nothing = np.zeros(0, dtype=np.int32)
    return Rollout(
        problem_id=problem.id,
        sample_idx=0,
        policy="",
        seed=0,
        prompt_tokens=nothing,
        completion_tokens=nothing,
        logprobs=nothing.astype(np.float32),
        text=text,
        finish=Finish.STOP,
    )
