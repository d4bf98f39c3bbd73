"""ThoughtStore: hidden states by (layer; problem, position) on disk, with everything needed to judge a reading of them.

    manifest.json              whose thoughts, of which problems, in which files (sha256), and what failed
    shard_00000.safetensors …  one tensor per layer, [rows, P, d]; a row is a problem
    problems.parquet           one row per problem: question, gold, the model's answer, split, chain, token ids
    index.parquet              one row per problem and position

This is the read side; `writer` is the write side. While a store is being collected, each shard has its problems beside it
(`shard_00000.parquet`) and the manifest says "partial".

The positions `t1 … tK` are thoughts; every other one is before the first thought: `bot`, the opening token, and `question`, the
mean state over the question's own tokens (stores written before 2026-11-26 lack it).
Shapes: n problems, L layers, P positions (question, bot, t1 … tK), d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workings.arithmetic.problems import Problem
from workings.config import several
from workings.errors import BadInput
from workings.files import changes, unchanged
from workings.reading.manifest import DTYPES, REMEDY, Failure, FileEntry, StoreManifest
from workings.reading.writer import write_arrays

FINAL_NORM = "final_norm"


@dataclass(frozen=True)
class StatesInMemory:
    """Hidden states that never touch the disk: `states[layer]` is [n, P, d]. They are fitted on and read as a store is."""

    states: Mapping[str, Tensor]
    positions: tuple[str, ...]
    ids: Sequence[str]
    fingerprint: str
    digest: str = ""

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.states)

    def hidden(self, layer: str, rows: Tensor | None = None) -> Tensor:
        return self.states[layer] if rows is None else self.states[layer][rows]


class ThoughtStore:
    """The read side of a finished store. Hidden states are mapped into memory and read when they are used.

    >>> import tempfile
    >>> from workings.models import open_model
    >>> from workings.text.datasets import load_problems
    >>> from workings.reading import collect
    >>> problems = load_problems("generated", limit=4).problems
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = collect(open_model("bundled"), problems, folder.name, max_new_tokens=4).path
    >>> store = ThoughtStore.open(path)
    >>> len(store), store.layers, store.positions
    (4, ('embed', 'block1', 'final_norm'), ('question', 'bot', 't1', 't2', 't3', 't4', 't5', 't6'))
    >>> store.hidden("block1").shape
    torch.Size([4, 8, 128])
    >>> store.problems.columns[:6]
    ['row', 'number', 'problem', 'split', 'question', 'gold']
    """

    def __init__(self, path: Path, manifest: StoreManifest) -> None:
        self.path, self.manifest = path, manifest
        self._open: dict[int, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> ThoughtStore:
        """Open a finished store. Its files are checked by name and size now, and hashed when they are first used.

        Raises:
            BadInput: Where it is unfinished, damaged, or no store.
        """
        store = cls.at(path)
        path, manifest = store.path, store.manifest
        if manifest.status != "complete":
            raise BadInput(
                f"{path} is a partial store: {manifest.n_problems} problems collected so far. "
                "Run the same collection again to finish it."
            )
        wrong = [line for name, entry in manifest.files.items() if (line := _misfit(path / name, entry))]
        if wrong:
            raise BadInput(f"{path} is damaged: {'; '.join(wrong)} (manifest.json); {REMEDY}")
        return store

    @classmethod
    def at(cls, path: str | Path) -> ThoughtStore:
        """The store in a folder as it is, finished or damaged or not, to be verified."""
        return cls(Path(path), StoreManifest.read(Path(path)))

    @classmethod
    def from_arrays(
        cls,
        problems: Sequence[Problem],
        hidden: NDArray[Any] | Tensor,
        layers: str | Sequence[str],
        positions: str | Sequence[str],
        folder: str | Path,
        splits: Mapping[str, str] | None = None,
        fingerprint: str = "arrays",
        notes: Sequence[str] = (),
    ) -> ThoughtStore:
        """Write states from anybody's code as a store, and open it. No model is needed.

        The store then holds no answers and no token ids of a model: those columns are null. A memory-mapped array is read a
        few problems at a time.

        Args:
            problems: The n problems, no two alike.
            hidden: States [n, L, P, d], numpy or torch; bfloat16 is stored as such, every other type as float32.
            layers: Names of the L layers. States at `final_norm` are past the model's final norm.
            positions: Names of the P positions: `t1`, `t2`, … are thoughts, all others come before them.
            folder: Folder of the store: new or empty. It is removed again if anything fails.
            splits: {problem id: "train", "val" or "test"}, see `split_problems`; none, by default.
            fingerprint: Name of the model that thought; readings tell models apart by it.
            notes: What should be known of the states; they stand in the manifest.

        Raises:
            BadInput: For a shape or a name that does not fit, a state that is not finite, a problem given twice or without
                a number for an answer, or a folder that holds something.

        >>> import numpy as np, tempfile
        >>> from workings.arithmetic.chain import Step
        >>> problems = [Problem(f"{a} pens and 2 more?", (Step(f"{a}+2", str(a + 2)),), str(a + 2)) for a in range(5)]
        >>> states = np.random.default_rng(0).normal(size=(5, 1, 2, 16))
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = ThoughtStore.from_arrays(problems, states, ["block1"], ["question", "t1"], folder.name)
        >>> store.hidden("block1").shape, store.as_problems() == problems
        (torch.Size([5, 2, 16]), True)
        """
        return cls.open(
            write_arrays(
                problems, hidden, several(layers), several(positions), Path(folder), splits, fingerprint, notes
            )
        )

    @property
    def layers(self) -> tuple[str, ...]:
        return self.manifest.settings.layers

    @property
    def positions(self) -> tuple[str, ...]:
        return self.manifest.settings.positions

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that thought."""
        return self.manifest.settings.model

    @property
    def digest(self) -> str:
        """sha256 over the digests of the files: the same for the same thoughts of the same problems."""
        return self.manifest.digest

    @property
    def failures(self) -> list[Failure]:
        """Problems that are not in the store, and why."""
        return self.manifest.failures

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.manifest.shards)

    @cached_property
    def problems(self) -> pl.DataFrame:
        """One row per problem, in the rows' order; `writer.PROBLEMS` lists the columns."""
        return pl.read_parquet(self._file("problems.parquet"))

    @cached_property
    def index(self) -> pl.DataFrame:
        """One row per problem and position; `own_token` is the model's own next token there."""
        return pl.read_parquet(self._file("index.parquet"))

    @property
    def ids(self) -> list[str]:
        return self.problems["problem"].to_list()

    @property
    def splits(self) -> list[str]:
        """The split of each row; empty strings where none was given."""
        return self.problems["split"].to_list()

    def as_problems(self) -> list[Problem]:
        """The problems themselves again, in the rows' order."""
        columns = self.problems.select("question", "chain", "gold", "source").iter_rows()
        return [Problem.of(question, chain, gold, source) for question, chain, gold, source in columns]

    def hidden(self, layer: str, rows: Tensor | None = None) -> Tensor:
        """Hidden states [n, P, d] of one layer, in the dtype stored; a store of one shard is not copied.

        Args:
            layer: One of `layers`; another is BadInput.
            rows: Picks and orders problems, Long [m]; all in order, without it.
        """
        if layer not in self.layers:
            raise BadInput(f"{self.path} has no layer '{layer}'; it has {', '.join(self.layers)}")
        if rows is None:
            parts = [self._tensor(i, layer) for i in range(len(self.manifest.shards))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        shard_of = torch.searchsorted(self._starts, rows, right=True) - 1
        touched = shard_of.unique().tolist()
        if len(touched) == 1:
            return self._tensor(touched[0], layer)[rows - self._starts[touched[0]]]
        settings = self.manifest.settings
        out = torch.empty(len(rows), len(self.positions), settings.width, dtype=DTYPES[settings.dtype])
        for i in touched:
            here = shard_of == i
            out[here] = self._tensor(i, layer)[rows[here] - self._starts[i]]
        return out

    def verify(self) -> list[str]:
        """One line for every file that is missing or not as it was written; none means the store is whole."""
        return changes(self.path, {name: entry.sha256 for name, entry in self.manifest.files.items()})

    def _file(self, name: str) -> Path:
        """The path of a file of the store, which is hashed when it is first used."""
        return unchanged(self.path / name, self.manifest.files[name].sha256, "manifest.json", REMEDY)

    @cached_property
    def _starts(self) -> Tensor:
        """The first row of each shard, Long [shards]."""
        counts = torch.tensor([shard.rows for shard in self.manifest.shards])
        return counts.cumsum(0) - counts

    def _tensor(self, shard: int, layer: str) -> Tensor:
        if shard not in self._open:
            file = self._file(self.manifest.shards[shard].file)
            try:
                self._open[shard] = safe_open(file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise BadInput(f"{file} cannot be read ({error}): {REMEDY}") from None
        return self._open[shard].get_tensor(layer)


HiddenStates = ThoughtStore | StatesInMemory  # what a lens is fitted on, and reads


def _misfit(path: Path, entry: FileEntry) -> str | None:
    if not path.is_file():
        return f"{path.name}: missing"
    size = path.stat().st_size
    return None if size == entry.bytes else f"{path.name}: {size:,} bytes, {entry.bytes:,} were written"
