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
        "random_search_vote",
        "harness_methods.random_search:RandomSearchVote",
        summary="the majority's answer among the best perturbations of the base (RandOpt's ensemble)",
    )
    register(
        "one_shot_k",
        "harness_methods.one_shot_k:OneShotK",
        summary="one_shot in k rounds, each from where the last ended",
    )
    register(
        "extrapolate",
        "harness_methods.extrapolate:Extrapolate",
        summary="GRPO, then a line search along the way it went (RELEX)",
    )
    register(
        "evolution",
        "harness_methods.evolution:Evolution",
        summary="evolution strategies: one searched step along a gradient estimated from noise",
    )
    register(
        "majority",
        "harness_methods.test_time:Majority",
        summary="the base's most frequent answer of n at test time (self-consistency)",
    )
    register(
        "best_of_n",
        "harness_methods.test_time:BestOfN",
        summary="ORACLE: the base's best of n at test time, picked by the test verdicts (pass@n)",
    )
    register(
        "in_context",
        "harness_methods.in_context:InContext",
        summary="the base with a solved problem before every prompt, no training",
    )
    register(
        "single_example",
        "harness_methods.single_example:SingleExample",
        summary="GRPO on one training example, or few (Wang et al.)",
    )
    register(
        "entropy_min",
        "harness_methods.entropy:EntropyMin",
        summary="token entropy of self-samples minimised, no verifier (EM-FT, EM-RL)",
    )
    register(
        "entropy_bonus",
        "harness_methods.entropy:EntropyBonus",
        summary="token entropy of self-samples raised, no verifier: the one-example paper's control",
    )
    register(
        "rejection_sft",
        "harness_methods.rejection_sft:RejectionSft",
        summary="likelihood of the base batch's correct rollouts: epochs, or one searched step",
    )
    register(
        "one_batch_many_steps",
        "harness_methods.one_batch_many_steps:OneBatchManySteps",
        summary="GRPO's updates on minibatches of the one base batch",
    )
    register("dpo", "harness_methods.dpo:Dpo", summary="preference for correct completions of the base batch (DPO)")
    register(
        "hidden_direction",
        "harness_methods.hidden_direction:HiddenDirection",
        summary="steering: mean hidden state of correct minus incorrect rollouts, added at a layer",
    )
