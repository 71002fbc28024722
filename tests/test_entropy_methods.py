"""entropy_min and entropy_bonus: their gradients against enumeration, their signs, what they see and what they pay."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tabular_kit import BASE, MODEL, ListBatch, chances, completions, flat, noise, problems
from tabular_run import execute, small_spec

from harness import advantages, searching, store
from harness.contracts import Objective
from harness.errors import UsageError
from harness.leaderboard import Row
from harness.objectives import ClippedPolicy, TokenEntropy
from harness.pipeline import Finished
from harness.types import Policy, Problem, Rollout, WeightedGroup
from harness_engines import tabular, tabular_policy

LEVEL = 2
KINDS = ("em_ft", "em_rl_sequence", "em_rl_token")
STEPS = ("method.{0}.steps=4", "method.{0}.lr=0.05", "method.{0}.checkpoints=2")
SUMMED = "sequence_sum"  # the theory's loss: nothing is divided by a length


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tables away from the pass rates' own, in which all styles are followed by the same digits: there every path
    meets the same entropies, and a reward of token entropies is no signal."""
    folder = tmp_path_factory.mktemp("model")
    made = tabular.Tabular(MODEL, folder, {})
    save_file(
        {name: t + noise(made, 3, scale=0.5)[name] for name, t in made.base.items()}, folder / tabular.WEIGHTS_FILE
    )
    return str(folder)


@pytest.fixture
def engine(tmp_path: Path, model: str) -> tabular.Tabular:
    return tabular.Tabular(model, tmp_path, {"shard_rollouts": 64})


def enumerated(engine: tabular.Tabular, weights: np.ndarray, objective: Objective) -> np.ndarray:
    """The ascent direction of all completions of one problem with these weights, as the engine makes it."""
    (problem,) = problems([LEVEL])
    logprobs = engine.score(completions(problem), BASE, temperature=1.0)
    rollouts = [
        Rollout(**{field: getattr(r, field) for field in r.__slots__} | {"logprobs": scored.logprobs_T})
        for r, scored in zip(completions(problem), logprobs, strict=True)
    ]
    group = WeightedGroup(tuple(rollouts), weights)
    engine.gradient(ListBatch([[group]], normaliser=1.0), BASE, objective, out=Path("g.safetensors"))
    return flat(load_file(engine.root / "g.safetensors"))


def slopes(engine: tabular.Tabular, value: Any) -> np.ndarray:
    live = {name: t.clone().requires_grad_() for name, t in engine.base.items()}
    found = torch.autograd.grad(value(live), list(live.values()), allow_unused=True)
    return flat({n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(live.items(), found, strict=True)})


