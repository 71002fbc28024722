"""Registration of the built-in engines and of the tabular engine's own domain."""

from importlib import metadata

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_engines(register: Register) -> None:
    register("hf", "harness_engines.hf:HfEngine", summary="any causal LM of transformers, own batched sampler")
    register("tabular", "harness_engines.tabular:Tabular", summary="softmax over short strings, exact by enumeration")
    state = "" if any(True for _ in metadata.distributions(name="ray")) else "; not installed"
    register("ray", "harness_engines.ray:RayEngine", summary=f"hf, over the nodes of a Ray cluster (extra ray{state})")


@hookimpl
def harness_register_domains(register: Register) -> None:
    register("tabular", "harness_engines.tabular_domain:Tabular", summary="synthetic strings for the tabular engine")
