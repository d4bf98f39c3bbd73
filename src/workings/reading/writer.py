"""The write side of a ThoughtStore: a window of problems at a time, whole on disk before the manifest lists it.

A window is cut by the place of its problems in the order given and becomes one shard, so where a collection was interrupted
leaves no trace in what is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from torch import Tensor

from workings.errors import BadInput
from workings.files import drop_half_written, lock, to_json, write_atomic, write_with
from workings.reading.store import (
    DTYPES,
    FORMAT,
    CollectionSettings,
    Failure,
    FileEntry,
    Shard,
    StoreManifest,
    disk_errors,
)

PROBLEMS = pa.schema(
    {
        "row": pa.int64(),  # in the tensors
        "number": pa.int64(),  # in the order given, from 0
        "problem": pa.string(),
        "split": pa.string(),  # "" where none was given
        "question": pa.string(),
        "gold": pa.string(),
        "model_answer": pa.string(),  # null where the text holds no number
        "model_text": pa.string(),
        "correct": pa.bool_(),  # null where no answer was asked for
        "chain": pa.string(),  # <<6*9=54>> <<54+1=55>>
        "n_steps": pa.int64(),
        "source": pa.string(),
        "chain_ids": pa.list_(pa.int64()),  # the written chain as the model's teacher saw it
        "answer_ids": pa.list_(pa.int64()),
        "own_tokens": pa.list_(pa.int64()),  # the model's own next token at each position
    }
)
INDEX = pa.schema(
    {
        "row": pa.int64(),
        "problem": pa.string(),
        "split": pa.string(),
        "place": pa.int64(),
        "position": pa.string(),
        "own_token": pa.int64(),
    }
)


class ThoughtWriter:
    """One store being written: begun, or resumed where an earlier writer with the same settings stopped.

    Use it in a `with`: it holds the folder's lock.

    Raises:
        BadInput: Where the folder holds anything else, or was begun with other settings.
    """

    def __init__(self, out: Path, settings: CollectionSettings) -> None:
        self.out = out
        with disk_errors(out):
            out.mkdir(parents=True, exist_ok=True)
            self._lock = lock(out)
        try:
            self.manifest = self._begin(settings)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> ThoughtWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def is_complete(self) -> bool:
        return self.manifest.status == "complete"

    def _begin(self, settings: CollectionSettings) -> StoreManifest:
        if not (self.out / "manifest.json").exists():
            if any(not left.name.startswith(".") for left in self.out.iterdir()):
                raise BadInput(f"{self.out} holds other files and no thought store; give an empty or a new folder")
            return StoreManifest("thoughts", FORMAT, "partial", settings)
        manifest = StoreManifest.read(self.out)
        before, now = vars(manifest.settings), vars(settings)
        if different := [f"{name} was {before[name]}, is now {now[name]}" for name in now if before[name] != now[name]]:
            raise BadInput(f"{self.out} was begun with other settings: {'; '.join(different)}. Use another folder.")
        drop_half_written(self.out)
        return manifest

    def check_same(self, shard: Shard, ids: Sequence[str]) -> None:
        """Refuse a window, given again, that is not the one that became `shard`."""
        if digest_of(ids) != shard.problems:
            raise BadInput(
                f"{self.out} was begun with other problems: those numbered {shard.first} to {shard.first + shard.given - 1} "
                f"are not the {len(ids)} given now. Give the same problems in the same order, or another folder."
            )

    def write(
        self, ids: Sequence[str], hidden: Sequence[Tensor], rows: list[dict[str, Any]], failures: list[Failure]
    ) -> None:
        """Write one window as a shard, then record it.

        Args:
            ids: Ids of all problems of the window, also of those that failed.
            hidden: States [P, L + 1, d] of each problem that has a row.
            rows: One mapping a problem, with the columns of `PROBLEMS`.
            failures: The problems that have no row.
        """
        manifest, settings = self.manifest, self.manifest.settings
        name = f"shard_{len(manifest.shards):05d}.safetensors"
        none = (0, len(settings.positions), settings.width)
        tensors = {
            layer: torch.stack([h[:, i] for h in hidden]) if hidden else torch.empty(none, dtype=DTYPES[settings.dtype])
            for i, layer in enumerate(settings.layers)
        }
        with disk_errors(self.out):
            write_with(self.out / name, lambda path: save_file(tensors, path))
            write_with(self.out / _part(name), lambda path: pq.write_table(pa.Table.from_pylist(rows, PROBLEMS), path))
            shard = Shard(name, manifest.n_problems, len(ids), len(rows), digest_of(ids))
            manifest.shards.append(shard)
            manifest.failures += failures
            manifest.n_problems += len(ids)
            manifest.n_rows += len(rows)
            manifest.n_failures += len(failures)
            manifest.problems = digest_of([manifest.problems, shard.problems])
            manifest.files |= {file: FileEntry.of(self.out / file) for file in (name, _part(name))}
            write_atomic(self.out / "manifest.json", to_json(manifest))

    def finish(self) -> None:
        """Join the shards' problems into the two tables, then mark the store complete, then drop the parts."""
        manifest = self.manifest
        with disk_errors(self.out):
            if not self.is_complete:
                self._join("problems.parquet", PROBLEMS, lambda problems: problems)
                self._join("index.parquet", INDEX, self._by_position)
                entries = {shard.file: manifest.files[shard.file] for shard in manifest.shards}
                entries |= {name: FileEntry.of(self.out / name) for name in ("problems.parquet", "index.parquet")}
                manifest.status, manifest.files = "complete", entries
                manifest.digest = digest_of(f"{name} {entry.sha256}" for name, entry in entries.items())
                write_atomic(self.out / "manifest.json", to_json(manifest))
            for shard in manifest.shards:
                (self.out / _part(shard.file)).unlink(missing_ok=True)

    def _join(self, name: str, schema: pa.Schema, made_of: Callable[[pa.Table], pa.Table]) -> None:
        """Write a table a shard at a time, from the shards' own tables of problems."""

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema) as table:
                for shard in self.manifest.shards:
                    table.write_table(made_of(pq.read_table(self.out / _part(shard.file), schema=PROBLEMS)))

        write_with(self.out / name, write)

    def _by_position(self, problems: pa.Table) -> pa.Table:
        """One row per problem and position, from one row per problem."""
        positions = self.manifest.settings.positions
        rows = [
            {**row, "place": place, "position": position, "own_token": token}
            for row in problems.select(["row", "problem", "split", "own_tokens"]).to_pylist()
            for place, (position, token) in enumerate(zip(positions, row["own_tokens"], strict=True))
        ]
        return pa.Table.from_pylist(rows, INDEX)


def _part(shard: str) -> str:
    """The shard's own table of problems, which lies beside it until the store is complete."""
    return str(Path(shard).with_suffix(".parquet"))


def digest_of(lines: Iterable[str]) -> str:
    """sha256 (hex) of lines of text."""
    sha256 = hashlib.sha256()
    for line in lines:
        sha256.update(f"{line}\n".encode())
    return sha256.hexdigest()
