"""Tables of cosines: every direction of the run with every checkpoint of every way, and with its own copies.

Does: put the estimates of cosines.py together for all seeds: a way is compared with the batch of its own seed (the same
problems) and of the others; controls stand beside.
Doesn't: estimate anything itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.diagnosis import cosines, noise
from harness.diagnosis.kinds import ALWAYS
from harness.diagnosis.products import Products
from harness.diagnosis.subject import Subject, Way

Table = list[dict[str, Any]]
BALANCED = "per_tensor"


def tables(found: Subject, drawn: Mapping[int, Products], of_kinds: Products) -> dict[str, Table]:
    """`drawn` holds the products of each seed's parts, `of_kinds` those of whole directions of all seeds."""
    pairs = [(seed, way) for way in found.ways for seed in found.seeds]
    made = [_estimated(found, drawn[seed], seed=seed, way=way) for seed, way in pairs]
    others = [row for seed, way in pairs for row in _others(found, of_kinds, seed=seed, way=way)]
    return {
        "cosines": [row for overall, _ in made for row in overall] + others,
        "tensors": [row for _, tensors in made for row in tensors],
        "means": _means(found, of_kinds),
        "directions": _directions(found, of_kinds, drawn),
    }


def _estimated(found: Subject, products: Products, *, seed: int, way: Way) -> tuple[Table, Table]:
    """The gradient's own cosines, and those of per_tensor where the run used it, with errors from the parts."""
    parts = sum(label[0] == "a" and label[1:].isdigit() for label in products.labels)
    seen, same = cosines.view(products, way.labels, parts=parts), seed == way.seed
    overall, tensors = [], []
    for kind in ("raw", *(kind for kind in found.kinds if kind == BALANCED)):
        both = cosines.overall(seen, same=same, balanced=kind == BALANCED)
        for place, step in enumerate(way.steps):
            overall.append({**_name(kind, seed, way, step), **cosines.row(both, place)})
    by_tensor = cosines.by_tensor(seen, same=same)
    signal_T = noise.components(seen.draws).signal
    noise_T = noise.components(seen.draws).noise
    for tensor, name in enumerate(products.tensors):
        shares = {
            "signal_share": float(signal_T[tensor] / signal_T.sum()),
            "snr": float(noise.ratio(signal_T, noise_T)[tensor]),
        }
        for place, step in enumerate(way.steps):
            moved = float(seen.dd_TD[tensor, place] / seen.dd_TD[:, place].sum())
            numbers = cosines.row(by_tensor, (tensor, place))
            tensors.append({**_name("raw", seed, way, step), "tensor": name, **numbers, **shares, "moved_share": moved})
    return overall, tensors


def _name(direction: str, seed: int, way: Way, step: int) -> dict[str, Any]:
    return {"direction": direction, "seed": seed, "way": way.method, "way_seed": way.seed, "step": step}


def _others(found: Subject, products: Products, *, seed: int, way: Way) -> Table:
    """Kinds without errors of their own, and what other methods followed."""
    dots, rows = products.total, []
    kinds = [kind for kind in dict.fromkeys((*ALWAYS, *found.kinds)) if kind not in ("raw", BALANCED)]
    for kind in kinds:
        own = products.places([f"{kind}/{draw}/{seed}" for draw in "ab"])
        for step, label in zip(way.steps, way.labels, strict=True):
            (moved,) = products.places([label])
            ours, pairs = _copies(found, products, kind, seed=seed, same=seed == way.seed)
            corrected = cosines.corrected_by_copies(dots, ours=ours, pairs=pairs, other=moved)
            measured = cosines.cosine(dots, own[0], moved)
            rows.append({**_name(kind, seed, way, step), "cosine": measured, "corrected": corrected})
    for label in _controls(found, products, seed):
        (control,) = products.places([label])
        for step, moved in zip(way.steps, products.places(way.labels), strict=True):
            name = label.removeprefix("method/").rpartition("/")[0]
            rows.append({**_name(name, seed, way, step), "cosine": cosines.cosine(dots, control, moved)})
    return rows


def _copies(
    found: Subject, products: Products, kind: str, *, seed: int, same: bool
) -> tuple[list[int], list[tuple[int, int]]]:
    """Places of the copies independent of the way, and of pairs with independent noise: on the same problems the second
    draw and both draws; else both draws and those of every other seed."""
    a, b = products.places([f"{kind}/{draw}/{seed}" for draw in "ab"])
    if same:
        return [b], [(a, b)]
    others = products.places([f"{kind}/{draw}/{other}" for other in found.seeds if other != seed for draw in "ab"])
    return [a, b], list(itertools.product((a, b), others))


def _controls(found: Subject, products: Products, seed: int) -> list[str]:
    """Labels of directions that are not the focus's own: those other methods stored, and the shuffled raw gradient."""
    own = {name for name, method in found.methods.items() if method.name == found.methods[found.focus].name}
    stored = [label for label in products.labels if label.startswith("method/") and label.endswith(f"/{seed}")]
    others = [label for label in stored if label.split("/")[1] not in own]
    return [label for label in products.labels if label == f"shuffled/{seed}"] + others


def _means(found: Subject, products: Products) -> Table:
    """Mean direction with mean displacement over seeds, and two seeds' displacements with each other."""
    dots, rows = products.total, []
    for method in dict.fromkeys(way.method for way in found.ways):
        ways = {way.seed: way for way in found.ways if way.method == method and way.seed in found.seeds}
        steps = sorted(set.intersection(*(set(way.steps) for way in ways.values()))) if len(ways) > 1 else []
        for step in steps:
            moved = products.places([f"{method}/{seed}/{step}" for seed in ways])
            alike = [cosines.cosine(dots, u, v) for u, v in itertools.combinations(moved, 2)]
            row = {"way": method, "step": step, "ways_alike": float(np.mean(alike))}
            for kind in dict.fromkeys((*ALWAYS, *found.kinds)):
                copies = [products.places([f"{kind}/{draw}/{seed}" for draw in "ab"]) for seed in ways]
                row[kind] = cosines.both(dots, copies, moved)
            rows.append(row)
    return rows


def _directions(found: Subject, products: Products, drawn: Mapping[int, Products]) -> Table:
    """Each kind with the raw gradient, with its copy on the same problems, and with those of other seeds."""
    dots, rows = products.total, []
    for kind, seed in itertools.product(dict.fromkeys((*ALWAYS, *found.kinds)), found.seeds):
        a, b, raw = products.places([f"{kind}/a/{seed}", f"{kind}/b/{seed}", f"raw/a/{seed}"])
        others = products.places([f"{kind}/{draw}/{other}" for other in found.seeds if other != seed for draw in "ab"])
        alike = [cosines.cosine(dots, u, v) for u in (a, b) for v in others]
        rows.append(
            {
                "direction": kind, "seed": seed, "with_raw": cosines.cosine(dots, a, raw),
                "with_second_draw": cosines.cosine(dots, a, b),
                "with_other_seeds": float(np.mean(alike)) if alike else float("nan"),
            }
        )  # fmt: skip
    return rows
