"""How many more tokens a second does our training loop see than Hugging Face's GPT2LMHeadModel in a plain loop?

The plain loop is the one that is usually written: `model(input_ids, labels=…).loss`, backward, clip, AdamW with torch's defaults,
zero_grad. Ours is `train_step`, fed from windows of a token stream and watched, as `workings pretrain` runs it. Both start from the
same weights, see the same rows in the same number format, and run in turn, several times; the ratio is of the best times. Their
losses and gradients are compared first: a fast wrong answer is no answer.

    python benchmarks/pretrain.py [--size mini wide] [--rounds 3] [--steps 4] [--precision fp32] [--compile] [--profile]

mini: 4 layers × 128, 256 positions, the 2,176 rows of the embedded vocabulary; wide: 4 × 256 with 50,304 rows. On a CUDA device:
--size 124M --precision bf16 --compile, which also prints the share of the device's peak (MFU).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config as PeerConfig
from transformers import GPT2LMHeadModel

from workings.models.anatomy import device_of
from workings.models.checkpoint import to_hf
from workings.models.configs import GPT2_SIZES, GPT2Config
from workings.models.gpt2 import GPT2
from workings.text.corpus import TokenBatch
from workings.training.budget import peak_flops
from workings.training.loop import LossLimits, LossMonitor, Task, train_step
from workings.training.parallel import ProcessGroup
from workings.training.pretraining import LanguageModelling, optimizers_of, passes, prepared
from workings.training.recipes import ModelShape, PretrainConfig, rows_of_tokens

SIZES = {
    "mini": replace(GPT2_SIZES["mini"], vocab=2176),
    "wide": replace(GPT2_SIZES["mini"], d_model=256, vocab=50_304),
    "124M": replace(GPT2_SIZES["124M"], vocab=50_304),
}
ROWS = {"mini": 32, "wide": 8, "124M": 32}


class Stream:
    """A million tokens in memory, of which windows are read in order: what a corpus is to training."""

    def __init__(self, vocab: int) -> None:
        likely = 1 / np.arange(1, vocab + 1)  # Zipf: a few ids are most of the text
        self.ids = np.random.default_rng(0).choice(vocab, 1_000_000, p=likely / likely.sum()).astype(np.uint16)

    def batches(self, seed: int, rows: int, length: int, start: int = 0, **_: Any) -> Iterator[TokenBatch]:
        for index in range(start, 1 << 40):
            at = index * rows * length % (len(self.ids) - rows * length - 1)
            ids = self.ids[at : at + rows * length + 1].astype(np.int64)
            inputs, targets = ids[:-1].reshape(rows, length), ids[1:].reshape(rows, length)
            yield TokenBatch(inputs, targets, np.zeros_like(inputs, np.int32), index)


class Ours:
    """The updates of our loop, fed from rows and watched."""

    def __init__(self, model: GPT2, config: PretrainConfig, stream: Stream, group: ProcessGroup) -> None:
        rows = rows_of_tokens(config.tokens_per_step, config.steps, config.shape.block, config.pass_rows, group.size)
        objective = LanguageModelling(model, torch.zeros(model.config.vocab, device=group.device))
        self.task = Task(
            model=model,
            objective=prepared(objective, config, group),
            optimizers=optimizers_of(model, config),
            micro_batches=lambda step: passes(stream, rows, group, 0, False, step),  # ty: ignore[invalid-argument-type]
            recipe=config,
            schedule=config.schedule,
            limits=LossLimits(100.0, 100.0, 0),
            seed=0,
            identity={},
            throughput=lambda first, last, seconds: {},
            if_memory_is_full="fewer rows",
        )
        self.group, self.step, self.micro_batches = group, 0, self.task.micro_batches(0)
        self.monitor = LossMonitor(self.task.limits, Path("nowhere"))

    def steps(self, n: int) -> None:
        for _ in range(n):
            rate = self.task.schedule.learning_rate(self.step)
            self.step += 1
            numbers = train_step(self.task, next(self.micro_batches), rate, self.group, self.step, False)
            self.monitor.saw(self.step, numbers)
        self.monitor.settle()


class Theirs:
    """The plain loop."""

    def __init__(self, model: GPT2LMHeadModel, config: PretrainConfig, stream: Stream, group: ProcessGroup) -> None:
        self.eager, self.group, self.config = model.to(group.device), group, config
        self.model: Any = torch.compile(self.eager) if config.compile else self.eager
        groups = [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
        self.batches = stream.batches(0, config.pass_rows, config.shape.block)

    def steps(self, n: int) -> None:
        n_passes = self.config.tokens_per_step // (self.config.pass_rows * self.config.shape.block)
        bf16 = self.config.precision == "bf16"
        for _ in range(n):
            for _ in range(n_passes):
                ids = torch.from_numpy(next(self.batches).inputs).to(self.group.device)
                with torch.autocast(self.group.kind, torch.bfloat16) if bf16 else nullcontext():
                    loss = self.model(input_ids=ids, labels=ids).loss / n_passes
                loss.backward()
            nn.utils.clip_grad_norm_(self.eager.parameters(), self.config.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()


def in_transformers(model: GPT2) -> GPT2LMHeadModel:
    """The same weights in transformers' GPT-2, without dropout."""
    own = model.config
    shape = {"vocab_size": own.vocab, "n_positions": own.block, "n_embd": own.d_model, "n_layer": own.n_layers}
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    peer = GPT2LMHeadModel(PeerConfig(**shape, **drop, n_head=own.n_heads, bos_token_id=0, eos_token_id=0))
    missing, extra = peer.load_state_dict(to_hf(model.state_dict()), strict=False)
    assert not extra and missing in ([], ["lm_head.weight"]), (missing, extra)
    return peer


