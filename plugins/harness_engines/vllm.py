"""The `vllm` engine: vLLM draws the rollouts, the hf engine does everything else.

Does: give every process of the hf engine a vLLM model beside its own (serving.py), put the weights of a policy into it
in place, and compare the log-probabilities of the two whenever they have changed.
Doesn't: form policies, score, differentiate or train (hf.py), or tell entropies: a search scores its completions.

Departures from common practice, numbered:
1. One request for each rollout, with a seed of its own. `n` is never used: it seeds the copies of a request by seed + i.
2. vLLM never reads a checkpoint. Its weights are those that the gradient is taken of, the head's given by name: on a CPU
   a tied head would silently stay the old one.
3. A steered policy is drawn by the hf engine's sampler: vLLM cannot add vectors to hidden states.
4. Candidates along a lora direction are swapped in as all others, not served as one adapter at several scales, though vLLM
   can (an adapter for each scale, of the same factors). In fp32 that draws the same completions; in bf16 it draws from
   another policy, since factors are added beside the rounded base and never cast with it. A search by adapters on the CPU
   took over twice the processor time: its kernels copy the factors for every token, while a swap of the embedded model's
   weights takes some hundredths of a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import numpy as np

from harness.config import SamplingSpec
from harness.errors import HarnessError, UsageError
from harness.types import Policy, Rollout, Shard
from harness_engines import decoding
from harness_engines.hf import HfEngine
from harness_engines.local import Local, ModelSpec
from harness_engines.plugin import VLLM
from harness_engines.serving import Served

COMPARED = 16  # rollouts that the trainer scores after every change of weights


class VllmEngine(HfEngine):
    """`options`: those of HfEngine, and logprob_gap, the limit of the mean |trainer - sampler|, nats a token.

    Raises UsageError where vLLM is not installed.
    """

    def factory(self, options: Mapping[str, Any]) -> Callable[[ModelSpec], Local]:
        self.version = version()
        limit = float(options.get("logprob_gap", SamplingSpec().logprob_gap))
        return functools.partial(VllmLocal, logprob_gap=limit)

    def identity(self) -> Mapping[str, str]:
        return {**super().identity(), "sampler": f"vllm {self.version}"}


class VllmLocal(Local):
    """A model in this process, and vLLM's from the first draw on."""

    def __init__(self, spec: ModelSpec, *, logprob_gap: float) -> None:
        super().__init__(spec)
        self._limit = logprob_gap
        self._served: Served | None = None
        self._holds = ""  # the policy whose weights vLLM has
        self.gap = 0.0  # the last one measured

    def sample(self, shard: Shard, policy: Policy) -> list[Rollout]:
        weights = self.model.weights(policy)
        if weights.keys() != self.model.base.keys():
            return super().sample(shard, policy)
        self._served = self._served or Served(self.spec, self.model)
        changed = policy.id != self._holds
        if changed:
            self._holds = ""  # an error on the way leaves neither policy
            self._served.put(weights)
        prompts = [self.model.tokenize(request.prompt) for request in shard]
        completions = self._served.draw(shard, prompts)
        found = decoding.rollouts(self.model, shard, prompts, policy=policy.id, completions=completions)
        if changed:
            self._compare(found, policy, temperature=shard[0].temperature)
            self._holds = policy.id
        return found

    def _compare(self, drawn: list[Rollout], policy: Policy, *, temperature: float) -> None:
        """Raises HarnessError where vLLM draws from another policy than the trainer knows."""
        some = drawn[:: max(1, len(drawn) // COMPARED)]
        scores = self.score(some, policy, temperature or 1.0, None)  # of greedy draws, that at temperature 1 is told
        gaps_T = [np.abs(s.logprobs_T - r.logprobs) for s, r in zip(scores, some, strict=True)]
        self.gap = float(np.concatenate(gaps_T).mean())
        if not self.gap <= self._limit:
            raise HarnessError(
                f"vLLM and the trainer disagree by {self.gap:.3g} nats a token (limit sampling.logprob_gap = "
                f"{self._limit}): it would draw from another policy. Use --set engine.dtype=float32, or --engine hf."
            )


def version() -> str:
    """Of the installed vLLM. Raises UsageError where there is none."""
    for name in VLLM:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise UsageError(
        'the engine "vllm" needs the extra "vllm", which is not installed here: pip install \'oneshot-harness[vllm]\' on '
        "a machine with a GPU, in an environment of its own; without a GPU `make test-vllm` builds .venv-vllm. "
        "Or use --engine hf."
    )