def distribution(tables: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Log-probability of each completion, written out from the tables."""
    style_S = torch.log_softmax(tables["style"][LEVEL - 1] + tables["style_shared"], -1)
    offset_SM = torch.log_softmax(tables["offset"][LEVEL - 1] + tables["offset_shared"], -1)
    return (style_S[:, None] + offset_SM).flatten()


def path_entropies(tables: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Of each completion, the entropies of the distributions that its tokens were drawn from, added up."""
    style_S = torch.log_softmax(tables["style"][LEVEL - 1] + tables["style_shared"], -1)
    offset_SM = torch.log_softmax(tables["offset"][LEVEL - 1] + tables["offset_shared"], -1)
    of_style, of_offset_S = -(style_S.exp() * style_S).sum(), -(offset_SM.exp() * offset_SM).sum(1)
    return (of_style + of_offset_S).repeat_interleave(offset_SM.shape[1])


def whole_entropy(tables: Mapping[str, torch.Tensor]) -> torch.Tensor:
    logs = distribution(tables)
    return -(logs.exp() * logs).sum()


def sequence_rewards(engine: tabular.Tabular) -> np.ndarray:
    return distribution(engine.base).numpy()


def token_rewards(engine: tabular.Tabular) -> np.ndarray:
    return -path_entropies(engine.base).numpy()


def test_the_sequence_reward_descends_the_entropy_of_whole_completions(engine: tabular.Tabular) -> None:
    chance = chances(engine, LEVEL)
    found = enumerated(engine, chance * sequence_rewards(engine), ClippedPolicy(aggregation=SUMMED))
    np.testing.assert_allclose(found, -slopes(engine, whole_entropy), atol=1e-6)
    assert np.abs(found).max() > 0.05


def test_the_direct_loss_holds_the_samples_fixed(engine: tabular.Tabular) -> None:
    chance = torch.from_numpy(chances(engine, LEVEL))
    found = enumerated(engine, chance.numpy(), TokenEntropy(aggregation=SUMMED))
    np.testing.assert_allclose(found, -slopes(engine, lambda t: (chance * path_entropies(t)).sum()), atol=1e-6)
    raised = enumerated(engine, chance.numpy(), TokenEntropy(sign=-1.0, aggregation=SUMMED))
    np.testing.assert_allclose(raised, -found)


def test_sequence_is_token_plus_direct(engine: tabular.Tabular) -> None:
    """The entropy of whole completions is the expected sum of token entropies: its slope is that of the expectation
    with the entropies held fixed plus that of the entropies with the expectation held fixed."""
    chance = chances(engine, LEVEL)
    sequence = enumerated(engine, chance * sequence_rewards(engine), ClippedPolicy(aggregation=SUMMED))
    token = enumerated(engine, chance * token_rewards(engine), ClippedPolicy(aggregation=SUMMED))
    direct = enumerated(engine, chance, TokenEntropy(aggregation=SUMMED))
    np.testing.assert_allclose(sequence, token + direct, atol=1e-6)
    assert np.linalg.norm(token) > 0.01
    assert np.linalg.norm(direct) > 0.01


@pytest.mark.parametrize("rewards_of", [sequence_rewards, token_rewards])
def test_the_leave_one_out_baseline_adds_no_bias(engine: tabular.Tabular, rewards_of: Any) -> None:
    """Over all pairs of samples the mean weight of a completion is its chance times (reward - expected reward)."""
    chance, rewards = chances(engine, LEVEL), rewards_of(engine)
    expected = np.zeros(len(chance))
    for i, j in itertools.product(range(len(chance)), repeat=2):
        weights_G = advantages.group_advantages([rewards[i], rewards[j]], "rloo").weights_G
        expected[[i, j]] += chance[i] * chance[j] * weights_G / 2 if i != j else 0.0
    np.testing.assert_allclose(expected, chance * (rewards - chance @ rewards), atol=1e-12)


def run(
    tmp_path: Path, method: str, *sets: str, model: str = "tabular", budget: int = 1024
) -> tuple[Path, Row, Finished]:
    own = ("evaluation.wide_samples=0", *(text.format(method) for text in STEPS))
    spec = small_spec(*own, *sets, methods=(method,), budget=budget, selection_budget=128, model=model)
    root, rows = execute(spec, tmp_path)
    row = next(row for row in rows if row["method"] == method and row["seed"] == 0)
    return root, row, store.read_json(root / f"methods/{method}/0/scores.json")


def entropies(root: Path, model: str, policy: Policy, levels: Sequence[int]) -> tuple[float, float]:
    """Exact entropy of the base and of a policy of a run."""
    engine = tabular.Tabular(model, root, {})
    own = [tabular_policy.exact_entropy(engine.tables(p), levels) for p in (Policy(base=model), policy)]
    return own[0], own[1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_lowers_entropy_and_pays_no_verifier(tmp_path: Path, model: str, kind: str) -> None:
    root, row, finished = run(tmp_path, "entropy_min", f"method.entropy_min.kind={kind}", model=model)
    base, trained = entropies(root, model, finished.trained[-1].policy, [1, 2, 3, 3, 3])
    assert trained < base - 0.005
    assert (row["train_rollouts"], row["updates"]) == (1024, 4)
    assert finished.cost["verifier_calls"] == row["selection_rollouts"], "the choice alone is judged"


def test_the_bonus_raises_entropy_on_one_problem(tmp_path: Path, model: str) -> None:
    root, row, finished = run(tmp_path, "entropy_bonus", model=model)
    level = int(one_drawn(root, "entropy_bonus").split("/")[1])
    base, trained = entropies(root, model, finished.trained[-1].policy, [level])
    assert trained > base + 0.005
    assert row["train_rollouts"] == 1024


def one_drawn(root: Path, method: str) -> str:
    """The id of the only problem in the training draws of a method."""
    journal = root / f"methods/{method}/0/journal"
    drawn = {name for path in journal.glob("*-sample.json") for name in store.read_json(path)["result"].problem_ids}
    (only,) = drawn
    return str(only)


@pytest.mark.parametrize("kind", KINDS)
def test_verdicts_have_no_part_in_the_updates(tmp_path: Path, model: str, kind: str) -> None:
    """Rewards turned around change what is chosen, and nothing that is trained."""
    option = f"method.entropy_min.kind={kind}"
    _, _, first = run(tmp_path / "a", "entropy_min", option, model=model, budget=256)
    turned = (option, "rewards.correct=-1", "rewards.unparsed=2")
    _, _, other = run(tmp_path / "b", "entropy_min", *turned, model=model, budget=256)
    assert [step.policy.moves[0].digest for step in first.trained] == [s.policy.moves[0].digest for s in other.trained]


def test_one_prompt_is_met_again_and_again(tmp_path: Path) -> None:
    """Gao et al. by options: one prompt, ten steps, T = .5."""
    few = ("method.entropy_min.examples=1", "method.entropy_min.steps=10", "sampling.temperature=0.5")
    root, row, finished = run(tmp_path, "entropy_min", *few, "method.entropy_min.lr=0.02")
    assert one_drawn(root, "entropy_min")
    assert (row["train_rollouts"], row["updates"], len(finished.trained)) == (1024, 10, 10)


class Telling:
    """A batch whose sampler told entropies, or did not, with an engine that scores by counting."""

    problem_ids = ("a", "b")
    temperature = 1.0

    def __init__(self, problem: Problem, told: bool) -> None:
        self.rollouts = tuple(completions(problem)[:3])
        self.told = told

    def group(self, _: str) -> tuple[Rollout, ...]:
        rows = [{field: getattr(r, field) for field in r.__slots__} for r in self.rollouts]
        entropies = np.array([0.25, 0.5, 0.0], dtype=np.float32)
        return tuple(Rollout(**row | {"entropies": entropies if self.told else None}) for row in rows)


def test_entropies_are_the_samplers_or_else_scored(engine: tabular.Tabular) -> None:
    class Shared:
        pass

    shared: Any = Shared()
    shared.engine = engine
    (problem,) = problems([LEVEL])
    told, _ = searching.sums(shared, Telling(problem, told=True), BASE)  # type: ignore[arg-type]
    assert told == {"a": (0.75,) * 3, "b": (0.75,) * 3}
    scored, _ = searching.sums(shared, Telling(problem, told=False), BASE)  # type: ignore[arg-type]
    np.testing.assert_allclose(scored["a"], path_entropies(engine.base).numpy()[:3], rtol=1e-6)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["method.entropy_min.kl=0.1"], "em_ft has none"),
        (["method.entropy_min.examples=3"], "1024 rollouts do not make 4 draws"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path: Path, sets: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(tmp_path, "entropy_min", *sets)
