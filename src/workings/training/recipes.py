"""Every setting of a training, the named recipes, and what follows from one: learning rates, and rows of a corpus.

Nothing here imports torch, so that an experiment's `Config` may hold these. Learning rates and rows are pure functions of
the step: a resumed run knows them without a memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from workings.config import check_ranges, fixed, nuisance, scientific
from workings.errors import BadInput
from workings.models.configs import GPT2_SIZES, GPT2Config

if TYPE_CHECKING:
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer

Parallel = Literal["ddp", "fsdp"]
Precision = Literal["fp32", "bf16"]

# ── schedule ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then half a cosine down to `floor`; steps count from 0.

    The first rate of the warm-up is `peak / warmup_steps`, as in build-nanogpt, or 0 with `from_zero`, as in Hugging Face's
    `get_cosine_schedule_with_warmup`.
    """

    peak: float
    floor: float
    warmup_steps: int
    n_steps: int
    from_zero: bool = False

    def learning_rate(self, step: int) -> float:
        """The rate of the update that turns the weights of `step` into those of `step + 1`."""
        if step < self.warmup_steps:
            return self.peak * (step + (not self.from_zero)) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / max(1, self.n_steps - self.warmup_steps))
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * done))


# ── pretraining ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ModelShape:
    """The size of a GPT-2 to train. Its embedding gets as many rows as the tokenizer asks for."""

    n_layers: int = fixed(4, "number of transformer blocks", at_least=1)
    n_heads: int = fixed(4, "number of attention heads per block", at_least=1)
    d_model: int = fixed(128, "width of the residual stream", at_least=1)
    block: int = fixed(256, "maximum number of positions in a row", at_least=1)

    def __post_init__(self) -> None:
        check_ranges(self)
        GPT2Config(self.n_layers, self.n_heads, self.d_model, self.block)  # refuses sizes that do not fit each other

    @classmethod
    def of(cls, shape: GPT2Config) -> ModelShape:
        """The size of a model, without its vocabulary."""
        return cls(shape.n_layers, shape.n_heads, shape.d_model, shape.block)


