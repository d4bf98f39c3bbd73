"""The write side of a ThoughtStore: a window of problems at a time, whole on disk before the manifest lists it.

A window is cut by the place of its problems in the order given and becomes one shard, so where a collection was interrupted
leaves no trace in what is written.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.files import begin_in, drop_half_written, sealed, unchanged, write_atomic, write_with
from workings.models.anatomy import is_thought
from workings.provenance import versions
from workings.reading.manifest import (
    DTYPES,
    FORMAT,
    REMEDY,
    TABLES,
    CollectionSettings,
    Failure,
    FileEntry,
    Shard,
    StoreManifest,
    digest_of,
    disk_errors,
)

_ARRAYS_AT_ONCE = 256  # problems of `write_arrays` in a shard

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
        "chain": pa.string(),  # <<6*9=54>> <<54+1=55>>, or its sentences
        "n_steps": pa.int64(),
        "source": pa.string(),
        "chain_ids": pa.list_(pa.int64()),  # the written chain as the model's teacher saw it
        "answer_ids": pa.list_(pa.int64()),
        "own_tokens": pa.list_(pa.int64()),  # the model's own next token at each position; null where it has none
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


def columns_of(problem: Problem, splits: Mapping[str, str] | None) -> dict[str, Any]:
    """What `PROBLEMS` says of a problem, whoever thought about it."""
    return {
        "problem": problem.id,
        "split": "" if splits is None else splits[problem.id],
        "question": problem.question,
        "gold": problem.answer,
        "chain": problem.chain,
        "n_steps": problem.n_steps,
        "source": problem.source,
    }


# ---- a window at a time ------------------------------------------------------------------------------------------


class ThoughtWriter:
    """One store being written: begun, or resumed where an earlier writer with the same settings stopped.

    Use it in a `with`: it holds the folder's lock.

    Raises:
        BadInput: Where the folder holds anything else, or was begun with other settings.
    """

    def __init__(self, out: Path, settings: CollectionSettings) -> None:
        self.out = out
        with disk_errors(out):
            self._lock = begin_in(out, "thought store")
        try:
            with disk_errors(out):
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
            begun = StoreManifest("thoughts", FORMAT, "partial", settings)
            # before the first shard, which takes long and may be killed: the folder says what it is
            write_atomic(self.out / "manifest.json", sealed(begun))
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
            write_atomic(self.out / "manifest.json", sealed(manifest))

    def finish(self) -> None:
        """Join the shards' problems into the two tables, then mark the store complete, then drop the parts."""
        manifest = self.manifest
        with disk_errors(self.out):
            if not self.is_complete:
                self._join("problems.parquet", PROBLEMS, lambda problems: problems)
                self._join("index.parquet", INDEX, self._by_position)
                entries = {shard.file: manifest.files[shard.file] for shard in manifest.shards}
                entries |= {name: FileEntry.of(self.out / name) for name in TABLES}
                manifest.status, manifest.files = "complete", entries
                manifest.digest = digest_of(f"{name} {entry.sha256}" for name, entry in entries.items())
                write_atomic(self.out / "manifest.json", sealed(manifest))
            for shard in manifest.shards:
                (self.out / _part(shard.file)).unlink(missing_ok=True)

    def _join(self, table_file: str, schema: pa.Schema, made_of: Callable[[pa.Table], pa.Table]) -> None:
        """Write a table a shard at a time, from the shards' own tables of problems."""

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema) as table:
                for shard in self.manifest.shards:
                    name = _part(shard.file)
                    part = unchanged(self.out / name, self.manifest.files[name].sha256, "manifest.json", REMEDY)
                    table.write_table(made_of(pq.read_table(part, schema=PROBLEMS)))

        write_with(self.out / table_file, write)

    def _by_position(self, problems: pa.Table) -> pa.Table:
        """One row per problem and position, from one row per problem."""
        positions = self.manifest.settings.positions
        none = [None] * len(positions)
        rows = [
            {**row, "place": place, "position": position, "own_token": token}
            for row in problems.select(["row", "problem", "split", "own_tokens"]).to_pylist()
            for place, (position, token) in enumerate(zip(positions, row["own_tokens"] or none, strict=True))
        ]
        return pa.Table.from_pylist(rows, INDEX)


