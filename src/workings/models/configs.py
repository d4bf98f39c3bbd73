"""The shape of each kind of model, as plain data: what is saved beside the weights, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workings.config import check_ranges, fixed
from workings.errors import BadInput

AnswerSees = Literal["everything", "thoughts"]


@dataclass(frozen=True)
class GPT2Config:
    """The shape of a GPT-2. `vocab` counts embedding rows, of which there may be more than the tokenizer has ids.

    Raises:
        BadInput: A size is below 1, or the width cannot be divided among the heads.
    """

    n_layers: int = fixed(12, "number of transformer blocks", at_least=1)
    n_heads: int = fixed(12, "number of attention heads per block", at_least=1)
    d_model: int = fixed(768, "width of the residual stream", at_least=1)
    block: int = fixed(1024, "maximum number of positions in a row", at_least=1)
    vocab: int = fixed(50257, "number of rows of the embedding", at_least=1)

    def __post_init__(self) -> None:
        check_ranges(self)
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

    vocabulary: int = fixed(
        help="number of tokens V of the base; rows V, V+1, V+2 of the embedding are pad, bot and eot", at_least=1
    )
    n_thoughts: int = fixed(6, "number of continuous thoughts before the answer", at_least=0)
    recurrence: Literal["state", "constant"] = fixed(
        "state", "what each thought is computed from: the state before it, or a learned constant"
    )
    answer_sees: AnswerSees = fixed("everything", "what the answer attends to: question and thoughts, or thoughts only")
    projection: bool = fixed(True, "whether a state passes a projection before it becomes the next input")
    projection_width: int = fixed(768, "hidden width of the projection", at_least=1)
    projection_norm: bool = fixed(True, "whether the projection ends in a layer norm")
    projection_dropout: float = fixed(0.0, "dropout probability before the projection", at_least=0, below=1)
    chain_style: Literal["marked", "stripped"] = fixed(
        "marked", "written chain of the teacher: steps as <<6*9=54>>, or without the marks"
    )
    keep_last_step: bool = fixed(False, "whether the teacher's written chain includes the last step")
    remove_eos: bool = fixed(True, "whether the end-of-text tokens after question and chain are left out")
    normalise_question: bool = fixed(
        True, "whether the question loses its outer spaces and its double spaces become single"
    )
    lora_alpha: float | None = fixed(
        None, "LoRA alpha of the checkpoint that the weights were merged from, for the record", above=0
    )

    __post_init__ = check_ranges

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
