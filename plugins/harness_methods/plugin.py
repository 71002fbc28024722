"""Registration of the built-in methods."""

from harness.hookspecs import Register, hookimpl


@hookimpl
def harness_register_methods(register: Register) -> None:
    register("base", "harness_methods.base:Base", summary="the base model, untouched")
    register("base_tempered", "harness_methods.base:BaseTempered", summary="the base at its best sampling temperature")
    register("one_shot", "harness_methods.one_shot:OneShot", summary="one policy-gradient step from one huge batch")
    register(
        "one_shot_shuffled",
        "harness_methods.one_shot:OneShotShuffled",
        summary="control: one_shot with rewards shuffled within each group",
    )
    register(
        "random_direction",
        "harness_methods.one_shot:RandomDirection",
        summary="control: a Gaussian direction with one_shot's per-tensor norms",
    )
    register(
        "grpo", "harness_methods.grpo:Grpo", summary="GRPO and its relatives: many small updates on fresh rollouts"
    )
    register(
        "random_search",
        "harness_methods.random_search:RandomSearch",
        summary="Gaussian perturbations of the base, the best of them (RandOpt)",
    )
    register(
        "hidden_direction",
        "harness_methods.hidden_direction:HiddenDirection",
        summary="steering: mean hidden state of correct minus incorrect rollouts, added at a layer",
    )