@dataclass(frozen=True)
class PretrainConfig:
    """A recipe; `PRETRAIN_PRESETS` has the named ones. Counts of steps are of optimizer updates, 0 means never."""

    shape: ModelShape = fixed(ModelShape(), "shape of the model")
    steps: int = fixed(1000, "number of optimizer updates", at_least=1)
    tokens_per_step: int = fixed(
        8192,
        "number of tokens per optimizer update, over all processes; the number of accumulated passes follows",
        at_least=1,
    )
    raw_bytes: int | None = fixed(
        None, "bytes of raw text to read in `steps` updates, instead of tokens_per_step tokens in each", at_least=1
    )
    pass_rows: int = fixed(32, "number of rows per forward pass on each process", at_least=1)
    length: int = fixed(
        0, "number of tokens per row; 0: all positions of the model (positions beyond it stay untrained)", at_least=0
    )
    optimizer: Literal["adamw", "muon"] = fixed(
        "adamw", "optimizer; muon applies to the matrices of the blocks and adamw to the rest"
    )
    learning_rate: float = nuisance(1e-3, "peak learning rate, reached after the warm-up", above=0)
    final_learning_rate: float = fixed(
        1e-4, "learning rate at the last step of the cosine schedule", share_of="learning_rate", at_least=0
    )
    warmup_steps: int = fixed(
        50, "number of updates during which the learning rate rises", share_of="steps", at_least=0
    )
    weight_decay: float = fixed(0.1, "weight decay of matrices and tables, the embedding included", at_least=0)
    betas: tuple[float, float] = fixed(
        (0.9, 0.95), "AdamW's decay rates of the gradient's first and second moment", at_least=0, below=1
    )
    clip: float = fixed(1.0, "largest norm of the gradient; a longer one is scaled down", above=0)
    precision: Precision = fixed("fp32", "floating-point format of the training; bf16 is autocast with fp32 weights")
    compile: bool = fixed(False, "whether the model goes through torch.compile")
    document_mask: bool = fixed(False, "whether a token attends to its own document only")
    parallel: Parallel = fixed("ddp", "parallelism under torchrun: ddp copies the model, fsdp shards it")
    log_every: int = fixed(10, "number of updates between two log lines; 0: never", at_least=0)
    validate_every: int = fixed(100, "number of updates between two validations; 0: never", at_least=0)
    validation_documents: int = fixed(200, "number of validation documents per source, the first ones", at_least=0)
    evaluate_every: int = fixed(
        0, "number of updates between two evaluations on benchmarks; 0: only after the last update", at_least=0
    )
    sample_every: int = fixed(250, "number of updates between two samples of generated text; 0: never", at_least=0)
    sample_tokens: int = fixed(32, "number of tokens per sample", at_least=1)
    sample_prompts: tuple[str, ...] = fixed(
        ("The", "6*9=", "What is 7 times 8?"), "prompts of the samples, in raw text"
    )
    save_every: int = fixed(250, "number of updates between two resume points; 0: never", at_least=0)
    keep_every: int = fixed(
        0, "number of updates between two models that are kept for learning curves; 0: none", at_least=0
    )
    loss_margin: float = fixed(
        2.0, "nats above the loss of guessing at which a training is given up, after the warm-up", above=0
    )
    loss_jump: float = fixed(3.0, "nats above the running mean of the loss at which a training is given up", above=0)
    peak_flops: float | None = fixed(
        None, "peak FLOPs per second of one device, to compute MFU; known for common GPUs", above=0
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        for part, whole in (("warmup_steps", "steps"), ("final_learning_rate", "learning_rate")):
            if getattr(self, part) > getattr(self, whole):
                raise BadInput(
                    f"{part} = {getattr(self, part)} is more than {whole} = {getattr(self, whole)}: set both"
                )

    @property
    def schedule(self) -> Schedule:
        """The learning rate of every step."""
        return Schedule(self.learning_rate, self.final_learning_rate, self.warmup_steps, self.steps)


# The seeds' recipe: 19,073 × 524,288 = 9,999,745,024 tokens, on build-nanogpt's schedule.
TEN_BILLION = PretrainConfig(
    shape=ModelShape.of(GPT2_SIZES["124M"]),
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

PRETRAIN_PRESETS = {
    "mini": PretrainConfig(),
    "124M-10B": TEN_BILLION,
    # the learning rate that GPT-3's authors took at this size; the same tokens as 124M
    "350M-10B": replace(
        TEN_BILLION, shape=ModelShape.of(GPT2_SIZES["350M"]), learning_rate=3e-4, final_learning_rate=3e-5, pass_rows=16
    ),
}

# ── distillation ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class DistilConfig:
    """A recipe of CODI training; the defaults suit a small model from scratch, `DISTIL_PRESETS` has the released ones."""

    optimizer: Literal["adamw", "muon"] = fixed(
        "adamw", "optimizer; muon applies to the matrices of the blocks and adamw to the rest"
    )
    learning_rate: float = nuisance(1e-3, "peak learning rate, reached after the warm-up", above=0)
    epochs: float = fixed(1.0, "number of passes over the training examples; fractions are allowed", above=0)
    batch_size: int = fixed(256, "number of examples per optimizer step, over all processes", at_least=1)
    micro_batch_size: int = fixed(
        256, "number of examples per forward pass; gradients are accumulated up to batch_size", at_least=1
    )
    warmup_fraction: float = fixed(
        0.03,
        "share of the steps during which the learning rate rises from 0, rounded up to whole steps",
        at_least=0,
        at_most=1,
    )
    weight_decay: float = fixed(0.1, "weight decay", at_least=0)
    betas: tuple[float, float] = fixed(
        (0.9, 0.999), "AdamW's decay rates of the gradient's first and second moment", at_least=0, below=1
    )
    clip: float = fixed(2.0, "largest norm of the gradient; a longer one is scaled down", above=0)
    distil_weight: float = scientific(1.0, "weight of the distillation loss at the answer's colon", at_least=0)
    distil_loss: Literal["smooth_l1", "l2"] = fixed(
        "smooth_l1", "distance between the student's and the teacher's hidden states"
    )
    distil_normalise: bool = fixed(
        True, "divide the distance at each layer by the standard deviation of the teacher's states"
    )
    teacher_weight: float = scientific(1.0, "weight of the teacher's loss on the written chain and answer", at_least=0)
    lora_rank: int = fixed(0, "rank of the LoRA adapters; 0 trains all weights", at_least=0)
    lora_alpha: float = fixed(
        32.0, "scale of the LoRA adapters: their product is multiplied by lora_alpha / lora_rank", above=0
    )
    lora_dropout: float = fixed(0.1, "dropout probability before the LoRA adapters", at_least=0, below=1)
    precision: Precision = fixed(
        "bf16", "floating-point format of the training; bf16 is autocast with fp32 master weights"
    )
    max_tokens: int = fixed(
        256, "maximum number of tokens per example; longer examples are left out and counted", at_least=1
    )
    digit_answers_only: bool = fixed(
        False, "leave out problems whose answer does not begin with a digit, such as -3 and .5; they are counted"
    )
    raw_questions: bool = fixed(
        False, "train on questions as written, also where the model normalises those that it is asked"
    )
    length_window: int = fixed(
        16,
        "number of batches within which examples are sorted by length, so that little is padding; 0: never sorted",
        at_least=0,
    )
    log_every: int = fixed(50, "number of steps between two log lines", at_least=0)
    validate_every: int = fixed(
        500, "number of steps between two validations; the last step is always validated", at_least=0
    )
    validation_problems: int = fixed(500, "number of validation problems answered at each validation", at_least=0)
    save_every: int = fixed(500, "number of steps between two resume points", at_least=0)
    seed: int = nuisance(0, "random seed for initial weights, order and dropout")
    loss_margin: float = fixed(
        2.0, "nats above the loss of guessing at which a training is given up, after the warm-up", above=0
    )
    loss_jump: float = fixed(3.0, "nats above the running mean of the loss at which a training is given up", above=0)

    __post_init__ = check_ranges

    def schedule(self, n_examples: int) -> Schedule:
        """The learning rate of every step: warm-up from 0, then a cosine to 0. The last batch of an epoch may be short.

        Steps are counted and rounded as Hugging Face's trainer does, with which the released models were trained.
        """
        n_steps = math.ceil(self.epochs * math.ceil(n_examples / self.batch_size))
        return Schedule(self.learning_rate, 0.0, math.ceil(self.warmup_fraction * n_steps), n_steps, from_zero=True)


Recipe = PretrainConfig | DistilConfig

# The released recipe for GPT-2; what still differs from the official code is listed in docs/decisions/0003.
_RELEASED_GPT2 = DistilConfig(
    learning_rate=3e-3,
    epochs=40,
    batch_size=128,
    micro_batch_size=64,
    lora_rank=128,
    distil_weight=1.0,
    max_tokens=1000,
    digit_answers_only=True,
    raw_questions=True,
    length_window=0,
    seed=11,
)

DISTIL_PRESETS = {
    "small": DistilConfig(),
    "gpt2": _RELEASED_GPT2,
    "llama-1b": replace(
        _RELEASED_GPT2, learning_rate=8e-4, epochs=10, micro_batch_size=32, distil_weight=20.0, max_tokens=200
    ),
}


# ── rows of a corpus ─────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Rows:
    """Which rows each step reads. A row is a window of `length` tokens; `n_processes` read side by side, equally many each.

    `total` rows a process over the whole run are spread evenly: a step takes `total / n_steps` of them, rounded so that no
    remainder is lost. `pass_rows` go through the model at once.
    """

    n_steps: int
    total: int
    pass_rows: int
    length: int
    n_processes: int

    def before(self, step: int) -> int:
        """Rows that one process has read when `step` begins."""
        return step * self.total // self.n_steps

    def tokens_before(self, step: int) -> int:
        """Tokens that all processes have read when `step` begins."""
        return self.before(step) * self.n_processes * self.length

    @property
    def n_tokens(self) -> int:
        """Tokens of the whole run."""
        return self.tokens_before(self.n_steps)

    @property
    def even(self) -> bool:
        """Whether every step is the same number of full passes."""
        return self.total % (self.n_steps * self.pass_rows) == 0

    def passes(self, step: int) -> list[int]:
        """Rows of each pass of one process in `step`; only the last may be short."""
        left = self.before(step + 1) - self.before(step)
        return [min(self.pass_rows, left - at) for at in range(0, left, self.pass_rows)]


def rows_of_tokens(tokens_per_step: int, n_steps: int, length: int, pass_rows: int, n_processes: int) -> Rows:
    """Every step reads exactly `tokens_per_step` in full passes; BadInput names the nearest numbers that divide."""
    at_once = length * pass_rows * n_processes
    if tokens_per_step < 1 or tokens_per_step % at_once:
        below = tokens_per_step // at_once * at_once
        fits = " or ".join(f"{n:,}" for n in (below, below + at_once) if n)
        raise BadInput(
            f"tokens_per_step = {tokens_per_step:,} is no multiple of {at_once:,} = {pass_rows} rows a pass × {length} tokens × "
            f"{n_processes} {'processes' if n_processes > 1 else 'process'}; the nearest that fit: {fits}"
            + _smaller_pass(tokens_per_step, length, pass_rows, n_processes)
        )
    return Rows(n_steps, n_steps * tokens_per_step // (length * n_processes), pass_rows, length, n_processes)


def rows_of_bytes(
    raw_bytes: int, bytes_per_token: float, n_steps: int, length: int, pass_rows: int, n_processes: int
) -> Rows:
    """`raw_bytes` of text over `n_steps` steps, exact to half a row a process, whatever a tokenizer makes of it.

    This is how arms that cut the same text into different tokens read equally much of it in equally many steps.
    """
    total = round(raw_bytes / (bytes_per_token * length * n_processes))
    if total < n_steps:
        raise BadInput(
            f"raw_bytes = {raw_bytes:,} is about {total:,} rows of {length} tokens a process, too few for {n_steps:,} steps; "
            "take more bytes or fewer steps"
        )
    return Rows(n_steps, total, pass_rows, length, n_processes)


def _smaller_pass(tokens_per_step: int, length: int, pass_rows: int, n_processes: int) -> str:
    """A hint where fewer rows a pass would do."""
    rows, remainder = divmod(tokens_per_step, length * n_processes)
    if remainder or not rows:
        return ""
    return f"; or pass_rows = {max(n for n in range(1, min(pass_rows, rows) + 1) if rows % n == 0)}"


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
