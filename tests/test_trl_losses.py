"""Our losses, gradients and advantages against those of TRL: its own trainers, fed with our rollouts.

TRL makes every input itself (padding, old and reference log-probabilities, advantages, token counts); only the rollouts
and their rewards are given, through its rollout and reward functions. Between drawing and the loss the weights are
moved, so that ratios leave 1 and some are clipped.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_hf import OPTIONS

from harness import sampling, weighing
from harness.contracts import Objective, Optimizer, silent
from harness.objectives import ClippedPolicy, Preference
from harness.sampling import RolloutBatch
from harness.types import Move, Outcome, Policy, Problem, Rollout, Verdict
from harness.weighing import GradientBatch
from harness_engines.hf import HfEngine
from harness_math.domain import Math
from harness_tiny import weights_path

for package in ("trl", "datasets"):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'oneshot-harness[trl]'", allow_module_level=True)

BASE = Policy(base="tiny")
MOVED = Policy(base="tiny", moves=(Move(kind="noise", path="", digest=f"{7:016x}", step=0.2),))
GROUP, TOKENS, CLOSE = 8, 24, 1e-4


class OneOfFour:
    """Verdicts by place: one problem is never solved, the others by every fourth completion."""

    def __init__(self, never: Problem) -> None:
        self.never = never

    def verify(self, items: Sequence[tuple[Problem, str]]) -> list[Verdict]:
        right = [place % 4 == 1 and problem != self.never for place, (problem, _) in enumerate(items)]
        return [Verdict(outcome=Outcome.CORRECT if r else Outcome.WRONG, format_ok=True) for r in right]


class Drawn(NamedTuple):
    engine: HfEngine
    problems: list[Problem]
    batch: RolloutBatch

    @property
    def rollouts(self) -> list[Rollout]:
        return [rollout for problem in self.problems for rollout in self.batch.group(problem.id)]

    @property
    def outcomes(self) -> dict[tuple[str, int], Outcome]:
        return {(j.problem_id, j.sample_idx): j.verdict.outcome for j in self.batch.judged()}


class Terms(NamedTuple):
    """Of the clipped surrogate."""

    low: float
    high: float
    kl: float


class Found(NamedTuple):
    loss: float
    gradient: Mapping[str, torch.Tensor]


def draw(root: Path, *, temperature: float = 1.0) -> Drawn:
    """Eight completions of each of four math problems, some cut off, by the embedded model."""
    engine = HfEngine(str(weights_path()), root, {**OPTIONS, "shard_rollouts": 512})
    problems = list(Math().problems("ladder", "train", seed=0, limit=4))
    wanted = sampling.Draw(
        purpose="train/0", policy=BASE, temperature=temperature, samples=GROUP, max_tokens=TOKENS
    )  # fmt: skip
    pool: Any = OneOfFour(problems[0])
    ((batch, _),) = sampling.collect([wanted], problems, run_seed=0, engine=engine, pool=pool, progress=silent)
    return Drawn(engine, problems, batch)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn"))


def ours(drawn: Drawn, batch: GradientBatch, objective: Objective) -> Found:
    """The loss and its gradient at MOVED, as methods get them."""
    direction = drawn.engine.gradient(batch, MOVED, objective, out=Path("gradient.safetensors"))
    ascent = load_file(drawn.engine.root / direction.path)
    seen = drawn.engine.trainer(MOVED, Optimizer(lr=0.0)).step(batch, objective)
    return Found(seen["loss"], {name: -tensor for name, tensor in ascent.items()})


def theirs(trainer: Any, inputs: Any, drawn: Drawn) -> Found:
    """TRL's loss and its gradient with the weights of MOVED."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # which the training loop would set
    weights = drawn.engine.local.model.weights(MOVED)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.copy_(weights[name])
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return Found(float(loss.detach()), {name: p.grad for name, p in trainer.model.named_parameters()})


def assert_equal(found: Found, expected: Found) -> None:
    assert found.loss == pytest.approx(expected.loss, rel=CLOSE)
    assert set(found.gradient) == set(expected.gradient)
    scale = max(float(tensor.norm()) for tensor in expected.gradient.values())
    for name, tensor in expected.gradient.items():
        apart = float((found.gradient[name] - tensor).norm())
        assert apart <= CLOSE * max(float(tensor.norm()), 1e-2 * scale), name


def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(weights_path(), dtype=torch.float32)


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(weights_path(), padding_side="left")


SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "disable_tqdm": True,
}


def prepared(drawn: Drawn, folder: Path, rewards: Sequence[float | None], **changes: Any) -> tuple[Any, Any]:
    """A GRPOTrainer at the base, and the inputs of its loss, which it made of our rollouts."""
    import datasets
    import trl

    rollouts = drawn.rollouts

    def rolled_out(prompts: list[str], trainer: object) -> dict[str, Any]:
        assert prompts == [problem.prompt for problem in drawn.problems for _ in range(GROUP)]
        return {
            "prompt_ids": [r.prompt_tokens.tolist() for r in rollouts],
            "completion_ids": [r.completion_tokens.tolist() for r in rollouts],
            "logprobs": [r.logprobs.tolist() for r in rollouts],
        }

    settings = trl.GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(rollouts),
        num_generations=GROUP,
        num_iterations=2,  # else it takes the ratio for 1 and asks for no old log-probabilities
        max_completion_length=TOKENS,
        use_bias_correction_kl=False,  # DeepSeek-V3.2's ratio on the KL term, which GRPO has not
        model_init_kwargs={"dtype": "float32"},  # of the reference as well
        **{**SETTINGS, "scale_rewards": "none", **changes},
    )
    rows = [{"prompt": problem.prompt} for problem in drawn.problems]
    trainer = trl.GRPOTrainer(
        model=str(weights_path()),
        processing_class=tokenizer(),
        reward_funcs=lambda **_: list(rewards),
        args=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        rollout_func=rolled_out,
    )
    trainer.model.train()
    inputs = trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    return trainer, inputs


