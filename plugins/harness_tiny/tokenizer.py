"""The tokenizer of the embedded model: BPE over words, every digit on its own.

Does: train it on corpus text and wrap it for transformers.
Doesn't: add a token at either end: prompts are encoded as they are, in training and in use.

Pieces are words with the white space before them, single digits, and runs of other signs, so that arc cells and row
letters are one token each. Fixed phrases (FIXED) are single added tokens. Characters outside printable ASCII become
the unknown token.
"""

from __future__ import annotations

import string

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness_arc import ladder as arc
from harness_code import ladder as code
from harness_math import ladder as math
from harness_tiny.corpus import sample_texts

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"
FIXED = (math.FORMAT, "\\boxed{", code.FORMAT, " for x in a if x", " for x in a", *arc.HEADERS)
_PIECES = Regex(r"\s*[A-Za-z_]+|[0-9]|\s*[^\sA-Za-z_0-9]+|\s+")


def train(*, seed: int, size: int = 512, texts: int = 12_000) -> PreTrainedTokenizerFast:
    """A tokenizer of at most `size` tokens, padded on the left, with END as end of text."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(_PIECES, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END, PAD, UNKNOWN])
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(FIXED),
        special_tokens=[END, PAD, UNKNOWN],
        initial_alphabet=list(string.ascii_letters + string.digits + string.punctuation + " \n"),
        min_frequency=20,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without_fixed(seed, texts), trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in FIXED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def _without_fixed(seed: int, texts: int) -> list[str]:
    # Merges spent inside phrases that are single tokens anyway would be lost.
    out = []
    for text in sample_texts(seed=seed, count=texts):
        for phrase in FIXED:
            text = text.replace(phrase, "\n")
        out.append(text)
    return out
