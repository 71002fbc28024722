"""`harness diagnose`: every estimate against enumeration on the tabular policy, and the command as users meet it."""

from __future__ import annotations

import csv
import functools
import itertools
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tabular_kit import chances, flat
from tabular_run import execute, invoke, small_spec, temporary

from harness import checksums, diagnosing, plugins, seeds, store
from harness.advantages import group_advantages
from harness.diagnosis import cosines, gains, kinds, linearity, noise, products, signs
from harness.diagnosis.noise import Draws
from harness.diagnosis.products import Products, Vector
from harness.errors import UnknownName, UsageError
from harness_engines import tabular, tabular_policy
from harness_engines.tabular_domain import ANSWERS, STYLES

PARTS, GROUP, LEVELS = 16, 8, (1, 2, 3)
Array = np.ndarray


class World(NamedTuple):
    """The tabular policy written out: the chance and the score of every completion of a level; completion 0 is right."""

    engine: tabular.Tabular
    chances_LY: Array
    scores_LYD: Array

    def draw(self, rng: np.random.Generator, levels_P: Sequence[int]) -> Array:
        """Completions of each problem, by number."""
        return np.stack(
            [rng.choice(len(self.chances_LY[0]), GROUP, p=self.chances_LY[level - 1]) for level in levels_P]
        )

    def groups(self, drawn_PG: Array, levels_P: Sequence[int], scheme: str) -> Array:
        """Each problem's weighted sum of scores, over the rollouts of the batch."""
        rows = []
        for drawn_G, level in zip(drawn_PG, levels_P, strict=True):
            right, wrong = signed_weights(int((drawn_G == 0).sum()), scheme)
            rows.append(np.where(drawn_G == 0, right, wrong) @ self.scores_LYD[level - 1][drawn_G])
        return np.array(rows) / drawn_PG.size

    def expected(self, levels: Sequence[int], scheme: str = "grpo") -> Array:
        return flat(tabular_policy.expected_direction(self.engine.base, levels, group=GROUP, scheme=scheme))

    def group_noise(self, level: int) -> float:
        """tr Var of the weighted sum of one group of a level under grpo, by enumeration over its successes."""
        right, wrong_Y = self.scores_LYD[level - 1][0], self.chances_LY[level - 1].copy()
        p, wrong_Y[0] = wrong_Y[0], 0.0
        wrong_Y /= wrong_Y.sum()
        mean = wrong_Y @ self.scores_LYD[level - 1]
        spread = wrong_Y @ (self.scores_LYD[level - 1] ** 2).sum(1) - mean @ mean
        square = 0.0
        for k in range(GROUP + 1):
            weights_G = group_advantages([1.0] * k + [0.0] * (GROUP - k), "grpo").weights_G
            centre = weights_G[:k].sum() * right + weights_G[k:].sum() * mean
            chance = math.comb(GROUP, k) * p**k * (1 - p) ** (GROUP - k)
            square += chance * (centre @ centre + (weights_G[k:] ** 2).sum() * spread)
        mean_group = self.expected([level]) * GROUP
        return float(square - mean_group @ mean_group)


@functools.cache
def signed_weights(correct: int, scheme: str) -> tuple[float, float]:
    """Of a correct and of an incorrect completion of a group with so many correct ones."""
    weights_G = group_advantages([1.0] * correct + [0.0] * (GROUP - correct), scheme).weights_G
    return float(weights_G[0]), float(weights_G[-1])


@functools.cache
def world() -> World:
    engine = tabular.Tabular("tabular:.5,.2,.05", temporary(), {})
    scores = []
    for level in LEVELS:
        own = []
        for number in range(len(STYLES) * ANSWERS):
            live = {name: t.clone().requires_grad_() for name, t in engine.base.items()}
            logs = tabular_policy.log_probs(live, 1.0)
            style, offset = divmod(number, ANSWERS)
            chosen = logs.style_CS[level - 1, style] + logs.offset_CSM[level - 1, style, offset]
            own.append(flat(dict(zip(live, torch.autograd.grad(chosen, list(live.values())), strict=True))))
        scores.append(np.array(own))
    return World(engine, np.stack([chances(engine, level) for level in LEVELS]), np.stack(scores))


def summed(groups_PD: Array, parts: int = PARTS) -> Array:
    """By part: problem i is in part i mod parts."""
    return np.stack([groups_PD[part::parts].sum(0) for part in range(parts)])


