"""Every switch of pretraining, the named recipes, and what follows from one for a given corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from workings.config import fixed, nuisance
from workings.errors import BadInput
from workings.models.gpt2 import PRESETS as SHAPES
from workings.models.gpt2 import GPT2Config
from workings.training.parallel import Parallel
from workings.training.schedule import Rows, rows_of_bytes, rows_of_tokens

if TYPE_CHECKING:
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shape:
    """The model. It gets as many rows as the tokenizer asks for."""

    n_layers: int = fixed(4)
    n_heads: int = fixed(4)
    d_model: int = fixed(128)
    block: int = fixed(256, "positions")

    @classmethod
    def of(cls, shape: GPT2Config) -> Shape:
        return cls(shape.n_layers, shape.n_heads, shape.d_model, shape.block)


@dataclass(frozen=True)
class PretrainConfig:
    """A recipe; `PRESETS` has the named ones. Counts of steps are of optimizer updates, 0 means never."""

    shape: Shape = fixed(Shape())
    steps: int = fixed(1000)
    tokens_per_step: int = fixed(8192, "over all processes and passes; the number of passes follows")
    raw_bytes: int | None = fixed(None, "read so much text in `steps` steps, instead of tokens_per_step tokens in each")
    pass_rows: int = fixed(32, "rows that go through the model at once, on each process")
    length: int = fixed(0, "tokens of a row; 0: all positions of the model, and positions beyond it stay untrained")
    optimizer: Literal["adamw", "muon"] = fixed("adamw", "muon: for the matrices of the blocks, adamw for the rest")
    learning_rate: float = nuisance(1e-3)
    final_learning_rate: float = fixed(1e-4)
    warmup_steps: int = fixed(50)
    weight_decay: float = fixed(0.1, "of matrices and tables, the embedding too")
    betas: tuple[float, float] = fixed((0.9, 0.95))
    clip: float = fixed(1.0)
    precision: Literal["fp32", "bf16"] = fixed("fp32", "bf16: autocast with fp32 weights")
    compile: bool = fixed(False)
    document_mask: bool = fixed(False, "a token attends to its own document only")
    parallel: Parallel = fixed("ddp", "under torchrun: ddp copies the model, fsdp shards it")
    log_every: int = fixed(10)
    validate_every: int = fixed(100)
    validation_documents: int = fixed(200, "of each source, the first")
    evaluate_every: int = fixed(0, "of the judges, which are asked after the last step in any case")
    sample_every: int = fixed(250)
    sample_tokens: int = fixed(32)
    sample_prompts: tuple[str, ...] = fixed(("The", "6*9=", "What is 7 times 8?"), "raw text")
    save_every: int = fixed(250, "the resume point")
    keep_every: int = fixed(0, "models kept for learning curves")
    loss_margin: float = fixed(2.0, "nats above guessing at which a training is given up, after the warm-up")
    loss_jump: float = fixed(3.0, "nats above the running mean at which a training is given up")
    peak_flops: float | None = fixed(None, "of one device, to state MFU; known for common GPUs")

    def __post_init__(self) -> None:
        at_least_one = ("steps", "tokens_per_step", "pass_rows", "sample_tokens")
        never_negative = ["length", "warmup_steps", "final_learning_rate", "weight_decay", "validation_documents"]
        never_negative += [name for name in self.__dataclass_fields__ if name.endswith("_every")]
        for name in (*at_least_one, *never_negative):
            least = 1 if name in at_least_one else 0
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be at least {least}")
        for name in ("learning_rate", "clip", "loss_margin", "loss_jump", "raw_bytes", "peak_flops"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, and must be above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {self.betas}, and must be at least 0 and below 1")
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps} is more than steps = {self.steps}")


# The seeds' recipe: 19,073 × 524,288 = 9,999,745,024 tokens, on build-nanogpt's schedule.
TEN_BILLION = PretrainConfig(
    shape=Shape.of(SHAPES["124M"]),
    steps=19_073,
    tokens_per_step=524_288,
    learning_rate=6e-4,
    final_learning_rate=6e-5,
    warmup_steps=715,
    precision="bf16",
    compile=True,
    log_every=50,
    validate_every=500,
    validation_documents=1000,
    evaluate_every=2000,
    sample_every=2000,
    save_every=500,
    keep_every=2000,
)

PRESETS = {
    "mini": PretrainConfig(),
    "124M-10B": TEN_BILLION,
    # the learning rate that GPT-3's authors took at this size; the same tokens as 124M
    "350M-10B": replace(
        TEN_BILLION, shape=Shape.of(SHAPES["350M"]), learning_rate=3e-4, final_learning_rate=3e-5, pass_rows=16
    ),
}


def shape_of(config: PretrainConfig, tokenizer: Tokenizer) -> GPT2Config:
    """The model's shape, with a row for every id of the tokenizer."""
    shape = config.shape
    return GPT2Config(shape.n_layers, shape.n_heads, shape.d_model, shape.block, tokenizer.embedding_width)


def rows_of(config: PretrainConfig, corpus: Corpus, block: int, n_processes: int) -> Rows:
    """Which rows the steps read. BadInput where the corpus, the block and the batch do not fit."""
    length = config.length or block
    if length > block:
        raise BadInput(f"length = {length} tokens a row, and the model has {block} positions: shorten the rows")
    if not corpus.n_windows(length):
        raise BadInput(f"{corpus.folder} has {corpus.n_tokens:,} training tokens: not one row of {length}")
    if config.raw_bytes is None:
        return rows_of_tokens(config.tokens_per_step, config.steps, length, config.pass_rows, n_processes)
    train = corpus.manifest["splits"]["train"]
    return rows_of_bytes(
        config.raw_bytes, train["bytes"] / train["tokens"], config.steps, length, config.pass_rows, n_processes
    )