def _part(shard: str) -> str:
    """The shard's own table of problems, which lies beside it until the store is complete."""
    return str(Path(shard).with_suffix(".parquet"))


# ---- arrays from elsewhere ---------------------------------------------------------------------------------------


def write_arrays(
    problems: Sequence[Problem],
    hidden: NDArray[Any] | Tensor,
    layers: Sequence[str],
    positions: Sequence[str],
    out: Path,
    splits: Mapping[str, str] | None,
    fingerprint: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write a whole store of states [n, L, P, d]; see `ThoughtStore.from_arrays`, which opens it."""
    _refuse_misfits(problems, hidden, layers, positions, splits)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already; name a new folder, so that nothing is overwritten")
    dtype: Literal["float32", "bfloat16"] = "bfloat16" if hidden.dtype == torch.bfloat16 else "float32"
    settings = CollectionSettings(
        model=fingerprint,
        layers=tuple(layers),
        positions=tuple(positions),
        n_thoughts=sum(map(is_thought, positions)),
        width=hidden.shape[3],
        dtype=dtype,
        batch_size=_ARRAYS_AT_ONCE,
        shard_problems=_ARRAYS_AT_ONCE,
        max_new_tokens=0,
        splits=digest_of(f"{problem} {split}" for problem, split in sorted((splits or {}).items())),
        device="cpu",
        versions={"torch": versions().get("torch")},
        notes=tuple(notes),
    )
    try:
        with ThoughtWriter(out, settings) as writer:
            for start in range(0, len(problems), _ARRAYS_AT_ONCE):
                some = problems[start : start + _ARRAYS_AT_ONCE]
                states = _finite(hidden[start : start + _ARRAYS_AT_ONCE], dtype, some, layers, positions)
                rows = [
                    {"row": start + at, "number": start + at, **columns_of(problem, splits)}
                    for at, problem in enumerate(some)
                ]
                writer.write([problem.id for problem in some], states, rows, [])
            writer.finish()
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return out


def _finite(
    hidden: NDArray[Any] | Tensor,
    dtype: str,
    problems: Sequence[Problem],
    layers: Sequence[str],
    positions: Sequence[str],
) -> list[Tensor]:
    """States [n, L, P, d] as they are stored, [P, L, d] each; BadInput where one is not finite."""
    states = torch.as_tensor(np.array(hidden) if isinstance(hidden, np.ndarray) else hidden.detach().cpu())
    states = states.to(DTYPES[dtype])
    bad = (~states.isfinite()).any(-1).nonzero()
    if len(bad):
        row, layer, place = bad[0].tolist()
        raise BadInput(
            f"a hidden state is not finite (float32): problem {problems[row].id}, {layers[layer]}, {positions[place]}; "
            "leave the problem out"
        )
    return list(states.transpose(1, 2).contiguous())


def _refuse_misfits(
    problems: Sequence[Problem],
    hidden: NDArray[Any] | Tensor,
    layers: Sequence[str],
    positions: Sequence[str],
    splits: Mapping[str, str] | None,
) -> None:
    if not problems:
        raise BadInput("there are no problems to store states of: the list is empty")
    shape, wanted = tuple(hidden.shape), (len(problems), len(layers), len(positions))
    if len(shape) != 4 or shape[:3] != wanted or shape[3] == 0:
        names = ("problems", "layers", "positions")
        expected = ", ".join(f"{n} {name}" for n, name in zip(wanted, names, strict=True))
        raise BadInput(f"the states have the shape {list(shape)}; it must be [{expected}, width]")
    for what, given in (("layers", layers), ("positions", positions), ("problems", [each.id for each in problems])):
        if twice := [name for name, n in Counter(given).items() if n > 1]:
            raise BadInput(f"the {what} name {twice[0]!r} twice; every one may be there once")
    for problem in problems:
        try:
            _ = problem.value
        except ValueError as error:
            raise BadInput(f"{error}; leave the problem out") from None
        if splits is not None and splits.get(problem.id) not in ("train", "val", "test"):
            raise BadInput(f"problem {problem.id} is in no split (train, val or test); give every one, or no splits")