def balanced_levels() -> list[int]:
    """One problem of each level in every part."""
    return [level for level in LEVELS for _ in range(PARTS)]


def draws_of(a_SD: Array, b_SD: Array) -> Draws:
    return Draws(a_SD @ a_SD.T, a_SD @ b_SD.T, b_SD @ b_SD.T)


def products_of(vectors: dict[str, Array]) -> Products:
    """The inner products, two tensors of unequal size."""
    stacked_VD = np.stack(list(vectors.values()))
    pieces = [stacked_VD[:, :40], stacked_VD[:, 40:]]
    return Products(labels=tuple(vectors), tensors=("one", "two"), dots_TVV=np.stack([p @ p.T for p in pieces]))


def within(values: Sequence[float], truth: float, *, errors: float = 4.0) -> bool:
    return abs(np.mean(values) - truth) <= errors * np.std(values, ddof=1) / math.sqrt(len(values))


def test_signal_and_noise_are_those_of_the_enumeration() -> None:
    levels, rng, rollouts = balanced_levels(), seeds.generator(1), GROUP * PARTS * len(LEVELS)
    truth = float(np.square(world().expected(LEVELS)).sum())
    spread = sum(world().group_noise(level) for level in levels) / rollouts**2
    found, covered = [], 0
    for _ in range(120):
        a, b = (summed(world().groups(world().draw(rng, levels), levels, "grpo")) for _ in "ab")
        found.append(noise.components(draws_of(a, b)))
        told = noise.scale(draws_of(a, b), rollouts)
        covered += told["snr_low"] <= truth / spread <= told["snr_high"]
        assert told["critical_low"] <= told["critical"] <= told["critical_high"]
        assert told["critical"] == pytest.approx(told["critical_between"] + told["critical_within"], rel=0.2)
    assert within([float(c.signal) for c in found], truth)
    assert within([float(c.within) for c in found], spread)
    assert within(
        [float(c.between) for c in found], 0.0
    )  # problems of a level are alike, every part has the same levels
    assert covered >= 104


def test_noise_between_problems_is_told_from_noise_within() -> None:
    """Problems of a level drawn at random differ by their level alone."""
    rng, count = seeds.generator(2), 3 * PARTS
    means_LD = np.stack([world().expected([level]) for level in LEVELS])
    between = float(np.square(means_LD - means_LD.mean(0)).sum(1).mean()) / count
    inside = float(np.mean([world().group_noise(level) for level in LEVELS])) / (GROUP**2 * count)
    found = []
    for _ in range(150):
        levels = rng.choice(LEVELS, count).tolist()
        a, b = (summed(world().groups(world().draw(rng, levels), levels, "grpo")) for _ in "ab")
        found.append(noise.components(draws_of(a, b)))
    assert within([float(c.between) for c in found], between)
    assert within([float(c.within) for c in found], inside)
    assert between > 3 * np.std([float(c.between) for c in found]) / math.sqrt(150)


def test_agreement_is_predicted() -> None:
    levels, rng, rows = balanced_levels(), seeds.generator(3), []
    for _ in range(40):
        a, b = (summed(world().groups(world().draw(rng, levels), levels, "grpo")) for _ in "ab")
        rows.append(noise.agreement(draws_of(a, b), 384))
    for place, size in enumerate((48, 96, 192)):
        own = [row[place] for row in rows]
        assert {row["rollouts"] for row in own} == {size}
        for measured, predicted in (("cosine", "predicted"), ("with_whole", "with_whole_predicted")):
            assert np.mean([row[measured] for row in own]) == pytest.approx(
                np.mean([row[predicted] for row in own]), abs=0.03
            )


def seen(a_SD: Array, b_SD: Array, moved: Array) -> cosines.View:
    parts = {f"{name}{i}": row for name, rows in (("a", a_SD), ("b", b_SD)) for i, row in enumerate(rows)}
    found = products_of({**parts, "theta": flat(world().engine.base), "D": moved})
    return cosines.view(found, ["D"], parts=PARTS)


def angle(left: Array, right: Array) -> float:
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


