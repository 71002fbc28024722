"""What an engine hands over, checked as it enters the core: once for all engines.

Does: stand between the core and an engine; see that rollouts are the ones asked for and that rollouts, scores, directions and
optimizer steps are finite; turn what an engine raises into a message.
Doesn't: see that numbers are right (`harness check` does, harness/testing/engine_rules.py), or bound a KL: that of a step too
far may be anything (stepping.py).

A number that is not finite is a fact about a policy (NotFinite: a method that meets it gets a row that says so, the base's
ends the run). Anything else is a fault of the engine and ends the run (EngineFailure).
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np

from harness import limits
from harness.contracts import Engine
from harness.errors import EngineFailure, HarnessError, NotFinite
from harness.types import Direction, Policy, Rollout, Shard, TokenScore

SLACK = 1e-3  # nats above zero that rounding may put a log-probability at
Call: TypeAlias = Callable[..., Any]


class _Admitted:
    """Its subject, with a check between the caller and some of its methods."""

    def __init__(self, subject: Any, checks: Mapping[str, Callable[..., Any]]) -> None:
        self._subject, self._checks = subject, checks

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._subject, name)
        return partial(self._checks[name], found) if name in self._checks else found


def engine(make: Callable[[], Engine]) -> Engine:
    """The engine that `make` starts, with its answers checked."""
    with _told("at its start"):
        return cast(Engine, _Admitted(make(), _ENGINE))


def name_of(engine: Engine) -> str:
    """Of the engine's class."""
    return type(getattr(engine, "_subject", engine)).__name__


@contextmanager
def _told(when: str) -> Iterator[None]:
    """What an engine raises as EngineFailure; failures of the system, such as a full disk, are no fault of its."""
    try:
        yield
    except (HarnessError, OSError):
        raise
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise EngineFailure(f"the engine failed {when}: {reason} ({at.filename}, line {at.lineno})") from error


def _sample(call: Call, shards: Sequence[Shard], policy: Policy) -> Iterator[list[Rollout]]:
    return _shards(call, (shards, policy), shards)


def _sample_each(call: Call, shards: Sequence[Shard], policies: Sequence[Policy]) -> Iterator[list[Rollout]]:
    return _shards(call, (shards, policies), shards)


def _shards(call: Call, arguments: tuple[Any, ...], shards: Sequence[Shard]) -> Iterator[list[Rollout]]:
    with _told("sampling"):
        drawn = iter(call(*arguments))
    for number, shard in enumerate(shards):
        with _told("sampling"):
            found = next(drawn, None)
        if found is None:
            raise EngineFailure(f"the engine drew {number} shards where {len(shards)} were asked for")
        _check_shard(shard, found)
        yield found


def _check_shard(shard: Shard, found: Sequence[Rollout]) -> None:
    asked = [(r.problem_id, i, seed) for r in shard for i, seed in zip(r.sample_idxs, r.seeds, strict=True)]
    drawn = [(rollout.problem_id, rollout.sample_idx, rollout.seed) for rollout in found]
    if drawn != asked:
        first = next(
            (i for i, (a, b) in enumerate(zip(asked, drawn, strict=False)) if a != b), min(len(asked), len(drawn))
        )
        raise EngineFailure(
            f"the engine drew other rollouts than asked for: {len(drawn)} of {len(asked)}, the first difference at place {first}"
        )
    for rollout in found:
        if fault := _fault(rollout):
            raise EngineFailure(f"a rollout of problem {rollout.problem_id} {fault}")
    logprobs = np.concatenate([rollout.logprobs for rollout in found])
    entropies = [rollout.entropies for rollout in found if rollout.entropies is not None]
    _finite("log-probabilities of drawn tokens", logprobs, policy=found[0].policy)
    _finite("entropies of drawn tokens", *entropies, policy=found[0].policy)
    if (highest := float(logprobs.max())) > SLACK:
        raise EngineFailure(f"a drawn token has log-probability {highest:.3g}, which is above zero")


def _fault(rollout: Rollout) -> str:
    """What is wrong with its shape."""
    count = len(rollout.completion_tokens)
    if not count:
        return "has no token, not even the one that ends it"
    if len(rollout.logprobs) != count or (rollout.entropies is not None and len(rollout.entropies) != count):
        return f"has {count} tokens and {len(rollout.logprobs)} log-probabilities"
    if rollout.completion_tokens.dtype.kind not in "iu" or int(rollout.completion_tokens.min()) < 0:
        return "has tokens that are no numbers of a vocabulary"
    if not limits.is_unicode(rollout.text):
        return "has a text that is no Unicode (a lone surrogate)"
    return ""


def _finite(what: str, *arrays: Any, policy: str) -> None:
    """Raises NotFinite."""
    bad = sum(int((~np.isfinite(array)).sum()) for array in arrays)
    if bad:
        raise NotFinite(
            f"{bad} {what} of policy {policy} are NaN or infinite. Of a base model: are its weights whole, and does "
            "--set engine.dtype=float32 help? Of a trained one: its steps were too large."
        )


def _score(call: Call, rollouts: Sequence[Rollout], policy: Policy, **how: Any) -> list[TokenScore]:
    with _told("scoring"):
        found: list[TokenScore] = call(rollouts, policy, **how)
    lengths = [len(rollout.completion_tokens) for rollout in rollouts]
    if [len(score.logprobs_T) for score in found] != lengths or [len(score.entropy_T) for score in found] != lengths:
        raise EngineFailure("the engine scored other tokens than it was given")
    _finite("log-probabilities", *(score.logprobs_T for score in found), policy=policy.id)
    _finite("entropies", *(score.entropy_T for score in found), policy=policy.id)
    return found


def _direction(call: Call, *arguments: Any, **how: Any) -> Direction | list[Direction]:
    with _told("in a gradient"):
        found: Direction | list[Direction] = call(*arguments, **how)
    for direction in [found] if isinstance(found, Direction) else found:
        if not (math.isfinite(direction.norm) and math.isfinite(direction.weight_norm)):
            raise NotFinite(
                f"a gradient has norm {direction.norm:.3g} at weights of norm {direction.weight_norm:.3g}: there is no "
                "direction. Try --set engine.dtype=float32."
            )
    return found


def _trainer(call: Call, *arguments: Any, **how: Any) -> Any:
    with _told("making a trainer"):
        return _Admitted(call(*arguments, **how), {"step": _step})


def _step(call: Call, *arguments: Any) -> Mapping[str, float]:
    with _told("in an optimizer step"):
        found: Mapping[str, float] = call(*arguments)
    if not (math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"])):
        raise NotFinite(
            f"an optimizer step has loss {found['loss']:.3g} and gradient norm {found['grad_norm']:.3g}: training has "
            "diverged. Use a lower rate."
        )
    return found


_ENGINE: Mapping[str, Callable[..., Any]] = {
    "sample": _sample,
    "sample_each": _sample_each,
    "score": _score,
    "gradient": _direction,
    "moments": _direction,
    "hidden": _direction,
    "trainer": _trainer,
    "actor_critic": _trainer,
}
