"""Weights, optimizers and a place in the corpus: `advance` makes one update, `save` and `restore` are its resume point.

The resume point is one file that names tensors by parameter, so that it fits any number of processes, sharded or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from workings.errors import BadInput
from workings.files import explained, write_with
from workings.models.gpt2 import GPT2
from workings.training.feed import Feed
from workings.training.optimizers import optimizers, set_learning_rate
from workings.training.parallel import World, spread, synchronising, whole
from workings.training.recipes import PretrainConfig
from workings.training.schedule import Schedule

if TYPE_CHECKING:
    from workings.training.feed import Pass

RESUME_POINT = "training.pt"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Objective(nn.Module):
    """What is minimised: the mean loss over the tokens of a pass, over live ids only. Parallel wrappers call `forward`."""

    def __init__(self, model: GPT2, live_bias: Tensor | None) -> None:
        super().__init__()
        self.model = model
        self.live_bias = live_bias

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None) -> Tensor:
        """Nats a token."""
        return self.model.loss(inputs, targets, documents, self.live_bias)


class Trainer:
    """`step` counts the updates made. Make one with `trainer_of`."""

    def __init__(
        self,
        model: GPT2,
        module: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedule: Schedule,
        clip: float,
        precision: Literal["fp32", "bf16"],
        where: World,
    ) -> None:
        self.model, self.module, self.optimizers = model, module, list(optimizers)
        self.schedule, self.clip, self.precision, self.where = schedule, clip, precision, where
        self.parameters = list(model.parameters())
        self.step = 0

    def advance(self, feed: Feed, stop: bool = False) -> Tensor:
        """One update → loss, gradient norm, and whether any process was asked to `stop`, as a tensor [3] on the device."""
        set_learning_rate(self.optimizers, self.schedule.learning_rate(self.step))
        loss = torch.zeros((), device=self.where.device)
        passes = list(feed.passes())
        for i, one in enumerate(passes, start=1):
            loss += self._backward(one, last=i == len(passes))
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, self.clip))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        asked = torch.full_like(loss, float(stop))
        loss, asked = self.where.mean(torch.stack([loss, asked]))
        return torch.stack([loss, norm.to(loss.dtype), asked])

    def _backward(self, one: Pass, last: bool) -> Tensor:
        with synchronising(self.module, last):
            with self.computing():
                loss = self.module(one.inputs, one.targets, one.documents) * one.share
            loss.backward()
        return loss.detach()

    def computing(self) -> AbstractContextManager[Any]:
        """The number format of forward passes; weights, gradients and optimizers stay fp32."""
        return torch.autocast(self.where.kind, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def copy(self) -> GPT2:
        """The model as one process has it, for judging and saving: the model itself, or a gathered copy of its shards.

        Every process must call it.
        """
        if not any(isinstance(p, DTensor) for p in self.parameters):
            return self.model
        weights = get_model_state_dict(self.model, options=_WHOLE)
        found = GPT2(self.model.config)
        if self.where.writes:
            found.load_state_dict(weights)
        return found.to(self.where.device)

    def save(self, folder: Path, identity: dict[str, Any], watch: dict[str, Any]) -> None:
        """Everything that decides the next step, in one file that appears whole. Every process must call it."""
        weights, moments = get_state_dict(self.model, self.optimizers, options=_WHOLE)
        if not self.where.writes:
            return
        state = {
            "step": self.step,
            "identity": identity,
            "watch": watch,
            "model": weights,
            "optimizers": moments,
            "random": _random(self.where),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_with(folder / RESUME_POINT, lambda path: _write(state, path))
        except OSError as error:
            raise explained(error, folder) from error

    def restore(self, folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
        """Become what was saved; the state of the watch. BadInput if it belongs to another training."""
        state = self.where.agreed(_header(folder, identity) if self.where.writes else None)
        full: dict[str, Any] = {"model": {}, "optimizers": {}}
        if self.where.writes:
            full = torch.load(folder / RESUME_POINT, map_location="cpu", weights_only=True)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.where.size > 1)
        # Both at once would be wrong: a process that has nothing to give would not wait for the weights of rank 0.
        set_model_state_dict(self.model, full["model"], options=options)
        set_optimizer_state_dict(self.model, self.optimizers, full["optimizers"], options=options)
        torch.set_rng_state(state["random"]["cpu"])
        if self.where.kind == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"])
        self.step = state["step"]
        return state["watch"]


def trainer_of(config: PretrainConfig, model: GPT2, live_bias: Tensor | None, where: World) -> Trainer:
    """What a recipe asks for, at step 0. `live_bias` [vocab] is added to the logits: 0, or -inf for ids that never come."""
    objective = Objective(model, None if live_bias is None else live_bias.to(where.device))
    blocks = list(model.h)
    if config.compile:
        compiled = blocks if where.size > 1 and config.parallel == "fsdp" else [objective]
        for module in compiled:
            module.compile()
    module = spread(objective, blocks, config.parallel, where)
    decayed, rest = (list(named.values()) for named in (model.decayed(), model.not_decayed()))
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    chosen = optimizers(
        decayed,
        rest,
        matrices if config.optimizer == "muon" else (),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    schedule = Schedule(config.learning_rate, config.final_learning_rate, config.warmup_steps, config.steps)
    return Trainer(model, module, chosen, schedule, config.clip, config.precision, where)


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer does not say why it failed
        try:
            torch.save(state, file)
        except RuntimeError as error:  # at the end of a file whose middle was refused
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _random(where: World) -> dict[str, Tensor | None]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if where.kind == "cuda" else None}


def _header(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The small parts of a resume point. BadInput where there is none, or it is another training's."""
    path = folder / RESUME_POINT
    if not path.exists():
        raise BadInput(f"nothing to resume: {path} does not exist. Start without --resume.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        small = {name: state[name] for name in ("step", "identity", "watch", "random")}
    except Exception as error:
        raise BadInput(f"{path} is no resume point of this version ({type(error).__name__}); start again") from None
    theirs = small["identity"]
    differ = [name for name in identity if theirs.get(name) != identity[name]] + [
        n for n in theirs if n not in identity
    ]
    if differ:
        said = "; ".join(f"{name}: {theirs.get(name)} then, {identity.get(name)} now" for name in differ)
        raise BadInput(
            f"{path} belongs to another training ({said}); resume it with its own config, or start a new run"
        )
    return small
