"""manifest.json of a ThoughtStore: whose thoughts, of which problems, in which files, and what failed."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from workings.config import from_dict
from workings.errors import BadInput, explained, listed
from workings.files import read_sealed, sha256_of

FORMAT = 1
TABLES = ("problems.parquet", "index.parquet")
REMEDY = "copy the store again, or collect the thoughts again into an empty folder"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class CollectionSettings:
    """All that decides the bytes of a store, except the problems; a collection goes on only with the same settings.

    Field names are the format of manifest.json, here and below.
    """

    model: str  # fingerprint
    layers: tuple[str, ...]
    positions: tuple[str, ...]
    n_thoughts: int
    width: int
    dtype: Literal["float32", "bfloat16"]
    batch_size: int
    shard_problems: int
    max_new_tokens: int
    splits: str  # digest of {problem: split}
    device: str
    versions: dict[str, str | None]
    notes: tuple[str, ...] = ()  # what should be known of states that somebody else collected


@dataclass(frozen=True)
class Shard:
    """Problems `first` to `first + given − 1` in the order given; `rows` of them could be thought about."""

    file: str
    first: int
    given: int
    rows: int
    problems: str  # digest of the problems' ids


@dataclass(frozen=True)
class Failure:
    """A problem that is not in the store; `number` is its place in the order given, from 0."""

    problem: str
    number: int
    reason: str


@dataclass(frozen=True)
class FileEntry:
    """Size and sha256 of a file of the store."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        return cls(path.stat().st_size, sha256_of(path))


@dataclass
class StoreManifest:
    """The content of manifest.json. `digest` is empty until the store is complete."""

    kind: Literal["thoughts"]
    format: int
    status: Literal["partial", "complete"]
    settings: CollectionSettings
    n_problems: int = 0
    n_rows: int = 0
    n_failures: int = 0
    problems: str = hashlib.sha256().hexdigest()  # digest of the shards' digests of ids
    digest: str = ""
    shards: list[Shard] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    files: dict[str, FileEntry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> StoreManifest:
        """The manifest of a store, finished or not. BadInput where there is none or it is not one."""
        path = folder / "manifest.json"
        if not path.exists():
            raise BadInput(f"{folder} is not a thought store: it has no manifest.json")
        content = read_sealed(path, REMEDY)
        if content.get("kind") != "thoughts" or content.get("format") != FORMAT:
            raise BadInput(f"{path} is not the manifest of a thought store of format {FORMAT}")
        try:
            found = from_dict(cls, content)
        except BadInput as error:
            raise BadInput(f"{path} is damaged ({error}): {REMEDY}") from None
        missing = {*TABLES, *(shard.file for shard in found.shards)} - found.files.keys()
        if found.status == "complete" and missing:
            raise BadInput(f"{path} is damaged (it says nothing of {listed(missing)}): {REMEDY}")
        return found


@contextmanager
def disk_errors(out: Path) -> Generator[None]:
    """Turn a refused write into a user message; finished shards stay valid and are resumed from."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps what the operating system said, as text
        raise explained(error, out) from error


def digest_of(lines: Iterable[str]) -> str:
    """sha256 (hex) of lines of text."""
    sha256 = hashlib.sha256()
    for line in lines:
        sha256.update(f"{line}\n".encode())
    return sha256.hexdigest()