@pytest.mark.parametrize(("levels", "spread"), [(LEVELS, 0.15), ((3,) * 3, 0.15), ((3,) * 3, 0.02)])
def test_corrected_cosine_covers_the_true_one(levels: tuple[int, ...], spread: float) -> None:
    """A way that knows nothing of the batch, far off and near the gradient; down to 19 successes in 384 rollouts."""
    rng, every = seeds.generator(4), [level for level in levels for _ in range(PARTS)]
    true = world().expected(levels)
    moved = true / np.linalg.norm(true) + spread * rng.standard_normal(true.size)
    truth, covered, corrected = angle(true, moved), 0, []
    for _ in range(80):
        a, b = (summed(world().groups(world().draw(rng, every), every, "grpo")) for _ in "ab")
        both = cosines.row(cosines.overall(seen(a, b, moved), same=False), 0)
        covered += both["corrected_low"] <= truth <= both["corrected_high"]
        assert both["cosine"] == pytest.approx(angle(a.sum(0), moved))
        corrected.append(both["corrected"])
    assert covered >= 70
    assert np.mean(corrected) == pytest.approx(truth, rel=0.003)


def test_noise_attenuates_by_the_root_of_its_share() -> None:
    """Where noise has many dimensions; what of it lies along the gradient changes its length and no angle."""
    rng, measured, corrected, attenuations = seeds.generator(14), [], [], []
    true = np.concatenate([np.ones(20), np.zeros(1980)])
    moved = true + 0.2 * rng.standard_normal(true.size)
    for _ in range(40):
        a, b = (true / PARTS + 0.025 * rng.standard_normal((PARTS, true.size)) for _ in "ab")
        rows = {f"{name}{i}": row for name, rows in (("a", a), ("b", b)) for i, row in enumerate(rows)}
        found = cosines.view(products_of({**rows, "theta": true, "D": moved}), ["D"], parts=PARTS)
        both = cosines.row(cosines.overall(found, same=False), 0)
        measured.append(both["cosine"])
        corrected.append(both["corrected"])
        attenuations.append(noise.scale(draws_of(a, b), 1)["attenuation"])
    assert np.mean(attenuations) == pytest.approx(math.sqrt(1 / (1 + 16 * 0.025**2 * 2000 / 20)), rel=0.02)
    assert np.mean(measured) == pytest.approx(angle(true, moved) * np.mean(attenuations), rel=0.02)
    assert np.mean(corrected) == pytest.approx(angle(true, moved), rel=0.02)


def test_on_the_same_problems_only_the_second_draw_is_independent() -> None:
    """A way made of the batch's own completions flatters the measured cosine; the corrected one asks the other draw."""
    rng, measured, corrected, covered = seeds.generator(5), [], [], 0
    means_LD = np.stack([world().expected([level]) for level in LEVELS])
    for _ in range(60):
        levels = rng.choice(LEVELS, 3 * PARTS).tolist()
        own = np.mean([means_LD[level - 1] for level in levels], axis=0)
        a, b = (summed(world().groups(world().draw(rng, levels), levels, "grpo")) for _ in "ab")
        moved = a.sum(0) + 0.02 * np.linalg.norm(own) * rng.standard_normal(own.size)
        both, truth = cosines.row(cosines.overall(seen(a, b, moved), same=True), 0), angle(own, moved)
        measured.append(both["cosine"] - truth)
        corrected.append(both["corrected"] - truth)
        covered += both["corrected_low"] <= truth <= both["corrected_high"]
    assert covered >= 54
    assert min(measured) > 0
    assert abs(np.mean(corrected)) < 0.6 * np.mean(measured)
    assert np.mean(corrected) == pytest.approx(0.0, abs=0.004)


def test_tensors_and_balance_add_up_to_the_whole() -> None:
    levels, rng = balanced_levels(), seeds.generator(6)
    a, b = (summed(world().groups(world().draw(rng, levels), levels, "grpo")) for _ in "ab")
    moved, theta = rng.standard_normal(a.shape[1]), flat(world().engine.base)
    found = seen(a, b, moved)
    by_tensor = cosines.by_tensor(found, same=False)
    for place, part in enumerate((slice(40), slice(40, None))):
        assert cosines.row(by_tensor, (place, 0))["cosine"] == pytest.approx(angle(a.sum(0)[part], moved[part]))
    total = a.sum(0)
    scaled = [total[p] * np.linalg.norm(theta[p]) / np.linalg.norm(total[p]) for p in (slice(40), slice(40, None))]
    per_tensor = cosines.row(cosines.overall(found, same=False, balanced=True), 0)
    assert per_tensor["cosine"] == pytest.approx(angle(np.concatenate(scaled), moved))


