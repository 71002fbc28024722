"""The rules of an engine: what sampling, searching, training and resuming rely on.

Does: check rollouts, scores, gradients, policies and trainers through the Engine protocol alone, against each other
and against finite differences.
Doesn't: compare with another implementation of the same model, or measure speed.
"""

from __future__ import annotations

import json
import math

import numpy as np

from harness import store
from harness.contracts import Engine, Optimizer
from harness.objectives import PolicyGradient
from harness.testing.domain_subject import members_of
from harness.testing.engine_subject import (
    BASE,
    MAX_TOKENS,
    SMALL_MICROBATCH,
    Arrays,
    EngineSubject,
    apart,
    tokens_of,
)
from harness.testing.rules import Rule, demand, shown
from harness.types import Finish, Move, Policy, Rollout

LOGPROB_NATS = 1e-3
MICROBATCH_RELATIVE = 1e-5
SLOPE_RELATIVE = 0.02
SLOPE_STEP = 1e-3  # of |theta|, per tensor: large against rounding in fp32, small against curvature
DIRECTIONS = 3
FAR = 0.05


def start(subject: EngineSubject) -> str:
    """It starts on the model "tiny" and says what it is and what it can hold."""
    missing = [name for name in members_of(Engine) if not callable(getattr(subject.engine, name, None))]
    demand(not missing, f"no {', '.join(missing)}", remedy="implement harness.contracts.Engine in full")
    limits, identity = subject.engine.limits(), subject.engine.identity()
    counts = limits.shard_rollouts > 0 and limits.parameters > 0
    demand(counts, f"limits() is {limits}", remedy="shard_rollouts and parameters are above 0")
    json.dumps(identity)
    demand(
        bool(identity.get("revision")), f"identity() is {identity}", remedy='say at least "revision", for the manifest'
    )
    return f"{limits.parameters} parameters, revision {identity['revision']}"


def rollouts(subject: EngineSubject) -> str:
    """One rollout per seed, in the order asked for, with as many log-probabilities as tokens."""
    found = subject.rollouts
    asked = [
        (request.problem_id, idx, seed)
        for shard in subject.shards()
        for request in shard
        for idx, seed in zip(request.sample_idxs, request.seeds, strict=True)
    ]
    same = [(r.problem_id, r.sample_idx, r.seed) for r in found] == asked
    demand(same, f"{len(found)} rollouts, {len(asked)} asked for", remedy="keep the order of requests and seeds")
    for rollout in found:
        where = f"{shown(rollout.problem_id)}, sample {rollout.sample_idx}"
        _check_rollout(rollout, where)
    return f"{len(found)} rollouts"


def _check_rollout(rollout: Rollout, where: str) -> None:
    count = len(rollout.completion_tokens)
    demand(0 < count <= MAX_TOKENS, f"{where}: {count} tokens of {MAX_TOKENS}", remedy="stop at max_tokens")
    demand(
        len(rollout.logprobs) == count,
        f"{where}: {len(rollout.logprobs)} logprobs",
        remedy="one for each token, EOS too",
    )
    finite = bool(np.all(np.isfinite(rollout.logprobs)) and np.all(rollout.logprobs <= 1e-6))
    demand(finite, f"{where}: logprobs {rollout.logprobs}", remedy="natural logarithms of probabilities")
    types = [str(a.dtype) for a in (rollout.completion_tokens, rollout.prompt_tokens, rollout.logprobs)]
    demand(types == ["int32", "int32", "float32"], f"{where}: {types}", remedy="int32 tokens, float32 logprobs")
    demand(rollout.policy == BASE.id, f"{where}: policy {rollout.policy}", remedy="stamp policy.id on rollouts")
    whole = rollout.finish is Finish.STOP or count == MAX_TOKENS
    demand(whole, f"{where}: {rollout.finish} after {count} tokens", remedy="LENGTH only where max_tokens was reached")


