"""Registration of the built-in methods."""

from harness.hookspecs import Register, hookimpl

METHODS = (
    ("base", "base:Base", "the base model, untouched"),
    ("base_tempered", "base:BaseTempered", "the base at its best sampling temperature"),
    ("one_shot", "one_shot:OneShot", "one policy-gradient step from one huge batch"),
    ("one_shot_shuffled", "one_shot:OneShotShuffled", "control: one_shot with rewards shuffled within each group"),
    ("random_direction", "one_shot:RandomDirection", "control: a Gaussian direction with one_shot's per-tensor norms"),
    ("one_shot_k", "one_shot_k:OneShotK", "one_shot in k rounds, each from where the last ended"),
    ("grpo", "grpo:Grpo", "GRPO and its relatives: many small updates on fresh rollouts"),
    ("ppo", "ppo:Ppo", "PPO: grpo's updates with advantages of tokens from a value head"),
    ("extrapolate", "extrapolate:Extrapolate", "GRPO, then a line search along the way it went (RELEX)"),
    ("single_example", "single_example:SingleExample", "GRPO on one training example, or few (Wang et al.)"),
    ("entropy_min", "entropy:EntropyMin", "token entropy of self-samples minimised, no verifier (EM-FT, EM-RL)"),
    (
        "entropy_bonus",
        "entropy:EntropyBonus",
        "token entropy of self-samples raised, no verifier: the one-example paper's control",
    ),
    (
        "rejection_sft",
        "rejection_sft:RejectionSft",
        "likelihood of the base batch's correct rollouts: epochs, or one searched step",
    ),
    (
        "one_batch_many_steps",
        "one_batch_many_steps:OneBatchManySteps",
        "GRPO's updates on minibatches of the one base batch",
    ),
    ("dpo", "dpo:Dpo", "preference for correct completions of the base batch (DPO)"),
    ("random_search", "random_search:RandomSearch", "Gaussian perturbations of the base, the best of them (RandOpt)"),
    (
        "random_search_vote",
        "random_search:RandomSearchVote",
        "the majority's answer among the best perturbations of the base (RandOpt's ensemble)",
    ),
    (
        "evolution",
        "evolution:Evolution",
        "evolution strategies: one searched step along a gradient estimated from noise",
    ),
    (
        "hidden_direction",
        "hidden_direction:HiddenDirection",
        "steering: mean hidden state of correct minus incorrect rollouts, added at a layer",
    ),
    ("in_context", "in_context:InContext", "the base with a solved problem before every prompt, no training"),
    ("majority", "test_time:Majority", "the base's most frequent answer of n at test time (self-consistency)"),
    (
        "best_of_n",
        "test_time:BestOfN",
        "ORACLE: the base's best of n at test time, picked by the test verdicts (pass@n)",
    ),
)


@hookimpl
def harness_register_methods(register: Register) -> None:
    for name, target, summary in METHODS:
        register(name, f"harness_methods.{target}", summary=summary)
