"""A training ⇄ its resume point: one file from which it goes on as if it had never been killed.

Tensors are named by parameter, so that the file fits any number of processes, sharded or not. What the record of the run says
about later steps is taken back, so that it is the record of a run which was never killed.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from workings.config import leaves
from workings.errors import BadInput, explained
from workings.files import plain, write_atomic, write_with
from workings.models.configs import CodiConfig, GPT2Config
from workings.run import Run
from workings.training.parallel import ProcessGroup, resume_point
from workings.training.recipes import Recipe

SAMPLES = "samples.jsonl"


def identity_of(recipe: Recipe, shape: GPT2Config | CodiConfig, **others: str | int) -> dict[str, Any]:
    """Everything that decides the weights: recipe, shape of the model, and others such as a digest of what is read.

    The number of processes is not part of it, nor how they share the work.
    """
    settings = {name: value for name, value in leaves(recipe).items() if name != "parallel"}
    return settings | {f"model.{name}": value for name, value in leaves(shape).items()} | others


@dataclass(frozen=True)
class ResumePoint:
    """The file at `path`, and the training whose state it holds. `identity` is that of `identity_of`."""

    path: Path
    model: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    identity: Mapping[str, Any]
    group: ProcessGroup

    def save(self, step: int, monitored: Mapping[str, Any]) -> None:
        """Write the file, with the state of the loss monitor, which has found every step so far sound.

        Every process calls this; rank 0 writes.
        """
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights, moments = get_state_dict(self.model, list(self.optimizers), options=options)
        if not self.group.writes:
            return
        on_gpu = self.group.kind == "cuda"
        state = {
            "step": step,
            "identity": dict(self.identity),
            "watch": dict(monitored),
            "model": weights,
            "optimizers": moments,
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state() if on_gpu else None},
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_with(self.path, lambda temporary: _write(state, temporary))
        except OSError as error:
            raise explained(error, self.path.parent) from error

    def restore(self) -> tuple[int, dict[str, Any]]:
        """Load the file into model, optimizers and random state.

        Returns:
            The number of updates made, and the state of the loss monitor.

        Raises:
            BadInput: There is no file, or it belongs to another training.
        """
        state = self.group.agreed(_header(self.path, self.identity) if self.group.writes else {})
        full: dict[str, Any] = {"model": {}, "optimizers": {}}
        if self.group.writes:
            full = torch.load(self.path, map_location="cpu", weights_only=True)
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=self.group.size > 1)
        # Both at once would be wrong: a process that has nothing to give would not wait for the weights of rank 0.
        set_model_state_dict(self.model, full["model"], options=options)
        set_optimizer_state_dict(self.model, list(self.optimizers), full["optimizers"], options=options)
        torch.set_rng_state(state["random"]["cpu"])
        if self.group.kind == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"])
        return state["step"], state["watch"]


def drop_resume_point(folder: Path) -> None:
    """Remove what a training resumes from: the last thing once its result is kept."""
    shutil.rmtree(resume_point(folder).parent, ignore_errors=True)


def cleared(folder: Path) -> Path:
    """The place for a model to keep: what a training that was killed had kept there gives way."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def append_sample(run: Run, step: int, **sample: Any) -> None:
    """Add a line to the run's samples.jsonl."""
    with (run.path / SAMPLES).open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain({"step": step} | sample), ensure_ascii=False) + "\n")


def rewind(folder: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl and samples.jsonl about steps after `step`; none is left for a step below 0."""
    for name in ("metrics.jsonl", SAMPLES):
        path = folder / name
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_atomic(path, "".join(kept))


def take_back(folder: Path, run: Run | None, step: int) -> None:
    """Undo what a killed process did after its resume point: lines of the record, a model that was being kept."""
    for left in folder.glob(".*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    if run is not None:
        rewind(run.path, step)


def _write(state: dict[str, Any], path: Path) -> None:
    with path.open("wb") as file:  # torch's own writer does not say why it failed
        try:
            torch.save(state, file)
        except RuntimeError as error:  # at the end of a file whose middle was refused
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _header(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The small parts of a resume point. BadInput where there is none, or it is another training's."""
    if not path.exists():
        raise BadInput(f"nothing to resume: {path} does not exist. Start without --resume.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch writes checksums, and does not look at them
    except (OSError, zipfile.BadZipFile) as error:
        damaged = str(error)
    if damaged:
        raise BadInput(f"{path} was changed after it was written ({damaged}): start a new run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        small = {name: state[name] for name in ("step", "identity", "watch", "random")}
    except Exception as error:
        raise BadInput(
            f"{path} is no resume point of this version of workings ({type(error).__name__}): start a new run, or finish this "
            "one with the version in its manifest"
        ) from None
    if "sums" not in small["watch"]:  # as it was until 2026-11-25, with one loss
        n, loss, norm, smooth = (small["watch"][name] for name in ("n", "loss", "norm", "smooth"))
        small["watch"] = {"n": n, "sums": {"loss": loss, "grad_norm": norm}, "smooth": smooth}
    theirs = small["identity"]
    names = [name for name in identity if theirs.get(name) != identity[name]]
    differ = names + [name for name in theirs if name not in identity]
    if differ:
        changes = "; ".join(f"{name}: {theirs.get(name)} then, {identity.get(name)} now" for name in differ)
        raise BadInput(
            f"{path} belongs to another training ({changes}); resume it with its own config, or start a new run"
        )
    return small
