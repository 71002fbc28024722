"""A causal language model of transformers and the weights of its policies.

Does: load a checkpoint once; form a policy's weights in fp32 from the base and cast them once; swap weights in by
pointer, so that base and candidate take turns without copies of the module.
Doesn't: sample or differentiate (decoding.py, forward.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from harness.contracts import Displacement, Loaded
from harness.errors import HarnessError, UsageError
from harness.types import Move, Policy
from harness_engines import noise, steering

KEPT_POLICIES = 2
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
Tensors = dict[str, torch.Tensor]


class CausalModel:
    """The module, its tokenizer, the base weights and a few policies' weights.

    `dtype` is the run's weight type; `device` a torch device name. Raises UsageError when `path` holds no model.
    """

    def __init__(self, path: str, root: Path, *, dtype: str, device: str, trust_remote_code: bool = False) -> None:
        self.path, self.root = path, root
        self.device = torch.device(device)
        self.module = self._placed(_load_module(path, getattr(torch, dtype), trust_remote_code).eval())
        self.tokenizer = _load_tokenizer(path, trust_remote_code)
        self.parameters: dict[str, torch.nn.Parameter] = dict(self.module.named_parameters())
        for parameter in self.parameters.values():
            parameter.requires_grad_(False)
        self.base: Tensors = {name: p.data for name, p in self.parameters.items()}
        self.residual = steering.Residual(self.module)
        self._formed: dict[str, Tensors] = {}

    def _placed(self, module: Any) -> Any:
        """The module, read into main memory, on the device."""
        return module.to(self.device)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a completion: the generation config's, else the tokenizer's."""
        config = getattr(self.module, "generation_config", None)
        ids = getattr(config, "eos_token_id", None)
        ids = self.tokenizer.eos_token_id if ids is None else ids
        listed = ids if isinstance(ids, list) else [] if ids is None else [int(ids)]
        known = tuple(i for i in listed if 0 <= i < self.vocabulary)
        if not known:
            raise UsageError(
                f"{self.path} names no end-of-sequence token that the model has (found: {listed or 'none'}); completions "
                "could not end. Set eos_token_id in its generation_config.json."
            )
        return known

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding: ids from there on, which a tokenizer may have, mean nothing to the model."""
        return int(self.module.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int | None:
        """The most tokens of a prompt with its completion; None where the configuration does not tell."""
        found = getattr(self.module.config, "max_position_embeddings", None)
        return None if found is None else int(found)

    @property
    def linear(self) -> list[str]:
        """Names of the weights [out, in] of linear layers, the head's not: what LoRA adapts."""
        head = self.module.get_output_embeddings()
        parts = [n for n, part in self.module.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]
        return sorted({f"{name}.weight" for name in parts} & self.parameters.keys())

    @property
    def pad_id(self) -> int:
        """Any valid id: padded positions are always masked."""
        own = self.tokenizer.pad_token_id
        return int(own) if own is not None and 0 <= own < self.vocabulary else self.eos_ids[0]

    def weights(self, policy: Policy) -> Tensors:
        """The policy's tensors in the run's dtype, vectors of a steered one among them. The last few are kept."""
        if not policy.moves:
            return self.base
        if policy.id not in self._formed:
            while len(self._formed) >= KEPT_POLICIES:
                self._formed.pop(next(iter(self._formed)))
            with torch.inference_mode(False), torch.no_grad():  # who scores it may want its gradient next
                self._formed[policy.id] = self._form(policy)
        return self._formed[policy.id]

    def _form(self, policy: Policy) -> Tensors:
        tensors = {name: t.float() for name, t in self.base.items()}
        for move in policy.moves:
            self._apply(tensors, move)
        return {name: t.to(self.base[name].dtype) if name in self.base else t for name, t in tensors.items()}

    def _apply(self, tensors: Tensors, move: Move) -> None:
        """One move in place; streamed tensor by tensor, since a direction is as large as the model."""
        path = self.root / move.path
        if move.kind == "noise":
            for name, tensor in tensors.items():
                tensors[name] = tensor + self._part(name, noise.of(move, name, self._whole(tensor)))
            return
        with safe_open(path, framework="pt", device=str(self.device)) as file:
            for name in file.keys():  # noqa: SIM118
                given = self._part(name, file.get_tensor(name)).float()
                if move.kind == "checkpoint":
                    tensors[name] = given
                else:
                    before = tensors[name] if name in tensors else self.residual.zero(name)
                    tensors[name] = before + move.step * given

    def _part(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """What this process holds of a tensor of the model."""
        return tensor

    def agreed(self, tokens_N: torch.Tensor) -> torch.Tensor:
        """Drawn tokens, the same for all processes that draw them together."""
        return tokens_N

    def _whole(self, part: torch.Tensor) -> torch.Tensor:
        """The tensor that the processes hold parts of."""
        return part

    @contextlib.contextmanager
    def loaded(self, policy: Policy) -> Iterator[torch.nn.Module]:
        """The module with the policy's weights inside; the base comes back afterwards."""
        with self.swapped(self.weights(policy)) as module:
            yield module

    @contextlib.contextmanager
    def lent(self, policy: Policy) -> Iterator[Loaded]:
        """The same for a library that wants a model of transformers: it must not change the weights."""
        with self.loaded(policy) as module:
            yield Loaded(module, self.tokenizer)

    @contextlib.contextmanager
    def swapped(self, tensors: Tensors) -> Iterator[torch.nn.Module]:
        before = {name: parameter.data for name, parameter in self.parameters.items()}  # swaps may nest
        for name, parameter in self.parameters.items():
            parameter.data = tensors[name]
        try:
            with self.residual.steered(tensors):
                yield self.module
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = before[name]

    def displacement(self, policy: Policy) -> Displacement:
        """Of the weights: vectors of a steered policy are none."""
        formed, square, total, changed, count = self.weights(policy), 0.0, 0.0, 0, 0
        for name, base in self.base.items():
            square += float((formed[name].float() - base.float()).double().square().sum())
            total += float(base.double().square().sum())
            changed += int((formed[name] != base).sum())
            count += base.numel()
        return Displacement(math.sqrt(square), math.sqrt(square / total), changed / count)

    def tokenize(self, prompt: str) -> list[int]:
        """As one user message through the chat template, where the tokenizer has one; else as it stands."""
        if getattr(self.tokenizer, "chat_template", None):
            message = [{"role": "user", "content": prompt}]
            given = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)
        else:
            given = self.tokenizer(prompt)
        ids: list[int] = given["input_ids"]
        return ids

    def text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def unsteered(self, policy: Policy, purpose: str) -> Tensors:
        """Its weights; raises UsageError for a steered policy, which is more than weights."""
        formed = self.weights(policy)
        if formed.keys() != self.base.keys():
            raise UsageError(
                f"{purpose} a steered policy is impossible: its vectors are added to hidden states and are no weights "
                "of the architecture. It can be sampled and scored in its run folder."
            )
        return formed

    def materialise(self, policy: Policy, folder: Path) -> None:
        self.unsteered(policy, "exporting")
        with self.loaded(policy) as module:
            module.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)


