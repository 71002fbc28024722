"""The `hf` engine with one model over all its processes (`--set engine.fsdp=true`), for models that one GPU has no room for.

Does: let every process hold its rows of each weight (FSDP2, `fully_shard`) and do every task together with the others,
gathering a layer while it runs. Of a gradient each takes its share of the microbatches and keeps its rows of the sum; the process
that started them puts these together in main memory, so that no device ever holds a whole gradient.
Doesn't: train step by step, save time in sampling and scoring (every process does all of it), halve microbatches where memory
runs out, or reach beyond one machine.

The process that started them holds the model whole in main memory, for norms, displacements, exports and lm-eval. While they
load, each of them does so as well. Gathered weights are the same bits in other places, where kernels may round otherwise.
Gradients are summed over processes, and over chunks of logits, in fp32; FSDP rounds each such sum to the type of the weights.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from harness.contracts import Batch, Objective, Optimizer
from harness.errors import HarnessError, UsageError
from harness.types import Policy
from harness_engines import hf, local, steering
from harness_engines.forward import Micro
from harness_engines.local import Local, ModelSpec, SubGradient
from harness_engines.model import CausalModel, Tensors
from harness_engines.workers import DIED, Task, Workers

LIMIT = timedelta(minutes=10)  # of one exchange between the processes, which waits for the slowest microbatch
SLACK = 1.0  # seconds; a process that died may be known for it a little later than what the others say of it
T = TypeVar("T")


class FsdpEngine(hf.HfEngine):
    """`options` are those of HfEngine. Raises UsageError for less than two processes."""

    def __init__(self, model: str, root: Path, options: Mapping[str, Any]) -> None:
        if len(devices := hf.devices_of(options)) < 2:
            raise UsageError(
                f"engine.fsdp shares one model out over several processes, and there is one, on {devices[0]}: it takes two "
                "GPUs or more, --workers 2 or more and no number in engine.device"
            )
        super().__init__(model, root, options)
        _ = self.local.model.residual.layers  # a model without a list of them is refused before anything is drawn

    def factory(self, options: Mapping[str, Any]) -> Callable[[ModelSpec], Local]:
        return _whole  # of this process alone; a Group makes its own

    def _run(self, name: str, tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        self._workers = self._workers or Group(self._specs)
        try:
            yield from self._workers.run([(name, task) for task in tasks])
        except (HarnessError, KeyboardInterrupt):
            self.close()  # the others wait for the one that failed
            self._workers = None
            raise

    def trainer(self, policy: Policy, optimizer: Optimizer) -> NoReturn:
        raise UsageError("engine.fsdp does not train step by step: name methods that take a direction, or none")

    def actor_critic(self, policy: Policy, optimizer: Optimizer, *, critic_lr: float) -> NoReturn:
        self.trainer(policy, optimizer)


def _whole(spec: ModelSpec) -> Local:
    """In main memory. Beside GPUs all threads stay with this process, which takes norms and sums of whole models."""
    threads = torch.get_num_threads()
    found = Local(spec._replace(device="cpu"))
    if spec.device != "cpu":
        torch.set_num_threads(threads)
    return found


class Group(Workers):
    """A process for each spec; every task is done by all of them together."""

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="harness-fsdp-")
        meeting = str(Path(self._folder.name) / "meeting")
        super().__init__(PartLocal, [(spec, rank, len(specs), meeting) for rank, spec in enumerate(specs)])

    def run(self, tasks: Sequence[Task]) -> Iterator[Any]:
        """See Workers. After an error the group is of no more use: some of it wait for the others."""
        for task in tasks:
            yield _together(self._answers(task))

    def _answers(self, task: Task) -> list[Any]:
        waiting = [self.submit(connection, task) for connection in self._connections]
        answers = {}
        while waiting:
            for connection in self.wait(waiting):
                answers[connection] = self._answer(connection)
                waiting.remove(connection)
        return [answers[connection] for connection in self._connections]

    def _answer(self, connection: Any) -> Any:
        try:
            return self.result(connection)
        except HarnessError as error:
            if not wait([process.sentinel for process in self._processes], timeout=SLACK):
                raise
            raise HarnessError(DIED) from error  # what the others say of that is no help

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


def _together(answers: list[Any]) -> Any:
    """A sub-batch's gradient of its parts; of anything else all have the same."""
    first = answers[0]
    if not isinstance(first, SubGradient):
        return first
    parts = [dict(answer.arrays) for answer in answers]
    return SubGradient(
        {name: np.concatenate([part.pop(name) for part in parts]) for name in first.arrays},
        first.groups,
        sum(answer.tokens for answer in answers),
        float(np.max([answer.logprob_gap for answer in answers])),  # max() would drop a NaN
        sum(answer.loss for answer in answers),
    )