def test_copies_correct_directions_that_are_not_linear() -> None:
    """The mean of sign(g + noise) and a fixed vector; and means of two seeds whose ways are noisy as well."""
    rng, size = seeds.generator(7), 400
    g, way = rng.standard_normal(size), rng.standard_normal(size)
    way += 0.8 * g
    mean_sign = np.array([math.erf(x / math.sqrt(2)) for x in g])  # E sign(x + standard normal)
    measured, corrected, means = [], [], []
    for _ in range(200):
        copies = [np.sign(g + rng.standard_normal(size)) for _ in range(4)]
        moved = [way + 2 * rng.standard_normal(size) for _ in range(2)]
        dots = np.array([*copies, *moved, way]) @ np.array([*copies, *moved, way]).T
        measured.append(cosines.cosine(dots, 0, 6))
        corrected.append(cosines.corrected_by_copies(dots, ours=[1], pairs=[(0, 1)], other=6))
        means.append(cosines.both(dots, [[0, 1], [2, 3]], [4, 5]))
    truth = angle(mean_sign, way)
    assert np.mean(corrected) == pytest.approx(truth, rel=0.01)
    assert np.mean(means) == pytest.approx(truth, rel=0.02)
    assert np.mean(measured) < 0.85 * truth


def test_correct_and_incorrect_are_opposite_in_expectation() -> None:
    """Exactly by enumeration, for sums; sampled, as far as noise alone allows."""
    for level in LEVELS:
        weighted_YD = world().chances_LY[level - 1][:, None] * world().scores_LYD[level - 1]
        assert weighted_YD[0] == pytest.approx(-weighted_YD[1:].sum(0), abs=1e-12)
    rng, rows = seeds.generator(8), []
    levels = [2] * (4 * signs.PARTS)
    for _ in range(120):
        drawn_PG, sides = world().draw(rng, levels), []
        for correct in (True, False):
            for half in (0, 1):
                own_PG = drawn_PG[:, half::2]
                sums_PD = np.stack([world().scores_LYD[1][own_G[(own_G == 0) == correct]].sum(0) for own_G in own_PG])
                sides.append(summed(sums_PD, signs.PARTS))
        stacked = np.concatenate(sides)
        rows.append(signs.compare((stacked @ stacked.T).reshape(4, signs.PARTS, 4, signs.PARTS)))
    assert np.mean([row["cosine"] for row in rows]) == pytest.approx(
        np.mean([row["noise_alone"] for row in rows]), abs=0.01
    )
    assert np.mean([row["cosine"] for row in rows]) > -0.97  # noise shows
    assert np.median([row["corrected"] for row in rows]) == pytest.approx(-1.0, abs=0.02)
    assert np.mean([row["corrected_low"] <= -1 <= row["corrected_high"] for row in rows]) > 0.88
    assert np.median([row["length_ratio"] for row in rows]) == pytest.approx(1.0, abs=0.05)
    z = [row["z"] for row in rows]
    assert within(z, 0.0)
    assert 0.7 < np.std(z) < 1.4


def test_labels_that_scores_cannot_explain_are_seen() -> None:
    """A trainer that is not the sampler: scores whose mean is not zero move the sum of both sides off zero."""
    rng = seeds.generator(9)
    sides = [part + 0.3 for part in np.zeros((4, signs.PARTS, 50))] + 0.1 * rng.standard_normal((4, signs.PARTS, 50))
    stacked = sides.reshape(-1, 50)
    assert signs.compare((stacked @ stacked.T).reshape(4, signs.PARTS, 4, signs.PARTS))["z"] > 5


def test_first_order_gain_is_the_derivative_of_the_pass_rate() -> None:
    levels, rng = balanced_levels(), seeds.generator(10)
    base = world().engine.base
    along = {name: torch.from_numpy(rng.standard_normal(t.shape)) for name, t in base.items()}

    def rate(step: float) -> float:
        moved = {name: t + step * along[name] for name, t in base.items()}
        return float(np.mean([tabular_policy.pass_rate(moved, level) for level in LEVELS]))

    truth, covered, values = (rate(1e-4) - rate(-1e-4)) / 2e-4, 0, []
    for _ in range(200):
        parts_SD = summed(world().groups(world().draw(rng, levels), levels, "rloo"))
        found = gains.slope(parts_SD @ flat(along))
        values.append(found.value)
        covered += abs(found.value - truth) <= 2.13 * found.se
    assert within(values, truth)
    assert covered >= 180


