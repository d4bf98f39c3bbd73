"""Recipe × corpus → what a training costs: parameters, tokens, raw bytes, FLOPs, memory, hours, passes over the data.

FLOPs are those of the model (forward and backward, attention included), as MFU counts them; an optimizer's own are left out.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from workings.models.configs import GPT2Config
from workings.models.gpt2 import GPT2
from workings.models.kernels import ROWS_ON_GPU
from workings.training.recipes import Precision, PretrainConfig, Rows, rows_of, shape_of

if TYPE_CHECKING:
    from workings.text.corpus import Corpus

ASSUMED_MFU = 0.4
_GB = 1e9
# Dense peak FLOP/s (bf16 on tensor cores, fp32 without TF32) from NVIDIA's data sheets; the first name that fits counts.
_PEAKS: tuple[tuple[str, float, float], ...] = (
    ("GH200", 989e12, 67e12),
    ("H200", 989e12, 67e12),
    ("H100 PCIe", 756e12, 51e12),
    ("H100 NVL", 835e12, 60e12),
    ("H100", 989e12, 67e12),
    ("A100", 312e12, 19.5e12),
    ("L40S", 362e12, 91.6e12),
    ("A40", 149.7e12, 37.4e12),
    ("L4", 121e12, 30.3e12),
    ("RTX 4090", 165.2e12, 82.6e12),
    ("RTX 3090", 71e12, 35.6e12),
)


@dataclass(frozen=True)
class Cost:
    """The cost that a fair comparison matches; `results/budget.json` of a run."""

    parameters: int
    steps: int
    raw_bytes: int
    tokens: int
    flops: int


@dataclass(frozen=True)
class Budget:
    """The cost of one training. `unique_tokens` are those of the corpus; `memory` is estimated, in bytes per process."""

    cost: Cost
    unique_tokens: int
    flops_per_token: int
    bytes_per_token: float
    memory: int

    @property
    def epochs(self) -> float:
        """How often the corpus is read."""
        return self.cost.tokens / self.unique_tokens

    def lines(self, flops_per_second: float, assumption: str) -> list[str]:
        """Describe the budget to a person: a line for each quantity, then a warning where text is read more than once."""
        cost = self.cost
        hours = cost.flops / flops_per_second / 3600
        lines = [
            f"parameters      {cost.parameters:,}",
            f"steps           {cost.steps:,} of {cost.tokens / cost.steps:,.0f} tokens",
            f"tokens          {cost.tokens:,} = {self.epochs:.2f} epochs over {self.unique_tokens:,} unique ones",
            f"raw text        {cost.raw_bytes:,} bytes ({self.bytes_per_token:.3f} a token)",
            f"FLOPs           {cost.flops:.3e} ({self.flops_per_token:.3e} a token)",
            f"memory          about {self.memory / _GB:.1f} GB a process",
            f"time            {hours:.2f} hours at {flops_per_second:.2e} FLOP/s ({assumption})",
        ]
        if self.epochs > 1:
            lines.append(
                f"WARNING: the corpus is repeated: {self.epochs:.1f} epochs over {self.unique_tokens:,} tokens; "
                "a model of this budget would read new text if there were more"
            )
        return lines


def planned(config: PretrainConfig, corpus: Corpus, n_processes: int = 1, shape: GPT2Config | None = None) -> Budget:
    """The cost of a training, known before it begins. `shape`: that of the model to go on from, where there is one."""
    shape = shape or shape_of(config, corpus.tokenizer)
    rows, train = rows_of(config, corpus, shape.block, n_processes), corpus.train
    with torch.device("meta"):  # only counted, so that no weight is allocated
        model = GPT2(shape)
    flops_per_token, bytes_per_token = model.flops_per_token(rows.length), train.n_bytes / train.n_tokens
    cost = Cost(
        parameters=model.n_parameters,
        steps=rows.n_steps,
        raw_bytes=round(rows.n_tokens * bytes_per_token),
        tokens=rows.n_tokens,
        flops=rows.n_tokens * flops_per_token,
    )
    memory = _memory(shape, model.n_parameters, rows, config)
    return Budget(cost, train.n_tokens, flops_per_token, bytes_per_token, memory)


def _memory(shape: GPT2Config, n_parameters: int, rows: Rows, config: PretrainConfig) -> int:
    """Bytes on one process: weights, gradients, two moments (fp32), what a pass keeps for its backward pass, the head."""
    bf16 = config.precision == "bf16"
    states = 16 * n_parameters // (rows.n_processes if config.parallel == "fsdp" else 1)
    # A block keeps 16 d numbers a token: two norms' inputs and outputs, q k v, what attention saw, the MLP's two inner layers
    # of 4 d. Under autocast norms stay fp32 and the inputs of matrices are kept in bf16 beside them.
    kept = shape.n_layers * shape.d_model * (44 if bf16 else 64) + 8 * shape.d_model
    tokens = rows.pass_rows * rows.length
    # compiled, the head's logits are whole; else a chunk of them, and the gradient of the head
    head = (
        tokens * shape.vocab * (6 if bf16 else 8)
        if config.compile
        else 4 * shape.vocab * (shape.d_model + min(tokens, ROWS_ON_GPU))
    )
    return states + (2 * n_parameters if bf16 else 0) + tokens * kept + head


def peak_flops(device: str, precision: Precision) -> float | None:
    """Peak FLOP/s of a device by its name; None for one that is not in the list."""
    found = next(((bf16, fp32) for name, bf16, fp32 in _PEAKS if re.search(rf"\b{name}\b", device)), None)
    return None if found is None else found[0 if precision == "bf16" else 1]


def rate_here(device: str, name: str, precision: Precision) -> tuple[float, str]:
    """FLOP/s that a training here can count on, and in words what that rests on: a share of the known or measured peak."""
    peak = peak_flops(name, precision)
    if peak is not None:
        return ASSUMED_MFU * peak, f"{ASSUMED_MFU:.0%} of {name}'s peak, assumed"
    # A GPU needs a larger product to be busy for longer than its launch takes.
    n = 1024 if device == "cpu" else 8192
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    (a @ a)[0, 0].item()  # the first product also loads its library
    best, until = 0.0, time.perf_counter() + 0.3
    while time.perf_counter() < until:
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return ASSUMED_MFU * best, f"{ASSUMED_MFU:.0%}, assumed, of what a matrix product reaches here"