def furthest_gradient(model: GPT2, peer: GPT2LMHeadModel, ids: torch.Tensor) -> tuple[float, float]:
    """How far the losses, and the gradients of the embedding (relative to the largest), are apart."""
    ours = model.loss(ids[:, :-1], ids[:, 1:])
    theirs = peer(input_ids=ids, labels=ids).loss
    ours.backward()
    theirs.backward()
    mine, other = model.wte.weight.grad, peer.transformer.wte.weight.grad
    assert mine is not None and other is not None
    gap = float((mine - other).abs().max() / other.abs().max())
    model.zero_grad()
    peer.zero_grad()
    return abs(float(ours.detach()) - float(theirs.detach())), gap


def timed(steps: Callable[[int], None], n: int, group: ProcessGroup, clock: Callable[[], float]) -> float:
    began = clock()
    steps(n)
    if group.kind == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / n


def compared(size: str, given: argparse.Namespace) -> None:
    group = ProcessGroup(0, 1, device_of(given.device))
    shape: GPT2Config = SIZES[size]
    rows = given.rows or ROWS[size]
    config = PretrainConfig(
        shape=ModelShape.of(shape),
        steps=1_000_000,
        tokens_per_step=rows * shape.block * given.passes,
        pass_rows=rows,
        precision=given.precision,
        compile=given.compile,
    )
    model = GPT2(shape).init(0)
    peer, stream = in_transformers(model), Stream(shape.vocab)
    ids = torch.from_numpy(next(stream.batches(0, 4, shape.block)).inputs)
    loss_gap, gradient_gap = furthest_gradient(model, peer, ids)
    print(
        f"{size}: {model.n_parameters:,} parameters; losses differ by {loss_gap:.1e}, gradients by {gradient_gap:.1e}"
    )
    assert loss_gap < 1e-4 and gradient_gap < 1e-3, "the two do not compute the same"
    ours, theirs = Ours(model.to(group.device), config, stream, group), Theirs(peer, config, stream, group)
    for one in (ours, theirs):
        one.steps(3 if given.compile else 1)  # memory is allocated, kernels are compiled
    clock = time.process_time if given.processor_time else time.perf_counter
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for round_ in range(given.rounds):
        seconds["ours"].append(timed(ours.steps, given.steps, group, clock))
        seconds["theirs"].append(timed(theirs.steps, given.steps, group, clock))
        print(f"  round {round_ + 1}: ours {seconds['ours'][-1]:.3f} s a step, theirs {seconds['theirs'][-1]:.3f} s")
    best = {name: min(times) for name, times in seconds.items()}
    speed = {name: config.tokens_per_step / time_ for name, time_ in best.items()}
    peak = given.peak_flops or peak_flops(group.device_name, given.precision)
    for name, tokens in speed.items():
        used = f", MFU {tokens * model.flops_per_token(shape.block) / peak:.1%}" if peak else ""
        print(f"  {name} {tokens:,.0f} tokens/s{used}")
    about = f"{rows} rows × {shape.block} × {given.passes}, {given.precision}{', compiled' if given.compile else ''}"
    print(f"RATIO pretrain {size}: {best['theirs'] / best['ours']:.2f} ({about}, {torch.get_num_threads()} threads)")
    if given.profile:
        profiled(ours, given.steps)


def profiled(ours: Ours, n: int) -> None:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        ours.steps(n)
    print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=[*SIZES], default=["mini", "wide"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows", type=int, help="of a pass; by default what suits the size")
    parser.add_argument("--passes", type=int, default=1, help="of a step")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak-flops", type=float)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--processor-time", action="store_true", help="one thread on a machine that others use too")
    given = parser.parse_args()
    if "124M" in given.size and device_of(given.device) == "cpu":
        parser.error("124M takes a GPU: leave it out here")
    for size in given.size:
        compared(size, given)


if __name__ == "__main__":
    main()