def test_a_line_is_a_line_and_noise_is_what_adamw_makes_of_it(tmp_path: Path) -> None:
    steps, rng = [2, 3, 7, 12], seeds.generator(11)
    way_X, files = rng.standard_normal(300).astype(np.float32), []
    save_file({"w": np.ones(300, dtype=np.float32), "still": np.ones(5, dtype=np.float32)}, tmp_path / "base")
    for step in steps:
        tensors = {"w": np.float32(1) + step * way_X, "still": np.ones(5, dtype=np.float32)}
        save_file(tensors, tmp_path / str(step))
        files.append(Vector((tmp_path / str(step),), minus=tmp_path / "base"))
    still, moved, total = linearity.of_weights(files, steps)
    assert (still["moved"], still["weights"]) == (0, 5)
    assert moved["linear_share"] == total["linear_share"] == 1.0
    told = linearity.of_displacements(products.multiply({str(i): v for i, v in enumerate(files)}).total, steps)
    assert [told[name] for name in ("rank_one_share", "first_r2", "straightness")] == pytest.approx([1.0, 1.0, 1.0])
    assert linearity.r2(np.array([[0.0], [1.0], [4.0], [9.0]]), [0, 1, 2, 3])[0] == pytest.approx(
        np.corrcoef([0, 1, 2, 3], [0, 1, 4, 9])[0, 1] ** 2
    )
    logs_KX = np.concatenate([[np.zeros(300)], [step * way_X for step in steps]])
    assert linearity.of_logprobs(logs_KX, steps)["linear_share"] == 1.0

    weights = torch.nn.Parameter(torch.zeros(4000, dtype=torch.float64))
    adam, seen_KX = torch.optim.AdamW([weights], lr=1.0, betas=(0.9, 0.95), weight_decay=0.0), [np.zeros(4000)]
    for step in range(1, 13):
        weights.grad = torch.from_numpy(rng.standard_normal(4000))
        adam.step()
        if step in steps:
            seen_KX.append(weights.detach().numpy().copy())
    expected, stacked = linearity.of_noise(steps), np.array(seen_KX)
    assert float((linearity.r2(stacked, [0, *steps]) > linearity.LINEAR).mean()) == pytest.approx(
        expected["linear_share"], abs=0.03
    )
    assert linearity.rank_one(stacked[1:] @ stacked[1:].T) == pytest.approx(expected["rank_one_share"], abs=0.01)


def test_a_random_walk_has_a_large_first_component() -> None:
    """8 / pi^2, from the eigenvalues of Brownian motion: what the module's docstring warns of."""
    times = np.arange(1, 400, dtype=np.float64)
    assert linearity.rank_one(np.minimum.outer(times, times)) == pytest.approx(8 / math.pi**2, abs=0.002)


