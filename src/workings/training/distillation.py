"""Problems × base → a trained CODI, by self-distillation: one loop, exact resume, one line of metrics per logged step.

The order of the examples is a pure function of seed and epoch, so a resumed run sees what an uninterrupted one would have seen;
weights, optimizer, step and random state are saved together, atomically.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from workings import seeds
from workings.arithmetic.answers import same_answer
from workings.arithmetic.problems import Problem
from workings.config import digest, fixed, nuisance, scientific
from workings.errors import BadInput, Failed
from workings.models.anatomy import anatomy_of
from workings.models.codi import CODI
from workings.training.objectives import Example, Losses, codi_losses, examples_of, pad
from workings.training.optimizers import optimizers, set_learning_rate

Log = Callable[..., None]


@dataclass(frozen=True)
class DistilConfig:
    """Every switch of CODI training. Defaults are for a small model from scratch; the released recipes are in `RECIPES`."""

    optimizer: Literal["adamw", "muon"] = fixed(
        "adamw", "optimizer; muon applies to the matrices of the blocks and adamw to the rest"
    )
    learning_rate: float = nuisance(1e-3, "peak learning rate, reached after the warm-up")
    epochs: float = fixed(1.0, "number of passes over the training examples; fractions are allowed")
    batch_size: int = fixed(256, "number of examples per optimizer step")
    micro_batch_size: int = fixed(
        256, "number of examples per forward pass; gradients are accumulated up to batch_size"
    )
    warmup_fraction: float = fixed(0.03, "share of the steps during which the learning rate rises")
    weight_decay: float = fixed(0.1, "weight decay")
    betas: tuple[float, float] = fixed((0.9, 0.999), "AdamW's decay rates of the gradient's first and second moment")
    clip: float = fixed(2.0, "largest norm of the gradient; a longer one is scaled down")
    distil_weight: float = scientific(1.0, "weight of the distillation loss at the answer's colon")
    distil_loss: Literal["smooth_l1", "l2"] = fixed(
        "smooth_l1", "distance between the student's and the teacher's hidden states"
    )
    distil_normalise: bool = fixed(
        True, "divide the distance at each layer by the standard deviation of the teacher's states"
    )
    teacher_weight: float = scientific(1.0, "weight of the teacher's loss on the written chain and answer")
    lora_rank: int = fixed(0, "rank of the LoRA adapters; 0 trains all weights")
    lora_alpha: float = fixed(32.0, "scale of the LoRA adapters: their product is multiplied by lora_alpha / lora_rank")
    lora_dropout: float = fixed(0.1, "dropout probability before the LoRA adapters")
    precision: Literal["fp32", "bf16"] = fixed(
        "bf16", "floating-point format of the training; bf16 is autocast with fp32 master weights"
    )
    max_tokens: int = fixed(256, "maximum number of tokens per example; longer examples are left out and counted")
    log_every: int = fixed(50, "number of steps between two log lines")
    validate_every: int = fixed(500, "number of steps between two validations; the last step is always validated")
    validation_problems: int = fixed(500, "number of validation problems answered at each validation")
    save_every: int = fixed(500, "number of steps between two resume points")
    seed: int = nuisance(0, "random seed for initial weights, order and dropout")


RECIPES = {
    "small": DistilConfig(),
    "gpt2": DistilConfig(
        learning_rate=3e-3,
        epochs=40,
        batch_size=128,
        micro_batch_size=64,
        lora_rank=128,
        distil_weight=1.0,
        max_tokens=1000,
    ),
    "llama-1b": DistilConfig(
        learning_rate=8e-4,
        epochs=10,
        batch_size=128,
        micro_batch_size=32,
        lora_rank=128,
        distil_weight=20.0,
        max_tokens=200,
    ),
}


def distil(
    model: CODI,
    train: Iterable[Problem],
    validation: Sequence[Problem],
    config: DistilConfig,
    folder: Path,
    log: Log,
    *,
    resume: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    max_steps: int | None = None,
) -> CODI:
    """Train `model` in place and return it, LoRA merged. `log(step, **metrics)` receives every measurement.

    `folder/training.pt` is the resume point; with `resume=True` training goes on exactly where it stood. `max_steps` ends early
    without changing the schedule. Raises Failed on a loss that is not finite.
    """
    examples = _examples(train, model, config, log)
    trainer = _Trainer(model, examples, config, folder)
    if resume:
        trainer.restore()
    last = trainer.n_steps if max_steps is None else min(max_steps, trainer.n_steps)
    meter = _Meter(trainer, log, progress)
    while trainer.step < last:
        losses = trainer.advance()
        meter.saw(losses)
        if validation and (trainer.step % config.validate_every == 0 or trainer.step == trainer.n_steps):
            log(trainer.step, **accuracies(model, validation[: config.validation_problems]))
        if trainer.step % config.save_every == 0 or trainer.step == last:
            trainer.save()
    merge_lora(model)
    return model.eval()


def _examples(train: Iterable[Problem], model: CODI, config: DistilConfig, log: Log) -> list[Example]:
    limit = min(config.max_tokens, model.context_length - model.n_thoughts - len(model.closing()))
    made, kept = 0, []
    for example in examples_of(train, model):
        made += 1
        if example.n_tokens <= limit:
            kept.append(example)
    log(0, examples=len(kept), left_out_too_long=made - len(kept))
    if len(kept) < config.batch_size:
        raise BadInput(
            f"{len(kept)} training examples of at most {limit} tokens are fewer than one batch of {config.batch_size}; "
            "give more problems, a smaller batch_size or a larger max_tokens"
        )
    return kept


class _Trainer:
    """Weights, optimizer, schedule and position; `advance` makes one optimizer step."""

    def __init__(self, model: CODI, examples: list[Example], config: DistilConfig, folder: Path):
        self.model, self.examples, self.config, self.folder = model, examples, config, folder
        self.per_epoch = len(examples) // config.batch_size
        self.n_steps = max(1, round(config.epochs * self.per_epoch))
        self.step = 0
        torch.manual_seed(seeds.derive("training", config.seed))
        if config.lora_rank:
            add_lora(model, config)
        self.optimizers = _optimizers(model, config)

    def advance(self) -> Losses:
        """One optimizer step on the next global batch."""
        batch = self._batch(self.step)
        set_learning_rate(self.optimizers, self.learning_rate())
        self.model.train()
        losses = [self._backward(part, len(part) / len(batch)) for part in _chunks(batch, self.config.micro_batch_size)]
        norm = nn.utils.clip_grad_norm_(trainable(self.model), self.config.clip)
        if not torch.isfinite(norm):
            raise Failed(
                f"the gradient is not finite at step {self.step}; the last checkpoint is in {self.folder}. Lower the learning rate."
            )
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.model.eval()
        self.step += 1
        return Losses(*(torch.stack([getattr(x, k) for x in losses]).mean() for k in ("student", "teacher", "distil")))

    def _backward(self, part: list[Example], share: float) -> Losses:
        bf16 = self.config.precision == "bf16"
        with torch.autocast(self.model.device.type, torch.bfloat16) if bf16 else nullcontext():
            losses = codi_losses(
                self.model, pad(part, self.model), self.config.distil_loss, self.config.distil_normalise
            )
        (losses.total(self.config.teacher_weight, self.config.distil_weight) * share).backward()
        return Losses(losses.student.detach(), losses.teacher.detach(), losses.distil.detach())

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        warm = max(1, round(self.config.warmup_fraction * self.n_steps))
        if self.step < warm:
            return self.config.learning_rate * (self.step + 1) / warm
        return (
            self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(1, self.n_steps - warm)))
        )

    def _batch(self, step: int) -> list[Example]:
        epoch, at = divmod(step, self.per_epoch)
        if getattr(self, "_order_epoch", None) != epoch:
            self._order, self._order_epoch = self._epoch(epoch), epoch
        return [self.examples[i] for i in self._order[at]]

    def _epoch(self, epoch: int) -> list[list[int]]:
        """Batches of one epoch: shuffled, cut into windows of 16 batches, sorted by length inside a window, batches shuffled."""
        random = seeds.python(f"order/{epoch}", self.config.seed)
        order = list(range(len(self.examples)))
        random.shuffle(order)
        size, window = self.config.batch_size, 16 * self.config.batch_size
        batches = []
        for i in range(0, len(order), window):
            part = sorted(order[i : i + window], key=lambda j: self.examples[j].n_tokens)
            batches += [part[j : j + size] for j in range(0, len(part) - size + 1, size)]
        random.shuffle(batches)
        return batches

    def save(self) -> None:
        """Everything that decides the next step, in one file that appears whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / ".training.pt.partial"
        state = {
            "step": self.step,
            "config": digest(self.config),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "random": torch.get_rng_state(),
        }
        torch.save(state, partial)
        os.replace(partial, self.folder / "training.pt")

    def restore(self) -> None:
        path = self.folder / "training.pt"
        if not path.exists():
            raise BadInput(f"nothing to resume: {path} does not exist. Start without --resume.")
        state = torch.load(path, map_location=self.model.device, weights_only=True)
        if state["config"] != digest(self.config):
            raise BadInput(f"{path} was written by another configuration; resume with the config.yaml beside it")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"].cpu())
        self.step = state["step"]