class PartLocal(Local):
    """One of `size` processes with a part each of the model, which meet by the file `meeting`."""

    def __init__(self, spec: ModelSpec, rank: int, size: int, meeting: str) -> None:
        kind = torch.device(spec.device).type
        if kind == "cuda":
            torch.cuda.set_device(spec.device)
        dist.init_process_group(
            "nccl" if kind == "cuda" else "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size,
            timeout=LIMIT,
        )
        self._mesh, self._rank, self._size = init_device_mesh(kind, (size,)), rank, size
        super().__init__(spec)

    def _load(self) -> CausalModel:
        return PartModel(self.spec, self._mesh)

    def _fitting(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            local.require_out_of_memory(error)
            raise HarnessError(
                f"{self.spec.device} has no room for a microbatch of {self.microbatch_tokens} tokens beside its part of "
                "the model: --set engine.gradient_checkpointing=true or a smaller engine.microbatch_tokens need less"
            ) from error

    def _turns(self, micros: Iterator[Micro]) -> Iterator[tuple[Micro, int]]:
        """Microbatches with as many forwards side by side, since every layer is gathered by all at a time. Where there is
        none left for this process it repeats another's, which does not count."""
        for _, alike in itertools.groupby(micros, key=lambda micro: micro.passes):
            while turn := list(itertools.islice(alike, self._size)):
                yield (turn[self._rank], 1) if self._rank < len(turn) else (turn[0], 0)

    def gradient(self, batch: Batch, index: int, policy: Policy, objective: Objective) -> SubGradient:
        """This process's rows of each tensor, and what it saw of the sub-batch."""
        found = self.gradient_at(self.model.weights(policy), batch, index, objective)
        return found._replace(arrays={name: t.to_local().cpu().numpy() for name, t in found.arrays.items()})


class PartModel(CausalModel):
    """Policies are formed of parts. What is no layer (embeddings, last norm, head) is whole while a policy is in use: heads and
    embeddings are read outside of a forward of the module, and may be one weight."""

    def __init__(self, spec: ModelSpec, mesh: DeviceMesh) -> None:
        self._mesh = mesh
        super().__init__(
            spec.path, spec.root, dtype=spec.dtype, device=spec.device, trust_remote_code=spec.trust_remote_code
        )
        self._used: Tensors | None = None
        self._inside: Tensors | None = self.base  # what lies in the module, where policies are copied to
        self._base_apart = False
        self._differentiable()
        # FSDP takes from the first forward which module is the outermost one and, of what is trainable then, in which type
        # gradients are reduced; it makes what it gathers into, which in inference mode would be of no use to a backward.
        with torch.no_grad():
            self.module(input_ids=torch.tensor([[self.pad_id]], device=self.device))
        for parameter in self.module.parameters():
            if not isinstance(parameter, DTensor):  # whole, since of no layer
                parameter.grad_dtype = torch.float32  # gradients of many chunks of logits add up in it

    def _differentiable(self) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)  # as what is gathered of it is to have a gradient

    def _placed(self, module: Any) -> Any:
        how: dict[str, Any] = {"mesh": self._mesh, "mp_policy": MixedPrecisionPolicy(reduce_dtype=torch.float32)}
        for layer in steering.Residual(module).layers:
            fully_shard(layer, **how, reshard_after_forward=True)
        fully_shard(module, **how, reshard_after_forward=False)
        module.set_reshard_after_backward(False, recurse=False)
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.set_gradient_divide_factor(1.0)  # sums, not means
                part.set_force_sum_reduction_for_comms(True)
                # Processes may differ in the experts that they use; all use what is no layer, where zeros would be bf16
                # beside fp32, which FSDP refuses.
                part.set_reduce_scatter_unused_params(part is not module, recurse=False)
        return module

    def _part(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name not in self.parameters:
            return tensor
        return distribute_tensor(tensor, self._mesh, [Shard(0)], src_data_rank=None)

    def _whole(self, part: torch.Tensor) -> torch.Tensor:
        return part.full_tensor() if isinstance(part, DTensor) else part

    def agreed(self, tokens_N: torch.Tensor) -> torch.Tensor:
        """The first process's: another's may differ by rounding, and would then wait for forwards that nobody else makes."""
        dist.broadcast(tokens_N, src=0)
        return tokens_N

    @contextlib.contextmanager
    def swapped(self, tensors: Tensors) -> Iterator[torch.nn.Module]:
        before = self._used
        with self.residual.steered(tensors):
            self._use(tensors)
            yield self.module
            self._use(before)  # not after an error, with which the group ends: the others would not take part

    def _use(self, tensors: Tensors | None) -> None:
        """From here on; None: nothing is in use."""
        self.module.reset_iter_state()  # gives free what is whole, and forgets forwards without a backward
        self._used = tensors
        if tensors is None:
            return
        if tensors is not self._inside:
            self._copy(tensors)
        self._differentiable()
        self.module.unshard()

    @torch.no_grad()
    def _copy(self, tensors: Tensors) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
        self._inside = tensors

    def _form(self, policy: Policy) -> Tensors:
        """Of a base apart from the module: what is formed may share tensors with it."""
        if not self._base_apart:
            self.base.update({name: tensor.clone() for name, tensor in self.base.items()})
            self._base_apart = True
        self._inside = None  # it may be of a policy that is no longer kept, whose memory this would hold
        return super()._form(policy)
