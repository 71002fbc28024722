"""The file of one shard: rollouts written whole or not at all, groups read back one by one.

Does: pack tokens, log-probabilities and texts into flat arrays with offsets.
Doesn't: know what a shard is drawn for or where it lies (sampling.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from harness import store
from harness.types import Finish, Rollout


def write(path: Path, rollouts: Sequence[Rollout]) -> None:
    """One safetensors file: flat arrays with offsets, and a JSON index of groups in the header."""
    texts = [rollout.text.encode() for rollout in rollouts]
    arrays = {
        "completion_tokens": np.concatenate([r.completion_tokens for r in rollouts]),
        "logprobs": np.concatenate([r.logprobs for r in rollouts]),
        "lengths": np.array([len(r.completion_tokens) for r in rollouts], dtype=np.int64),
        "seeds": np.array([r.seed for r in rollouts], dtype=np.int64),
        "sample_idxs": np.array([r.sample_idx for r in rollouts], dtype=np.int64),
        "text": np.frombuffer(b"".join(texts) or b"\0", dtype=np.uint8),
        "text_lengths": np.array([len(text) for text in texts], dtype=np.int64),
    }
    prompts: dict[str, Any] = {}
    for row, rollout in enumerate(rollouts):
        entry = prompts.setdefault(rollout.problem_id, {"first": row, "count": 0})
        entry["count"] += 1
        entry["prompt"] = rollout.prompt_tokens.tolist()
    if all(r.entropies is not None for r in rollouts):
        arrays["entropies"] = np.concatenate([r.entropies for r in rollouts])
    # One key: safetensors writes several in random order, and equal shards would differ in their bytes.
    index = {"groups": prompts, "finish": [str(r.finish) for r in rollouts], "policy": rollouts[0].policy}
    store.write_via(path, lambda temporary: save_file(arrays, temporary, {"index": json.dumps(index)}))


def read(path: Path) -> list[Rollout]:
    """All rollouts of the file, in its order."""
    with store.as_written(path), safe_open(path, framework="np") as file:
        problem_ids = json.loads(file.metadata()["index"])["groups"]
    return [rollout for problem_id in problem_ids for rollout in read_group(path, problem_id)]


def read_group(path: Path, problem_id: str) -> tuple[Rollout, ...]:
    with store.as_written(path), safe_open(path, framework="np") as file:
        header = json.loads(file.metadata()["index"])
        entry, finish = header["groups"][problem_id], header["finish"]
        first, count = entry["first"], entry["count"]
        ends = np.concatenate([[0], np.cumsum(file.get_tensor("lengths"))])
        text_ends = np.concatenate([[0], np.cumsum(file.get_tensor("text_lengths"))])
        tokens, logprobs = file.get_slice("completion_tokens"), file.get_slice("logprobs")
        entropies = file.get_slice("entropies") if "entropies" in file.keys() else None  # noqa: SIM118
        text = file.get_tensor("text").tobytes()  # a slice may not start at the end, where an empty text does
        sample_idxs, rollout_seeds = file.get_tensor("sample_idxs"), file.get_tensor("seeds")
        prompt = np.asarray(entry["prompt"], dtype=np.int32)
        return tuple(
            Rollout(
                problem_id=problem_id,
                sample_idx=int(sample_idxs[row]),
                policy=header["policy"],
                seed=int(rollout_seeds[row]),
                prompt_tokens=prompt,
                completion_tokens=tokens[int(ends[row]) : int(ends[row + 1])],
                logprobs=logprobs[int(ends[row]) : int(ends[row + 1])],
                text=text[int(text_ends[row]) : int(text_ends[row + 1])].decode(),
                finish=Finish(finish[row]),
                entropies=None if entropies is None else entropies[int(ends[row]) : int(ends[row + 1])],
            )
            for row in range(first, first + count)
        )


def texts(root: Path, folder: str) -> Iterator[str]:
    """All completions of a draw (sampling.folder_of), without their tokens."""
    for path in sorted((root / "rollouts" / folder).glob("shard-*.safetensors")):
        with store.as_written(path), safe_open(path, framework="np") as file:
            whole, ends = file.get_tensor("text").tobytes(), np.cumsum(file.get_tensor("text_lengths")).tolist()
        yield from (whole[start:end].decode() for start, end in itertools.pairwise([0, *ends]))
