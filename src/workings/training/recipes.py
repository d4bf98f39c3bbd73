"""Every switch of pretraining, the named recipes, and what follows from one for a given corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from workings.config import fixed, nuisance
from workings.errors import BadInput
from workings.models.configs import GPT2_SIZES, GPT2Config
from workings.training.parallel import Parallel
from workings.training.schedule import Rows, rows_of_bytes, rows_of_tokens

if TYPE_CHECKING:
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Shape:
    """The model. It gets as many rows as the tokenizer asks for."""

    n_layers: int = fixed(4, "number of transformer blocks")
    n_heads: int = fixed(4, "number of attention heads per block")
    d_model: int = fixed(128, "width of the residual stream")
    block: int = fixed(256, "maximum number of positions in a row")

    @classmethod
    def of(cls, shape: GPT2Config) -> Shape:
        return cls(shape.n_layers, shape.n_heads, shape.d_model, shape.block)


@dataclass(frozen=True)
class PretrainConfig:
    """A recipe; `PRESETS` has the named ones. Counts of steps are of optimizer updates, 0 means never."""

    shape: Shape = fixed(Shape(), "shape of the model")
    steps: int = fixed(1000, "number of optimizer updates")
    tokens_per_step: int = fixed(
        8192, "number of tokens per optimizer update, over all processes; the number of accumulated passes follows"
    )
    raw_bytes: int | None = fixed(
        None, "bytes of raw text to read in `steps` updates, instead of tokens_per_step tokens in each"
    )
    pass_rows: int = fixed(32, "number of rows per forward pass on each process")
    length: int = fixed(
        0, "number of tokens per row; 0: all positions of the model (positions beyond it stay untrained)"
    )
    optimizer: Literal["adamw", "muon"] = fixed(
        "adamw", "optimizer; muon applies to the matrices of the blocks and adamw to the rest"
    )
    learning_rate: float = nuisance(1e-3, "peak learning rate, reached after the warm-up")
    final_learning_rate: float = fixed(1e-4, "learning rate at the last step of the cosine schedule")
    warmup_steps: int = fixed(50, "number of updates during which the learning rate rises")
    weight_decay: float = fixed(0.1, "weight decay of matrices and tables, the embedding included")
    betas: tuple[float, float] = fixed((0.9, 0.95), "AdamW's decay rates of the gradient's first and second moment")
    clip: float = fixed(1.0, "largest norm of the gradient; a longer one is scaled down")
    precision: Literal["fp32", "bf16"] = fixed(
        "fp32", "floating-point format of the training; bf16 is autocast with fp32 weights"
    )
    compile: bool = fixed(False, "whether the model goes through torch.compile")
    document_mask: bool = fixed(False, "whether a token attends to its own document only")
    parallel: Parallel = fixed("ddp", "parallelism under torchrun: ddp copies the model, fsdp shards it")
    log_every: int = fixed(10, "number of updates between two log lines; 0: never")
    validate_every: int = fixed(100, "number of updates between two validations; 0: never")
    validation_documents: int = fixed(200, "number of validation documents per source, the first ones")
    evaluate_every: int = fixed(
        0, "number of updates between two evaluations on benchmarks; 0: only after the last update"
    )
    sample_every: int = fixed(250, "number of updates between two samples of generated text; 0: never")
    sample_tokens: int = fixed(32, "number of tokens per sample")
    sample_prompts: tuple[str, ...] = fixed(
        ("The", "6*9=", "What is 7 times 8?"), "prompts of the samples, in raw text"
    )
    save_every: int = fixed(250, "number of updates between two resume points; 0: never")
    keep_every: int = fixed(0, "number of updates between two models that are kept for learning curves; 0: none")
    loss_margin: float = fixed(
        2.0, "nats above the loss of guessing at which a training is given up, after the warm-up"
    )
    loss_jump: float = fixed(3.0, "nats above the running mean of the loss at which a training is given up")
    peak_flops: float | None = fixed(None, "peak FLOPs per second of one device, to compute MFU; known for common GPUs")

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
    shape=Shape.of(GPT2_SIZES["124M"]),
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
        TEN_BILLION, shape=Shape.of(GPT2_SIZES["350M"]), learning_rate=3e-4, final_learning_rate=3e-5, pass_rows=16
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
    train = corpus.train
    return rows_of_bytes(
        config.raw_bytes, train.n_bytes / train.n_tokens, config.steps, length, config.pass_rows, n_processes
    )
