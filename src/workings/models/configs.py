"""The shape of each kind of model, as plain data: what is saved beside the weights, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workings.config import fixed
from workings.errors import BadInput

AnswerSees = Literal["everything", "thoughts"]


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a GPT-2. `vocab` counts embedding rows, of which there may be more than the tokenizer has ids.

    Raises:
        BadInput: A size is below 1, or the width cannot be divided among the heads.
    """

    n_layers: int = fixed(12, "number of transformer blocks")
    n_heads: int = fixed(12, "number of attention heads per block")
    d_model: int = fixed(768, "width of the residual stream")
    block: int = fixed(1024, "maximum number of positions in a row")
    vocab: int = fixed(50257, "number of rows of the embedding")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise BadInput(f"{name} is {value}; a GPT-2 needs at least 1")
        if self.d_model % self.n_heads:
            raise BadInput(f"d_model {self.d_model} is not divisible by n_heads {self.n_heads}")


GPT2_SIZES = {
    "mini": GPT2Config(n_layers=4, n_heads=4, d_model=128, block=256),
    "124M": GPT2Config(),
    "350M": GPT2Config(n_layers=24, n_heads=16, d_model=1024),
}


@dataclass(frozen=True)
class CodiConfig:
    """All of CODI that the base model's own config does not say. Saved beside the weights as `thinking.json`."""

    vocabulary: int  # V of the base; rows V, V+1, V+2 of the embedding are pad, bot, eot
    n_thoughts: int = 6
    recurrence: Literal["state", "constant"] = "state"  # constant: one learned vector is fed at every thought
    answer_sees: AnswerSees = "everything"
    projection: bool = True
    projection_width: int = 768
    projection_norm: bool = True
    projection_dropout: float = 0.0
    chain_style: Literal["marked", "stripped"] = "marked"
    keep_last_step: bool = False
    remove_eos: bool = True  # no end-of-text token between question, thoughts and answer
    normalise_question: bool = True
    lora_alpha: float | None = None  # of the checkpoint that the weights were merged from; for the record

    @property
    def pad_id(self) -> int:
        """The embedding row that fills short questions up on the left."""
        return self.vocabulary

    @property
    def bot_id(self) -> int:
        """Begin of thought: the token that opens the thoughts."""
        return self.vocabulary + 1

    @property
    def eot_id(self) -> int:
        """End of thought: the token that closes the thoughts and opens the answer."""
        return self.vocabulary + 2
