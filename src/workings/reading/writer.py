"""The write side of a ThoughtStore: a window of problems at a time, whole on disk before the manifest says that it is.

A window is cut by the place of its problems in the order given and becomes one shard, so where a collection was
interrupted leaves no trace in what is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from workings.errors import BadInput, Failed
from workings.files import drop_half_written, explained, lock, to_json, write_atomic, write_with
from workings.reading.store import FORMAT, file_entry, read_manifest

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
    """One store being written: begun, or gone on with where an earlier writer with the same settings stopped.

    Use it in a `with`: it holds the folder's lock. BadInput if the folder holds anything else, or was begun with other
    settings.
    """

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.out, self.settings = out, settings
        with explaining(out):
            out.mkdir(parents=True, exist_ok=True)
            self._lock = lock(out)
        try:
            self.manifest = self._begun()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> ThoughtWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def is_complete(self) -> bool:
        return self.manifest["status"] == "complete"

    def _begun(self) -> dict[str, Any]:
        if not (self.out / "manifest.json").exists():
            if any(not left.name.startswith(".") for left in self.out.iterdir()):
                raise BadInput(f"{self.out} holds other files and no thought store; give an empty or a new folder")
            return _new_manifest(self.settings)
        manifest = read_manifest(self.out)
        differ = [
            f"{name} was {old}, is now {self.settings.get(name)}"
            for name, old in manifest["settings"].items()
            if old != self.settings.get(name)
        ]
        if differ:
            raise BadInput(f"{self.out} was begun with other settings: {'; '.join(differ)}. Use another folder.")
        drop_half_written(self.out)
        return manifest

    def check_same(self, shard: Mapping[str, Any], ids: Sequence[str]) -> None:
        """That a window given again is the one that became `shard`."""
        if digest_of(ids) != shard["problems"]:
            last = shard["first"] + shard["given"] - 1
            raise BadInput(
                f"{self.out} was begun with other problems: those numbered {shard['first']} to {last} are not the "
                f"{len(ids)} given now. Give the same problems in the same order, or another folder."
            )

    def write(
        self,
        ids: Sequence[str],
        tensors: dict[str, Tensor],
        rows: list[dict[str, Any]],
        failures: list[dict[str, Any]],
    ) -> None:
        """One window: its states {layer: [rows, P, d]}, its `rows` (columns of `PROBLEMS`), and what failed."""
        name = f"shard_{len(self.manifest['shards']):05d}.safetensors"
        part = _part_of(name)
        with explaining(self.out):
            write_with(self.out / name, lambda path: save_file(tensors, path))
            write_with(self.out / part, lambda path: pq.write_table(pa.Table.from_pylist(rows, PROBLEMS), path))
            self._record(name, ids, len(rows), failures)

    def finish(self) -> None:
        """Join the shards' problems to the two tables, then say that the store is complete, then drop the parts."""
        shards = [shard["file"] for shard in self.manifest["shards"]]
        with explaining(self.out):
            write_with(self.out / "problems.parquet", lambda path: _stream(path, PROBLEMS, self._parts()))
            write_with(self.out / "index.parquet", lambda path: _stream(path, INDEX, map(self._index, self._parts())))
            entries = {name: self.manifest["files"][name] for name in shards}
            entries |= {name: file_entry(self.out / name) for name in ("problems.parquet", "index.parquet")}
            digest = digest_of(f"{name} {entry['sha256']}" for name, entry in entries.items())
            self.manifest |= {"status": "complete", "files": entries, "digest": digest}
            self._save()
            self.drop_parts()

    def drop_parts(self) -> None:
        """Remove the shards' own problem tables, which a complete store has joined."""
        for shard in self.manifest["shards"]:
            (self.out / _part_of(shard["file"])).unlink(missing_ok=True)

    def _record(self, name: str, ids: Sequence[str], n_rows: int, failures: list[dict[str, Any]]) -> None:
        manifest = self.manifest
        digest = digest_of(ids)
        first = manifest["n_problems"]
        manifest["shards"].append({"file": name, "first": first, "given": len(ids), "rows": n_rows, "problems": digest})
        manifest["failures"] += failures
        manifest["n_problems"] += len(ids)
        manifest["n_rows"] += n_rows
        manifest["n_failures"] += len(failures)
        manifest["problems"] = digest_of([manifest["problems"], digest])
        manifest["files"] |= {file: file_entry(self.out / file) for file in (name, _part_of(name))}
        self._save()

    def _parts(self) -> Iterator[pa.Table]:
        for shard in self.manifest["shards"]:
            yield pq.read_table(self.out / _part_of(shard["file"]), schema=PROBLEMS)

    def _index(self, problems: pa.Table) -> pa.Table:
        """A row a problem and position, from a row a problem."""
        rows = [
            {name: row[name] for name in ("row", "problem", "split")}
            | {"place": place, "position": position, "own_token": token}
            for row in problems.select(["row", "problem", "split", "own_tokens"]).to_pylist()
            for place, (position, token) in enumerate(zip(self.settings["positions"], row["own_tokens"], strict=True))
        ]
        return pa.Table.from_pylist(rows, INDEX)

    def _save(self) -> None:
        write_atomic(self.out / "manifest.json", to_json(self.manifest))


def _new_manifest(settings: dict[str, Any]) -> dict[str, Any]:
    counts = {"n_problems": 0, "n_rows": 0, "n_failures": 0}
    digests = {"problems": digest_of(()), "digest": ""}
    head = {"kind": "thoughts", "format": FORMAT, "status": "partial", "settings": settings}
    return head | counts | digests | {"shards": [], "failures": [], "files": {}}


def _part_of(shard: str) -> str:
    return str(Path(shard).with_suffix(".parquet"))


def _stream(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for table in tables:
            writer.write_table(table)


def digest_of(lines: Iterable[str]) -> str:
    """sha256 (hex) of lines of text."""
    sha256 = hashlib.sha256()
    for line in lines:
        sha256.update(f"{line}\n".encode())
    return sha256.hexdigest()


@contextmanager
def explaining(out: Path) -> Generator[None]:
    """What the operating system refuses to write, as a message. What was written before is whole, and gone on from."""
    try:
        yield
    except SafetensorError as error:  # it wraps what the operating system said, as text
        raise Failed(f"cannot write into {out}: {error}. Make room, then run the same command again.") from error
    except OSError as error:
        raise explained(error, out) from error