class _Meter:
    """Running means of the losses and the speed, logged every `log_every` steps."""

    def __init__(self, trainer: _Trainer, log: Log, progress: Callable[[int, int, str], None] | None):
        self.trainer, self.log, self.progress = trainer, log, progress
        self.seen: list[Losses] = []
        self.since = time.perf_counter()

    def saw(self, losses: Losses) -> None:
        self.seen.append(losses)
        step, config = self.trainer.step, self.trainer.config
        if step % config.log_every and step != self.trainer.n_steps:
            return
        means = {
            k: float(torch.stack([getattr(x, k) for x in self.seen]).mean()) for k in ("student", "teacher", "distil")
        }
        if not all(map(math.isfinite, means.values())):
            raise Failed(f"a loss is not finite at step {step}: {means}. Lower the learning rate.")
        seconds = time.perf_counter() - self.since
        speed = len(self.seen) * config.batch_size / seconds
        self.log(step, lr=self.trainer.learning_rate(), examples_per_second=speed, **means)
        if self.progress:
            self.progress(
                step, self.trainer.n_steps, " ".join(f"{k} {v:.3f}" for k, v in means.items()) + f" {speed:.0f}/s"
            )
        self.seen, self.since = [], time.perf_counter()


def accuracies(model: CODI, problems: Sequence[Problem], batch_size: int = 256) -> dict[str, float]:
    """Share right by thinking and by writing the chain, and by thinking for each number of steps; `n` problems."""
    questions = [p.question for p in problems]
    right = [
        same_answer(a.value, p.value)
        for a, p in zip(model.answer(questions, batch_size=batch_size), problems, strict=True)
    ]
    longest = max(len(model.chain_ids(p)) for p in problems) + 16
    written = model.write_and_answer(questions, max_new_tokens=longest, batch_size=batch_size)
    by_steps = {
        f"thoughts_{s}_steps": _share([r for r, p in zip(right, problems, strict=True) if p.n_steps == s])
        for s in sorted({p.n_steps for p in problems})
    }
    chain = _share([same_answer(a.value, p.value) for a, p in zip(written, problems, strict=True)])
    return {"n_validation": len(problems), "thoughts": _share(right), "written_chain": chain} | by_steps