def test_inner_products_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums, differences, a tensor that a file lacks, a scalar; however small the slices."""
    rng = seeds.generator(12)
    tensors = [{"m": rng.standard_normal((7, 3)), "s": np.array(2.0 + i)} for i in range(3)]
    del tensors[2]["s"]
    for i, own in enumerate(tensors):
        save_file(own, tmp_path / str(i))
    paths = [tmp_path / str(i) for i in range(3)]
    vectors = {
        "sum": Vector((paths[0], paths[1])),
        "way": Vector((paths[1],), minus=paths[0]),
        "less": Vector((paths[2],)),
        "zero": Vector(()),
    }
    m0, m1, m2 = (own["m"].ravel() for own in tensors)
    m_VX = np.stack([m0 + m1, m1 - m0, m2, 0 * m0])
    s_VX = np.array([[5.0], [1.0], [0.0], [0.0]])
    for numbers in (1, 10, 2**24):
        monkeypatch.setattr(products, "SLICE_NUMBERS", numbers)
        found = products.multiply(vectors)
        assert found.tensors == ("m", "s")
        assert found.dots_TVV == pytest.approx(np.stack([m_VX @ m_VX.T, s_VX @ s_VX.T]))
    products.save(found, tmp_path / "kept")
    again = products.load(tmp_path / "kept")
    assert (again.labels, again.tensors) == (found.labels, found.tensors)
    assert np.array_equal(again.dots_TVV, found.dots_TVV)


def test_kinds_of_a_draw(tmp_path: Path) -> None:
    rng = seeds.generator(13)
    parts_SX = rng.standard_normal((4, 6)).astype(np.float32)
    parts_SX[:, 2] = 0.0
    vectors = []
    for i, row in enumerate(parts_SX):
        save_file({"w": row.reshape(2, 3)}, tmp_path / str(i), {"weight_norms": '{"w": 5.0}'})
        vectors.append(Vector((tmp_path / str(i),)))
    made = kinds.make(
        lambda: vectors, (*kinds.ALWAYS, "per_tensor"), like=tmp_path / "0", root=tmp_path, folder=Path("k")
    )
    found = {kind: load_file(vector.paths[0])["w"].ravel() for kind, vector in made.items()}
    total, size = parts_SX.sum(0), np.sqrt((parts_SX**2).mean(0))
    assert found["raw"] == pytest.approx(total, abs=1e-6)
    assert found["adam"] == pytest.approx(np.divide(total, size, out=np.zeros(6), where=size > 0), rel=1e-5)
    assert found["sign"] == pytest.approx(np.sign(total))
    assert np.linalg.norm(found["per_tensor"]) == pytest.approx(5.0)


# The command.

GRPO = ("method.grpo.lr=0.02", "method.grpo.steps=8", "method.grpo.checkpoints=8")
METHODS = ("one_shot", "one_shot_shuffled", "grpo")


def run_folder(*sets: str, **changes: object) -> Path:
    root, _ = execute(small_spec("evaluation.wide_methods=[]", *sets, **changes), temporary())
    return root


def say_nothing(label: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@functools.cache
def diagnosed() -> tuple[Path, str, dict[str, str]]:
    """A run of two seeds, what `diagnose` printed of it, and the digests of the run's files before."""
    root = run_folder(*GRPO, methods=METHODS, seeds=2)
    before = {
        str(path.relative_to(root)): store.digest(path)
        for path in root.rglob("*")
        if path.is_file() and path.name != checksums.NAME
    }
    result = invoke("diagnose", str(root), "--quiet")
    assert result.exit_code == 0, result.output
    return root, result.output, before


