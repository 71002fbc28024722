"""What only the author of the engine "placeholder" can know: the model itself. The rest is the kit's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness import plugins, seeds
from harness.types import Policy, SampleRequest


def test_first_bytes_are_as_frequent_as_the_model_says(tmp_path: Path) -> None:
    engine = plugins.load().lookup("engine", "placeholder").load()("tiny", tmp_path, {"shard_rollouts": 256})
    idxs = tuple(range(2000))
    request = SampleRequest(
        problem_id="x",
        prompt="x",
        sample_idxs=idxs,
        seeds=tuple(seeds.seed_for(0, "test", "x", i) for i in idxs),
        temperature=1.0,
        max_tokens=1,
    )
    (rollouts,) = engine.sample([(request,)], Policy(base="tiny"))
    likely = max(rollouts, key=lambda r: float(r.logprobs[0]))
    share = np.mean([r.completion_tokens[0] == likely.completion_tokens[0] for r in rollouts])
    chance = float(np.exp(likely.logprobs[0]))
    assert abs(share - chance) < 4 * (chance * (1 - chance) / len(rollouts)) ** 0.5
