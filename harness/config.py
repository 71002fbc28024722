"""The run spec: defaults in code, then a TOML file, then `--set a.b=c`.

Does: build and check a RunSpec; an unknown key is an error that names the nearest one.
Doesn't: know plugins: names of domains, methods and engines are looked up when the run starts. Options of methods
are free-form here and checked against the method's own `options`.
"""

from __future__ import annotations

import dataclasses
import os
import types as pytypes
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import limits, store, toml
from harness.errors import UnknownName, UsageError
from harness.types import Outcome

USES = "uses"  # the option of a variant that names the method it is one of
DEFAULT_METHODS = (
    "base", "base_tempered", "one_shot", "one_shot_shuffled", "random_direction", "grpo", "entropy_min", "single_example",
    "rejection_sft", "random_search",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """`group` completions per training problem at `temperature`; `max_tokens` 0 means the benchmark's own.

    `logprob_gap` is the largest allowed |trainer - sampler| log-probability of a token, in nats; ten times that where
    weights have 16 bits.
    """

    group: int = 16
    temperature: float = 1.0
    max_tokens: int = 0
    logprob_gap: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """Where problems of each split come from: benchmarks of the domain or .jsonl files of rows, one or several.

    Empty: `benchmark`, or what the other splits name (harness/selecting.py).
    """

    train: tuple[str, ...] = ()
    selection: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpec:
    """The line search: steps are solved for these KL(base || candidate) targets, in nats per token."""

    kl_targets: tuple[float, ...] = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    problems: int = 128
    samples: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """Test draws: `samples` on `problems`; what more is drawn is charged to evaluation as well.

    `wide_methods` are looked at closely: up to `wide_samples` draws on the first `wide_problems` for pass@16, and fresh
    draws on the first `seen_problems` of the training problems. `bin_samples` draws of the base sort test problems by its
    pass rate. All steps that the `candidate_methods` searched among are scored on the test problems.
    """

    problems: int = 300
    samples: int = 4
    wide_problems: int = 100
    wide_samples: int = 64
    wide_methods: tuple[str, ...] = ("base", "one_shot", "grpo")
    seen_problems: int = 100
    bin_samples: int = 16
    candidate_methods: tuple[str, ...] = ("one_shot",)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSpec:
    """The reward of each outcome. A verifier error has none: its rollout is left out."""

    correct: float = 1.0
    wrong: float = 0.0
    unparsed: float = 0.0
    timeout: float = 0.0

    def of(self, outcome: Outcome) -> float | None:
        return None if outcome is Outcome.ERROR else float(getattr(self, outcome.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """`dtype` and `device` "auto": fp32 on CPU, bf16 on GPU. `shard_rollouts` is the sampling batch.

    `microbatch_tokens` bounds a teacher-forced forward, padding included; 0: 2,048 on CPU, 16,384 on GPU.
    `gradient_checkpointing` makes layers again in the backward instead of keeping them: a third more work, less memory.
    `fsdp` (engine hf): the processes, one for each GPU, hold a part each of one model instead of a copy each, and work on
    it together. For models that one GPU has no room for; methods that train step by step are left out.
    """

    name: str = "hf"
    dtype: str = "auto"
    device: str = "auto"
    shard_rollouts: int = 512
    microbatch_tokens: int = 0
    trust_remote_code: bool = False
    gradient_checkpointing: bool = False
    fsdp: bool = False

    def __post_init__(self) -> None:
        if self.fsdp and self.name != "hf":
            raise UsageError(f"engine.fsdp is for --engine hf: {self.name} has no processes that share a model")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that decides a run's results, plus `workers` and `engine.gradient_checkpointing`, which do not and are left
    out of the hash.

    `benchmark` (a name or a .jsonl file of rows; "" is "ladder" unless `data` names some) serves every split that
    `data` does not. `budget` is the number of training rollouts of every method, `selection_budget` (0: the same number) what each
    may spend on choosing steps, checkpoints or temperatures. `seeds` counts run seeds 0, 1, ...
    """

    domain: str
    benchmark: str = ""
    model: str = "tiny"
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: int = 1
    budget: int = 4096
    selection_budget: int = 0
    data: DataSpec = field(default_factory=DataSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    search: SearchSpec = field(default_factory=SearchSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    rewards: RewardSpec = field(default_factory=RewardSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    workers: int = 0

    def __post_init__(self) -> None:
        limits.check(self)

    def target(self, method: str) -> str:
        """The registered name of a method of the run: a variant (`method.grpo_slow.uses = "grpo"`) has one of its own."""
        return str(self.method.get(method, {}).get(USES, method))

    @property
    def num_train_problems(self) -> int:
        return self.budget // self.sampling.group

    @property
    def selection_total(self) -> int:
        return self.selection_budget or self.budget

    @property
    def num_workers(self) -> int:
        return self.workers or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else self.workers or 1

    @property
    def hash(self) -> str:
        """8 hex digits over everything that decides results."""
        values = to_dict(self)
        values.pop("workers")
        values["engine"].pop("gradient_checkpointing")
        if not self.engine.fsdp:  # which rounds otherwise; specs without it keep the hashes of before there was one
            values["engine"].pop("fsdp")
        return store.fingerprint(values)[:8]


def load(domain: str | None, *, file: Path | None, changes: Mapping[str, Any], sets: Sequence[str]) -> RunSpec:
    """Defaults, then the TOML `file`, then `changes` (flags), then `sets` ("a.b=c").

    Raises UsageError or UnknownName for anything that is not a key of the spec.
    """
    values: dict[str, Any] = toml.parsed(toml.read_text(file, "spec file"), str(file)) if file else {}
    values.update({key: value for key, value in changes.items() if value not in (None, ())})
    if domain is not None:
        values["domain"] = domain
    for text in sets:
        _set(values, text)
    if "domain" not in values:
        raise UsageError("no domain given: use --domain NAME, or a --spec file with a `domain` key")
    spec: RunSpec = _build(RunSpec, values, "")
    data = {split: tuple(map(_anchored, names)) for split, names in dataclasses.asdict(spec.data).items()}
    return dataclasses.replace(spec, benchmark=_anchored(spec.benchmark), data=DataSpec(**data))


def is_file(name: str) -> bool:
    """Whether a source of problems is a file of rows; other names are benchmarks."""
    return name.endswith(".jsonl")


def _anchored(name: str) -> str:
    """A file by its absolute path, so that a run can be resumed from any folder."""
    try:
        return str(Path(name).expanduser().absolute()) if is_file(name) else name
    except RuntimeError as error:  # ~somebody
        raise UsageError(f"{name}: there is no such user") from error


def to_dict(spec: RunSpec) -> dict[str, Any]:
    return dataclasses.asdict(spec)


def to_toml(spec: RunSpec) -> str:
    """The spec as TOML, readable by `--spec`."""
    return toml.written(to_dict(spec))


def _set(values: dict[str, Any], text: str) -> None:
    path, equals, raw = text.partition("=")
    if not equals:
        raise UsageError(f"--set wants a.b=value, got {limits.short(text)}")
    *parents, last = path.strip().split(".")
    for key in parents:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise UsageError(f'--set {limits.short(text)}: "{key}" is a value, not a table')
    values[last] = _literal(raw.strip())


def _literal(raw: str) -> Any:
    """A TOML value, or the bare text when it is none (so that quotes are optional)."""
    try:
        return toml.parsed(f"value = {raw}", "--set")["value"]
    except UsageError:  # absurd numbers and nesting among it, which are refused as text
        return raw


def _build(kind: type[Any], values: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(kind)
    arguments = {}
    for key, value in values.items():
        if key not in hints:
            raise UnknownName("spec key", f"{prefix}{key}", [f"{prefix}{name}" for name in hints])
        arguments[key] = _convert(hints[key], value, f"{prefix}{key}")
    return kind(**arguments)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Check one value against its field's type; integers pass as floats, lists as tuples."""
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), _table(value, name), f"{name}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(typing.get_args(hint)[0], item, name) for item in items)
    if origin is not None and origin is not pytypes.UnionType:
        return {key: _options(options, f"{name}.{key}") for key, options in _table(value, name).items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, name)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UsageError(f"{name} must be {hint.__name__}, got {limits.short(value)}")
    if isinstance(value, str):
        limits.require_text(value, name)
    return value


def _float(value: int, name: str) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise UsageError(f"{name} is a number of {len(str(value))} digits, which is too large") from error


def _options(value: Any, name: str) -> dict[str, Any]:
    """Options of a method: plain values and lists of them, which JSON and TOML can hold."""
    options = dict(_table(value, name))
    for key, option in options.items():
        _require_plain(option, f"{name}.{key}")
    return options


def _require_plain(value: Any, name: str) -> None:
    if isinstance(value, str):
        limits.require_text(value, name)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_plain(item, name)
    elif not isinstance(value, bool | int | float):
        raise UsageError(f"{name} must be a number, a truth value, text or a list, got {limits.short(value)}")


def _table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is a table of options, got {limits.short(value)}")
    return value


def forbid_network() -> None:
    """Make hub libraries answer from their caches only; set before they are imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"


def trackers() -> tuple[str, ...]:
    """Names of experiment trackers (HARNESS_TRACKERS=tensorboard,wandb). They see a run and decide nothing: no spec has them."""
    return tuple(name.strip() for name in os.environ.get("HARNESS_TRACKERS", "").split(",") if name.strip())


def keep_vllm_here() -> None:
    """Set before vllm is imported: its engine runs in this process and sends nothing home. Unless the user has set
    otherwise it binds no threads, which would put every process of a run on the same core, and tells errors alone."""
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def data_folder() -> Path | None:
    """The folder of local data files (HARNESS_DATA), None when it is not set. Raises UsageError when it is no folder."""
    name = os.environ.get("HARNESS_DATA", "")
    if not name:
        return None
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UsageError(f"HARNESS_DATA is {name}, which is no folder")
    return folder