def sampling_seeds(subject: EngineSubject) -> str:
    """The same seeds give the same rollouts, bit by bit; other seeds give others."""
    again, other = subject.draw(), subject.draw(run=1)
    same = tokens_of(again) == tokens_of(subject.rollouts) and apart(again, subject.rollouts) == 0.0
    demand(
        same, "two draws with the same seeds differ", remedy="draw from harness.seeds.generator(seed) of each sample"
    )
    differ = [r.text for r in other] != [r.text for r in subject.rollouts]
    demand(differ, "draws with other seeds are all the same", remedy="use each request's seeds")
    return f"{len(again)} rollouts drawn again, {len(other)} with other seeds"


def greedy(subject: EngineSubject) -> str:
    """Temperature 0 takes the likeliest token, whatever the seed."""
    one, other = subject.draw(temperature=0.0), subject.draw(temperature=0.0, run=1)
    same = [r.text for r in one] == [r.text for r in other]
    demand(same, "greedy completions depend on the seed", remedy="take the argmax at temperature 0")
    samples = {r.problem_id: {s.text for s in one if s.problem_id == r.problem_id} for r in one}
    demand(all(len(texts) == 1 for texts in samples.values()), "greedy samples of one prompt differ", remedy="as above")
    return f"{len(samples)} prompts"


def shard(subject: EngineSubject) -> str:
    """The planned shard is the sampling batch: a rollout never depends on other shards."""
    first, second = subject.shards()
    (alone,) = subject.engine.sample([second], BASE)
    swapped = list(subject.engine.sample([second, first], BASE))
    together = subject.rollouts[-len(alone) :]
    for found, how in ((alone, "alone"), (swapped[0], "first")):
        same = tokens_of(found) == tokens_of(together) and apart(found, together) == 0.0
        demand(same, f"a shard drawn {how} differs from the same shard drawn second", remedy="batch by shard only")
    return f"{len(alone)} rollouts drawn second, first and alone"


def logprobs(subject: EngineSubject) -> str:
    """Sampler and trainer agree on every token's log-probability, at temperature 1 and at another."""
    worst = 0.0
    for temperature in (1.0, 0.7):
        drawn = subject.draw(temperature=temperature)
        scores = subject.engine.score(drawn, BASE, temperature=temperature)
        for rollout, score in zip(drawn, scores, strict=True):
            sizes = len(score.logprobs_T) == len(rollout.logprobs) == len(score.entropy_T)
            demand(sizes, f"{len(score.logprobs_T)} scores of {len(rollout.logprobs)} tokens", remedy="one for each")
            worst = max(worst, float(np.abs(score.logprobs_T - rollout.logprobs).max()))
            demand(worst <= LOGPROB_NATS, f"{worst:.2g} nats apart at temperature {temperature}", remedy=_AGREE)
            demand(bool(np.all(score.entropy_T >= -1e-6)), f"entropy {score.entropy_T}", remedy="nats, 0 or more")
    return f"largest gap {worst:.1g} nats"


_AGREE = "divide logits by the temperature in both, keep positions and the end token aligned"


def direction(subject: EngineSubject) -> str:
    """A gradient is one file of finite tensors with weight_norms, described by its Direction."""
    found, tensors, norms = subject.gradient
    demand(found.kind == "raw", f"kind is {found.kind!r}", remedy='say kind="raw"')
    demand(
        tensors.keys() == norms.keys(),
        f"weight_norms of {sorted(norms)[:3]}",
        remedy="one for each tensor, in the header",
    )
    norm = math.sqrt(sum(float(np.square(t, dtype=np.float64).sum()) for t in tensors.values()))
    demand(math.isfinite(norm) and norm > 0, f"the norm is {norm}", remedy="the batch has signal: its gradient has too")
    close = math.isclose(norm, found.norm, rel_tol=1e-4)
    demand(close, f"norm says {found.norm:.6g}, the file has {norm:.6g}", remedy="state the norm over all tensors")
    digest = store.digest(subject.root / found.path)
    demand(digest == found.digest, "digest is not the file's", remedy="harness.store.digest(path)")
    counted = (found.groups_used, found.sub_batches) == (len(subject.prompts), subject.batch.num_sub_batches)
    seen = f"{found.groups_used} groups, {found.sub_batches} sub-batches"
    demand(counted, seen, remedy=f"{len(subject.prompts)} groups in {subject.batch.num_sub_batches} were given")
    gap = found.logprob_gap
    demand(gap is not None and gap <= LOGPROB_NATS, f"logprob_gap is {gap}", remedy="measure it on the batch")
    return f"{len(tensors)} tensors, norm {norm:.3g}"


