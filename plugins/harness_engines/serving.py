"""A vLLM model in this process: weights put in, completions drawn.

Does: start vLLM on the configuration of a model, with whatever weights; put tensors in by the names that the model has;
draw one completion for each seed.
Doesn't: read weights, tokenize, or know policies (vllm.py).

The prefix cache is emptied before every shard: what it held would decide how much is computed anew and in which batches,
and rounding with it. Within a shard the completions of a prompt share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from harness import config
from harness.errors import HarnessError, UsageError
from harness.types import Shard
from harness_engines.decoding import Completion, room
from harness_engines.local import ModelSpec
from harness_engines.model import CausalModel

ROWS = 512  # completions under way: a shard of the default size
HOTTEST = 2.0  # temperature that vLLM takes
BLOCK = 32  # tokens, the fewest that the CPU kernels take: only whole blocks of a prompt are shared
CPU_CACHE = 2**30  # bytes of keys and values, all taken at the start
GPU_SHARE = 0.4  # of the device's memory: the rest holds the trainer's weights, gradient and activations


class Served:
    """vLLM with the architecture of `model`. Its weights are arbitrary until the first `put`.

    Raises HarnessError where vLLM cannot be imported.
    """

    def __init__(self, spec: ModelSpec, model: CausalModel) -> None:
        self._vllm, self._model, self._eos_ids = _package(), model, list(model.eos_ids)
        on_cpu = spec.device == "cpu"
        memory = {"kv_cache_memory_bytes": CPU_CACHE} if on_cpu else {"gpu_memory_utilization": GPU_SHARE}
        self._llm = self._vllm.LLM(
            model=spec.path,
            dtype=spec.dtype,
            load_format="dummy",
            hf_overrides={"tie_word_embeddings": False},  # a tied head would keep its old packed weights on a CPU
            trust_remote_code=spec.trust_remote_code,
            skip_tokenizer_init=True,
            generation_config="vllm",  # the checkpoint's would truncate the distribution
            logprobs_mode="processed_logprobs",  # at the sampling temperature
            enable_prefix_caching=True,
            block_size=BLOCK,
            max_model_len=-1,  # as much of the context as there is memory for
            max_num_seqs=ROWS,
            enable_chunked_prefill=not on_cpu,  # on a CPU it cannot take back the draw of half a prompt that has a seed
            enforce_eager=on_cpu,  # compiling takes half a minute in every process
            seed=0,
            **memory,
        )
        first: dict[int, str] = {}
        named = model.module.named_parameters(remove_duplicate=False)
        self._names = {name: first.setdefault(id(parameter), name) for name, parameter in named}

    def put(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Make these the weights, in place; a tensor that two parameters share goes to both."""
        weights = iter([(name, tensors[known]) for name, known in self._names.items()])
        asked = {"weights_iterator": weights, "is_checkpoint_format": True}
        self._llm.collective_rpc("reload_weights", kwargs=asked)

    def draw(self, shard: Shard, prompts: list[list[int]]) -> Iterator[Completion]:
        """A completion for every seed of the shard, in request order. Raises UsageError at too high a temperature."""
        if not self._llm.reset_prefix_cache():
            raise HarnessError("vLLM did not empty its prefix cache: it would continue prompts of other weights")
        if (hottest := max(request.temperature for request in shard)) > HOTTEST:
            raise UsageError(f"vLLM draws at temperatures up to {HOTTEST:g}, not at {hottest:g}: use --engine hf")
        asked, how = [], []
        for request, prompt, tokens in zip(shard, prompts, room(self._model, shard, prompts), strict=True):
            asked += [{"prompt_token_ids": prompt} for _ in request.seeds]
            how += [self._sampling(request.temperature, tokens, seed) for seed in request.seeds]
        for out in self._llm.generate(asked, how, use_tqdm=False):
            yield _completion(out.outputs[0])

    def _sampling(self, temperature: float, max_tokens: int, seed: int) -> Any:
        return self._vllm.SamplingParams(
            seed=seed,
            temperature=temperature,
            max_tokens=max_tokens,
            top_p=1.0,
            top_k=0,
            logprobs=0,  # of the drawn token
            ignore_eos=True,  # the ends of the model are given by number
            stop_token_ids=self._eos_ids,
            detokenize=False,
        )


def _completion(drawn: Any) -> Completion:
    if drawn.finish_reason not in ("stop", "length"):
        raise HarnessError(f"vLLM ended a completion with {drawn.finish_reason!r} after {len(drawn.token_ids)} tokens")
    logprobs = [of[token].logprob for token, of in zip(drawn.token_ids, drawn.logprobs, strict=True)]
    tokens_T = np.asarray(drawn.token_ids, dtype=np.int32)
    return Completion(tokens_T, np.asarray(logprobs, dtype=np.float32), None, drawn.finish_reason == "stop")


def _package() -> Any:
    config.keep_vllm_here()
    try:
        import vllm
    except (ImportError, RuntimeError) as error:  # RuntimeError: libraries of another build, torchvision's above all
        raise HarnessError(f"vllm is installed but cannot be imported: {type(error).__name__}: {error}") from error
    return vllm
