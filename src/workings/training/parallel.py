"""One process, or several that torchrun started → the same training: DDP (copies) or FSDP2 (shards), over NCCL or gloo.

Rank 0 alone writes. Every process reads its own rows or examples; gradients are averaged in the last pass of a step only.
A run is trained by a `Session` on every process: rank 0 begins it with `lead`, the others `join` it (docs/decisions/0008).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from workings.errors import BadInput
from workings.models.anatomy import device_of
from workings.run import Run
from workings.training.recipes import Parallel

# Rank 0 judges and saves alone while the others wait at the next step.
PATIENCE = timedelta(hours=2)

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of one training, seen from one of them."""

    rank: int
    size: int
    device: str

    @property
    def writes(self) -> bool:
        """True on rank 0, which alone keeps the record."""
        return self.rank == 0

    @property
    def kind(self) -> str:
        """cpu, cuda or mps."""
        return self.device.partition(":")[0]

    @property
    def gpus(self) -> list[str]:
        """The GPU that this process computes on, if there is one: no other may be touched."""
        return [self.device] if self.kind == "cuda" else []

    @property
    def device_name(self) -> str:
        """The product's name where it is a GPU, else the kind."""
        return torch.cuda.get_device_name(self.device) if self.kind == "cuda" else self.kind

    def mean(self, value: Tensor) -> Tensor:
        """The mean over all processes, in place; the same bits everywhere."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def agreed(self, value: T) -> T:
        """Rank 0's value, on every process (anything that pickles; the processes are our own)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]


@contextmanager
def process_group(device: str = "auto") -> Generator[ProcessGroup]:
    """Join the processes that torchrun started, and leave them at the end; alone, a group of one.

    A group that somebody else has joined already is used, and left alone.
    """
    found = device_of(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ProcessGroup(0, 1, found)
        return
    if found == "cuda":
        found = _own_gpu()
    joined = not dist.is_initialized()
    if joined:
        backend = "nccl" if found.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size(), found)
    finally:
        if joined:
            dist.destroy_process_group()


def _own_gpu() -> str:
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if number >= torch.cuda.device_count():
        raise BadInput(
            f"process {number} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; "
            "start torchrun with --nproc-per-node of at most that"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


def limit_threads(n: int) -> None:
    """Compute with n CPU threads from now on; 0 leaves it to torch."""
    if n:
        torch.set_num_threads(n)


# ── gradients ────────────────────────────────────────────────────────────────────────────────────────────────────────


def distributed(objective: nn.Module, blocks: Sequence[nn.Module], how: Parallel, group: ProcessGroup) -> nn.Module:
    """The module to call instead of `objective`: its gradients are means over all processes. FSDP shards it in place."""
    if group.size == 1:
        return objective
    if how == "ddp":
        ids = [torch.device(group.device)] if group.kind == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids, gradient_as_bucket_view=True)
    mesh = dist.init_device_mesh(group.kind, (group.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def synchronising(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around one pass, forward and backward: only the last of a step exchanges gradients."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    elif isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def whole(value: Tensor) -> Tensor:
    """A norm of sharded gradients as an ordinary tensor; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


# ── a run that several processes train ───────────────────────────────────────────────────────────────────────────────


def resume_point(folder: Path) -> Path:
    """Where a training that keeps its models in `folder` saves what it resumes from."""
    return folder / "state" / "training.pt"


@dataclass(frozen=True)
class Session:
    """The training of one run, as one of its processes takes part in it.

    Attributes:
        group: The processes that take part.
        folder: The run's checkpoint folder: kept models, and the resume point.
        resume: Training goes on from the resume point.
        message: What else rank 0 tells the others, such as the folder of the corpus it built.
    """

    group: ProcessGroup
    folder: Path
    resume: bool
    message: str = ""


@contextmanager
def lead(run: Run, device: str, message: str = "") -> Generator[Session | None]:
    """Begin the training of a run as rank 0, and tell the processes that `join`; None where it is done already.

    It is done when `checkpoint/model` is there and the resume point is not: whoever keeps the model drops the resume
    point afterwards, as the last thing. All processes go by what rank 0 saw, because two that look at the same folder a
    second apart may see different things.
    """
    with process_group(device) as group:
        folder = run.folder("checkpoint")
        resume = resume_point(folder).exists()
        done = (folder / "model").exists() and not resume
        group.agreed(None if done else (str(folder), resume, message))
        yield None if done else Session(group, folder, resume, message)


@contextmanager
def join(device: str) -> Generator[Session | None]:
    """Take part in the training that rank 0 `lead`s; None where it is done already."""
    with process_group(device) as group:
        begun: tuple[str, bool, str] | None = group.agreed(None)
        yield None if begun is None else Session(group, Path(begun[0]), *begun[1:])