def rows_of(root: Path, name: str) -> list[dict[str, str]]:
    with open(root / f"diagnosis/{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def vector_of(path: Path) -> Array:
    return flat({name: torch.from_numpy(tensor) for name, tensor in load_file(path).items()})


def test_the_run_is_left_as_it_was() -> None:
    root, _, before = diagnosed()
    assert all(store.digest(root / name) == digest for name, digest in before.items())
    new = {p.relative_to(root).parts for p in root.rglob("*") if p.is_file()} - {Path(name).parts for name in before}
    new -= {(checksums.NAME,)}
    assert {parts[0] if parts[0] == "diagnosis" else parts[2][:9] for parts in new} == {"diagnosis"}
    assert not (root / "diagnosis/vectors").exists()


def test_what_is_told_is_what_the_run_holds() -> None:
    """Cosines of the stored files, computed here, for every checkpoint of both seeds with both batches; the cost."""
    root, output, _ = diagnosed()
    theta = flat(tabular.Tabular("tabular", root, {}).base)
    ways = [vector_of(root / f"methods/grpo/{seed}/trainer/step-0008.safetensors") - theta for seed in (0, 1)]
    rows, rollouts = rows_of(root, "cosines"), 0
    told = {(r["direction"], r["seed"], r["way_seed"]): float(r["cosine"]) for r in rows if r["step"] == "8"}
    for seed, other in itertools.product((0, 1), (0, 1)):
        folder = root / f"methods/one_shot/{seed}"
        per_tensor = vector_of(root / store.read_json(folder / "scores.json").direction.path)
        (journal,) = (folder / "journal").glob("*-direct.json")
        gradient = vector_of(root / store.read_json(journal)["result"].path)
        expected = {"raw": gradient, "per_tensor": per_tensor, "sign": np.sign(gradient)}
        for kind, vector in expected.items():
            assert told[kind, str(seed), str(other)] == pytest.approx(angle(vector, ways[other]), abs=1e-6)
        searches = [store.read_json(root / f"methods/{name}/{seed}/search.json") for name in METHODS[:2]]
        rollouts += (256 + 16 * max(len(c.score.problem_ids) for s in searches for c in s.candidates)) * (seed == other)
    kept = {str(seed): {p.stem[-1] for p in (root / f"methods/grpo/{seed}/trainer").glob("step-*")} for seed in (0, 1)}
    assert {(r["seed"], r["way_seed"], r["step"]) for r in rows} == {
        (s, w, t) for s in "01" for w in "01" for t in kept[w]
    }
    assert {r["tensor"] for r in rows_of(root, "tensors")} == set(tabular_policy.NAMES)
    assert float(rows_of(root, "means")[-1]["ways_alike"]) == pytest.approx(angle(*ways))
    cost = json.loads((root / "diagnosis/diagnosis.json").read_text())["cost"]
    assert (cost["train_rollouts"], cost["selection_rollouts"], cost["eval_rollouts"]) == (0, 0, rollouts)
    assert f"cost: {rollouts} rollouts of its own" in output
    for name in ("cosines-grpo", "tensors-grpo", "linearity", "noise", "gains"):
        assert (root / f"diagnosis/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (root / f"diagnosis/{name}.svg").read_text().startswith("<svg")


def test_a_second_call_reads_what_is_there_and_makes_the_rest(tmp_path: Path) -> None:
    root, *_ = diagnosed()
    copy = tmp_path / root.name
    shutil.copytree(root, copy)
    for lost in ("1/gradients.json", "0/signs.json", "kinds.json"):
        (copy / "diagnosis" / lost).unlink()
    kept = (copy / "diagnosis/0/gradients.safetensors").stat().st_mtime_ns
    again = diagnosing.diagnose(copy, plugins.load({}), progress=say_nothing)
    assert (copy / "diagnosis/0/gradients.safetensors").stat().st_mtime_ns == kept
    one, other = (json.loads((folder / "diagnosis/diagnosis.json").read_text()) for folder in (root, copy))
    assert {**one, "cost": 0} == {**other, "cost": 0}
    assert again.cost.eval_rollouts == one["cost"]["eval_rollouts"]


def test_without_grpo_it_says_what_is_left_out_and_how_to_get_it() -> None:
    root = run_folder(methods=("one_shot",))
    found = diagnosing.diagnose(root, plugins.load({}), progress=say_nothing)
    missing, seeds_missing = found.skipped
    assert "no kept checkpoint of grpo: no cosines" in missing
    assert "--method grpo --set method.grpo.checkpoints=16" in missing
    assert "--seeds 2" in seeds_missing
    assert found.tables["noise"]
    assert not found.tables["cosines"]
    assert not found.tables["linearity"]
    with pytest.raises(UnknownName, match='no method in this run "grppo"'):
        diagnosing.diagnose(root, plugins.load({}), progress=say_nothing, trained=["grppo"])


def test_one_problem_has_no_parts_to_tell_noise_from() -> None:
    """Nor has it an error. It is the measured cosine that is left."""
    sets = ("sampling.group=32", "method.grpo.steps=2", "evaluation.samples=1")
    root = run_folder(*sets, methods=METHODS, budget=32, selection_budget=64)
    found = diagnosing.diagnose(root, plugins.load({}), progress=say_nothing)
    assert [math.isnan(row["snr"]) for row in found.tables["noise"]] == [True]
    raw = [row for row in found.tables["cosines"] if row["direction"] == "raw"]
    assert all(math.isfinite(row["cosine"]) and math.isnan(row["corrected_se"]) for row in raw)


def test_a_trainer_alone_is_looked_at_alone() -> None:
    found = diagnosing.diagnose(run_folder(*GRPO, methods=("grpo",)), plugins.load({}), progress=say_nothing)
    assert found.skipped[0].startswith("no one_shot in this run")
    assert {row["tensor"] for row in found.tables["linearity"]} >= {"all", "AdamW on pure noise"}
    assert not found.tables["noise"]
    assert found.cost.eval_rollouts == 0


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    result = invoke("diagnose", str(tmp_path))
    assert result.exit_code == 2
    assert "no such run" in result.output
    with pytest.raises(UsageError, match="nothing to diagnose: no one_shot"):
        diagnosing.diagnose(run_folder(methods=("base",)), plugins.load({}), progress=say_nothing)