def _share(right: Sequence[bool]) -> float:
    return sum(right) / max(1, len(right))


def _chunks(batch: list[Example], size: int) -> Iterator[list[Example]]:
    for i in range(0, len(batch), size):
        yield batch[i : i + size]


def trainable(model: CODI) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def _optimizers(model: CODI, config: DistilConfig) -> list[torch.optim.Optimizer]:
    """AdamW, with Muon for the blocks' and the projection's matrices if asked. Norms, biases and vectors are not decayed."""
    parameters = trainable(model)
    tables = {id(model.base.get_input_embeddings().weight), id(model.base.get_output_embeddings().weight)}
    return optimizers(
        [p for p in parameters if p.ndim >= 2],
        [p for p in parameters if p.ndim < 2],
        [p for p in parameters if config.optimizer == "muon" and p.ndim == 2 and id(p) not in tables],
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )


def add_lora(model: CODI, config: DistilConfig) -> None:
    """LoRA on every linear map of the blocks, in place. The base is frozen, embedding rows too; the projection is trained."""
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(anatomy_of(model.base.config).lora_targets)
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,  # ty: ignore[invalid-argument-type]  (a float works, and is what papers print)
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=model.base.config.model_type == "gpt2",
    )
    for parameter in model.base.parameters():
        parameter.requires_grad_(False)
    inject_adapter_in_model(lora, model.base, adapter_name="default")


def merge_lora(model: CODI) -> None:
    """Fold LoRA factors into the weights and take the adapter layers out again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(model.base.get_submodule(parent), child, module.get_base_layer())


def progress_line(step: int, n_steps: int, text: str) -> None:
    """A line on stderr that is written over until the last step; whole lines where stderr is no terminal."""
    ends = "\n" if step == n_steps or not sys.stderr.isatty() else "\r"
    print(f"  step {step:,} of {n_steps:,}  {text}", end=ends, file=sys.stderr, flush=True)
