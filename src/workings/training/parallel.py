"""One process, or several that torchrun started → the same training: DDP (copies) or FSDP2 (shards), over NCCL or gloo.

Rank 0 alone writes. Every process reads its own rows; gradients are averaged in the last pass of a step only.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from workings.errors import BadInput
from workings.models.device import device_of

Parallel = Literal["ddp", "fsdp"]
# Rank 0 judges and saves alone while the others wait at the next step.
PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """The processes of one training, seen from one of them."""

    rank: int
    size: int
    device: str

    @property
    def writes(self) -> bool:
        """Whether this process keeps the record: rank 0."""
        return self.rank == 0

    @property
    def kind(self) -> str:
        """cpu, cuda or mps."""
        return self.device.partition(":")[0]

    @property
    def gpus(self) -> list[str]:
        """The one that this process computes on, or none: no other may be touched."""
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

    def agreed(self, value: Any) -> Any:
        """Rank 0's value, on every process (anything that pickles; the processes are our own)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device(self.device))
        return box[0]


@contextmanager
def world(device: str = "auto") -> Generator[World]:
    """Join the processes that torchrun started, and leave them at the end; alone, a world of one.

    A group that somebody else has joined already is used, and left alone.
    """
    found = device_of(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield World(0, 1, found)
        return
    if found == "cuda":
        found = _own_gpu()
    joined = not dist.is_initialized()
    if joined:
        backend = "nccl" if found.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), found)
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


def spread(objective: nn.Module, blocks: Sequence[nn.Module], how: Parallel, where: World) -> nn.Module:
    """The module to call instead of `objective`: its gradients are means over all processes. FSDP shards it in place."""
    if where.size == 1:
        return objective
    if how == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        ids = [torch.device(where.device)] if where.kind == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids, gradient_as_bucket_view=True)
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(where.kind, (where.size,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def synchronising(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """Around one pass, forward and backward: only the last of a step exchanges gradients."""
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    elif isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return nullcontext()


def whole(value: Tensor) -> Tensor:
    """A norm of sharded gradients as an ordinary tensor; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value
