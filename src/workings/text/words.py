"""A list of words → a fast tokenizer with one token per word, number and mark; what the bundled model reads.

Numbers are whole tokens, so that a thought can hold one and a lens can name it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"
PIECES = r"<<|>>|\d+|[A-Za-z]+(?:'[a-z]+)?|[^\sA-Za-z\d]"


def word_tokenizer(words: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast` over `words` (each a piece by `PIECES`), plus end of text and unknown.

    Case is kept. Decoding joins pieces by one space. Raises ValueError on a word that is not one piece.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: i for i, piece in enumerate([EOS, UNKNOWN, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(PIECES), "isolated")]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, unk_token=UNKNOWN)
    broken = [w for w in words if fast.encode(w) != [vocabulary[w]]]
    if broken:
        raise ValueError(f"not one piece each: {broken[:5]}")
    return fast