def _load_module(path: str, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, trust_remote_code=trust_remote_code, use_safetensors=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        _refuse_pickles(path)
        _refuse_code(path, error, trust_remote_code)
        is_path = path.startswith(("/", ".", "~"))  # else the loader's own words, which speak of hub ids, are right
        missing = is_path and not Path(path).is_dir()
        reason = "no such folder" if missing else str(error).strip().splitlines()[0].rstrip(".")
        raise UsageError(
            f'cannot load model "{path}": {reason}. Give a folder with config.json and weights, '
            'a hub id that is cached or reachable, or leave --model out for the embedded "tiny".'
        ) from error


def _refuse_pickles(path: str) -> None:
    """Raises UsageError for a folder whose weights are pickles alone."""
    folder = Path(path)
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern)) if folder.is_dir() else []
    if pickles and not any(folder.glob("*.safetensors")):
        raise UsageError(
            f"{path} holds its weights as pickles ({pickles[0]}), which may run code when they are read: only safetensors are "
            "loaded. If you trust them, convert them once: python -c 'import sys; from transformers import "
            "AutoModelForCausalLM as M, AutoTokenizer as T; a, b = sys.argv[1:]; M.from_pretrained(a, use_safetensors=False)"
            f".save_pretrained(b); T.from_pretrained(a).save_pretrained(b)' {shlex.quote(path)} NEW_FOLDER"
        )


def _refuse_code(path: str, error: Exception, trusted: bool) -> None:
    """Raises UsageError where what failed is that the model brings Python code of its own."""
    if not trusted and "trust_remote_code" in str(error):
        raise UsageError(
            f'model "{path}" brings Python code of its own (auto_map in its configuration), which is not run. If you have '
            "read it and trust it: --set engine.trust_remote_code=true, which the manifest records"
        ) from error


def _load_tokenizer(path: str, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        _refuse_code(path, error, trust_remote_code)
        raise UsageError(f'no tokenizer beside model "{path}": {str(error).strip().splitlines()[0]}') from error


def file_hashes(path: str, *, code: bool = False) -> dict[str, str]:
    """sha256 by file name of a local checkpoint, with its Python code where that is run; a hub id is its own identity."""
    folder = Path(path)
    if not folder.is_dir():
        return {"hub_id": path}
    files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".json"} or (code and p.suffix == ".py"))
    if not files:
        raise HarnessError(f"{path} holds neither weights nor a configuration")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