def gradient(subject: EngineSubject) -> str:
    """The gradient agrees with finite differences of the scores along random directions."""
    slopes, differences = [], []
    for number in range(DIRECTIONS):
        noise = subject.noise(number)
        ahead, behind = (
            subject.value(subject.moved(noise, step=sign * SLOPE_STEP, name=f"noise-{number}")) for sign in (1, -1)
        )
        differences.append((ahead - behind) / (2 * SLOPE_STEP))
        slopes.append(_dot(subject.gradient.tensors, noise))
    error = math.dist(slopes, differences)
    size = max(math.hypot(*slopes), math.hypot(*differences), 1e-12)
    seen = f"slopes {_list(slopes)}, finite differences {_list(differences)}"
    demand(
        error <= SLOPE_RELATIVE * size, seen, remedy="minus the gradient of the loss SUM, divided once by normaliser"
    )
    return f"relative error {error / size:.1g} along {DIRECTIONS} directions"


def _dot(one: Arrays, other: Arrays) -> float:
    return sum(float(np.vdot(t.astype(np.float64), other[name])) for name, t in one.items())


def _list(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def microbatch(subject: EngineSubject) -> str:
    """The size of microbatches changes nothing beyond rounding."""
    other = subject.gradient_of(subject.make(microbatch_tokens=SMALL_MICROBATCH), "check/small.safetensors").tensors
    own = subject.gradient.tensors
    gap = {name: tensor - other[name] for name, tensor in own.items()}
    error = math.sqrt(_dot(gap, gap) / _dot(own, own))
    demand(
        error <= MICROBATCH_RELATIVE, f"gradients are {error:.2g} apart", remedy="sum over microbatches, divide once"
    )
    return f"relative difference {error:.1g}"


def zero_step(subject: EngineSubject) -> str:
    """A policy of step zero is the base: the same draws, no KL, no displacement."""
    policy = subject.moved(subject.noise(0), step=0.0, name="noise-0")
    same = tokens_of(subject.draw(policy)) == tokens_of(subject.rollouts)
    demand(same, "draws at step 0 differ from the base's", remedy="theta + step x direction, cast once")
    for score in subject.engine.score(subject.rollouts, BASE, temperature=1.0, kl_to=policy):
        assert score.kl_T is not None
        demand(bool(np.abs(score.kl_T).max() <= 1e-6), f"KL to itself is {score.kl_T}", remedy="KL(p || p) = 0")
    moved = subject.engine.displacement(policy)
    demand(
        tuple(moved) == (0.0, 0.0, 0.0), f"displacement {tuple(moved)}", remedy="compare with the base's own weights"
    )
    return "draws, KL and displacement"


def step(subject: EngineSubject) -> str:
    """A step changes the policy, is measured (displacement, KL), and leaves the base untouched."""
    noise = subject.noise(0)
    policy = subject.moved(noise, step=FAR, name="noise-0")
    moved, wanted = subject.engine.displacement(policy), FAR * math.sqrt(_dot(noise, noise))
    close = math.isclose(moved.norm, wanted, rel_tol=1e-2) and 0 < moved.changed <= 1
    demand(
        close, f"displacement {tuple(moved)}, moved by {wanted:.4g}", remedy="|delta|, |delta| / |theta|, changed share"
    )
    scores = subject.engine.score(subject.rollouts, BASE, temperature=1.0, kl_to=policy)
    kl = np.concatenate([score.kl_T for score in scores if score.kl_T is not None])
    good = kl.size and bool(np.all(kl >= -1e-6)) and float(kl.mean()) > 0
    demand(
        bool(good), f"KL to a moved policy: {shown(kl.tolist())}", remedy="exact over the vocabulary, nats per token"
    )
    again = tokens_of(subject.draw()) == tokens_of(subject.rollouts)
    demand(again, "the base draws differently after a step", remedy="form candidates beside the base, never in it")
    return f"moved by {moved.relative:.3g} of |theta|, {float(kl.mean()):.2g} nats a token"


def materialise(subject: EngineSubject) -> str:
    """A materialised policy loads like any other model and draws the same."""
    policy = subject.moved(subject.noise(0), step=FAR, name="noise-0")
    folder = subject.root / "check" / "materialised"
    subject.engine.materialise(policy, folder)
    loaded = subject.make(str(folder))
    same = tokens_of(subject.draw(engine=loaded)) == tokens_of(subject.draw(policy))
    demand(same, "the loaded model draws differently", remedy="write all weights of the policy, and the tokenizer")
    return str(sorted(path.name for path in folder.iterdir()))


def trainer(subject: EngineSubject) -> str:
    """A trainer climbs, and goes on after save and load as if it had never stopped."""
    optimizer, objective = Optimizer(lr=1e-4), PolicyGradient()
    straight, first = (subject.engine.trainer(BASE, optimizer) for _ in range(2))
    seen = straight.step(subject.batch, objective)
    lacking = {"loss", "grad_norm", "tokens"} - set(seen)
    demand(not lacking, f"step returned {dict(seen)}", remedy="return loss, grad_norm and tokens as numbers")
    climbed = subject.value(_kept(subject, straight, "one")) - subject.value(BASE)
    demand(climbed > 0, f"one step changes the objective by {climbed:.3g}", remedy="minimise the loss")
    straight.step(subject.opposite, objective)
    first.step(subject.batch, objective)
    first.save(subject.root / "check" / "state.safetensors")
    second = subject.engine.trainer(BASE, optimizer)
    second.load(subject.root / "check" / "state.safetensors")
    second.step(subject.opposite, objective)
    one, other = (_kept(subject, t, name) for t, name in ((straight, "straight"), (second, "resumed")))
    apart_by = abs(subject.value(one) - subject.value(other))
    demand(
        apart_by <= 1e-6,
        f"resumed and straight objectives are {apart_by:.2g} apart",
        remedy="save moments and step count",
    )
    return f"one step gains {climbed:.2g}"


def _kept(subject: EngineSubject, found: object, name: str) -> Policy:
    path = subject.root / "check" / f"{name}.safetensors"
    found.checkpoint(path)  # type: ignore[attr-defined]
    move = Move(kind="checkpoint", path=str(path.relative_to(subject.root)), digest=store.digest(path))
    return Policy(base=BASE.base, moves=(move,))


_BASIC = ("engine.rollouts",)
_SLOPE = ("engine.direction",)
RULES = (
    Rule("engine.start", start),
    Rule("engine.rollouts", rollouts, ("engine.start",)),
    Rule("engine.seeds", sampling_seeds, _BASIC),
    Rule("engine.greedy", greedy, _BASIC),
    Rule("engine.shard", shard, ("engine.seeds",)),
    Rule("engine.logprobs", logprobs, _BASIC),
    Rule("engine.direction", direction, ("engine.logprobs",)),
    Rule("engine.gradient", gradient, _SLOPE),
    Rule("engine.microbatch", microbatch, _SLOPE),
    Rule("engine.zero_step", zero_step, _SLOPE),
    Rule("engine.step", step, ("engine.zero_step",)),
    Rule("engine.materialise", materialise, ("engine.step",)),
    Rule("engine.trainer", trainer, _SLOPE),
)