def rewards_of(drawn: Drawn) -> list[float | None]:
    outcomes = drawn.outcomes
    return [float(outcomes[r.problem_id, r.sample_idx] is Outcome.CORRECT) for r in drawn.rollouts]


@pytest.mark.parametrize(
    ("aggregation", "loss_type"),
    [
        ("sequence_mean", "grpo"),
        ("token_mean", "dapo"),
        ("token_mean", "bnpo"),
        ("constant", "dr_grpo"),
        ("sequence_sum", "luspo"),
    ],
)
@pytest.mark.parametrize("terms", [Terms(0.2, 0.28, 0.0), Terms(0.1, 0.2, 0.05)])
def test_grpo(drawn: Drawn, tmp_path: Path, aggregation: str, loss_type: str, terms: Terms) -> None:
    changes = {"loss_type": loss_type, "epsilon": terms.low, "epsilon_high": terms.high, "beta": terms.kl}
    trainer, inputs = prepared(drawn, tmp_path, rewards_of(drawn), **changes)
    check(drawn, aggregation, terms, theirs(trainer, inputs, drawn))
    (*_, clipped) = trainer._metrics["train"]["clip_ratio/region_mean"]
    assert 0.02 < clipped < 0.98, "clipping would not be seen"


def test_grpo_at_another_temperature(tmp_path: Path) -> None:
    drawn, terms = draw(tmp_path, temperature=0.7), Terms(0.2, 0.2, 0.05)
    changes = {"loss_type": "dapo", "epsilon": terms.low, "beta": terms.kl, "temperature": 0.7}
    trainer, inputs = prepared(drawn, tmp_path, rewards_of(drawn), **changes)
    check(drawn, "token_mean", terms, theirs(trainer, inputs, drawn))


def check(drawn: Drawn, aggregation: str, terms: Terms, expected: Found) -> None:
    given = by_problem(drawn, rewards_of(drawn))
    weighed = weighing.weigh(drawn.batch, drawn.problems, rewards=given, scheme="centered", whole=bool(terms.kl))
    tokens = float(TOKENS) if aggregation == "constant" else weighed.mean_tokens
    assert_equal(
        ours(drawn, weighed, ClippedPolicy(**terms._asdict(), aggregation=aggregation, tokens=tokens)), expected
    )
    assert weighed.groups_dead == 1
    assert len({len(r.completion_tokens) for r in drawn.rollouts}) > 3, "equal lengths tell no aggregations apart"


def by_problem(drawn: Drawn, rewards: Sequence[float | None]) -> dict[str, list[float | None]]:
    return {p.id: list(rewards[i * GROUP : (i + 1) * GROUP]) for i, p in enumerate(drawn.problems)}


def test_advantages_but_for_the_standard_deviation(drawn: Drawn, tmp_path: Path) -> None:
    """TRL divides by the sample's standard deviation plus 1e-4, we by the population's; all else is equal."""
    rewards: list[float | None] = [0.0] * GROUP
    rewards += [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    rewards += [1.0, 0.5, -1.0, 0.0, 2.0, 0.0, 0.25, 1.0]
    rewards += [1.0, None, 0.0, 1.0, None, 0.0, 0.0, 1.0]
    for scale, scheme in (("none", "centered"), ("group", "grpo")):
        _, inputs = prepared(drawn, tmp_path, rewards, scale_rewards=scale)
        advantages_PG = inputs["advantages"].numpy().reshape(-1, GROUP)
        given = by_problem(drawn, rewards)
        weighed = weighing.weigh(drawn.batch, drawn.problems, rewards=given, scheme=scheme)
        for row, problem in enumerate(drawn.problems):
            own_G = np.array(weighed.weights.get(problem.id, (0.0,) * GROUP))
            kept = np.array([r for r in given[problem.id] if r is not None])
            sample, population = kept.std(ddof=1) + 1e-4, kept.std()
            factor = sample / population if scheme == "grpo" and population else 1.0
            np.testing.assert_allclose(own_G, advantages_PG[row] * factor, rtol=CLOSE, atol=1e-6)
    assert sample / population == pytest.approx((6 / 5) ** 0.5, rel=3e-4)  # of six rewards


def test_dpo(drawn: Drawn, tmp_path: Path) -> None:
    import datasets
    import trl

    pairs = weighing.pair(drawn.batch, drawn.problems, per_problem=2, seed=0)
    groups = {problem.id: drawn.batch.group(problem.id) for problem in drawn.problems}
    rows = [
        {
            "prompt_ids": groups[name][right].prompt_tokens.tolist(),
            "chosen_ids": groups[name][right].completion_tokens.tolist(),
            "rejected_ids": groups[name][wrong].completion_tokens.tolist(),
        }
        for name, own in pairs.pairs.items()
        for right, wrong in own
    ]
    assert len(rows) == pairs.normaliser == 6
    trainer = trl.DPOTrainer(
        model=model(),
        ref_model=model(),
        processing_class=tokenizer(),
        args=trl.DPOConfig(output_dir=str(tmp_path), beta=0.3, per_device_train_batch_size=len(rows), **SETTINGS),
        train_dataset=datasets.Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}]),
    )
    found = ours(drawn, pairs, Preference(beta=0.3))
    assert_equal(found, theirs(trainer, trainer.data_collator(rows), drawn))
    assert abs(found.loss - np.log(2)) > 0.05, "at the base every preference has this loss"
