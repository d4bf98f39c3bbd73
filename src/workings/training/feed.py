"""Corpus × rows of a step → the passes of that step as tensors on the device, the same whichever step is asked for first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workings.training.parallel import World
from workings.training.schedule import Rows

if TYPE_CHECKING:
    from workings.text.corpus import Corpus


@dataclass(frozen=True)
class Pass:
    """Rows that go through the model at once: Long [B, T]; `documents` tells texts in a row apart; `share` of the step."""

    inputs: Tensor
    targets: Tensor
    documents: Tensor | None
    share: float


class Feed:
    """Steps in order from `step` on. The rows are those that `Corpus.batches` gives to (seed, number of the row)."""

    def __init__(self, corpus: Corpus, rows: Rows, where: World, seed: int, documents: bool, step: int = 0) -> None:
        self.rows, self.where, self.documents, self.step = rows, where, documents, step
        # Full passes are read whole; where steps differ in size, row by row.
        self._granule = rows.pass_rows if rows.even else 1
        self._batches: Iterator[Any] = corpus.batches(
            seed,
            rows=self._granule,
            length=rows.length,
            rank=where.rank,
            world=where.size,
            start=rows.before(step) // self._granule,
        )

    def passes(self) -> Iterator[Pass]:
        """The passes of this process in the next step."""
        sizes = self.rows.passes(self.step)
        for size in sizes:
            read = [next(self._batches) for _ in range(size // self._granule)]
            inputs, targets = (self._tensor([getattr(b, name) for b in read]) for name in ("inputs", "targets"))
            documents = self._tensor([b.documents for b in read]) if self.documents else None
            yield Pass(inputs, targets, documents, size / sum(sizes))
        self.step += 1

    def _tensor(self, parts: list[np.ndarray]) -> Tensor:
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        tensor = torch.from_numpy(array)
        if self.where.kind == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.where.device, non_blocking=True)
