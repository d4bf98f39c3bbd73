"""ThoughtStore: hidden states by (layer; problem, position) on disk, with everything needed to judge a reading of them.

    manifest.json              whose thoughts, of which problems, in which files (sha256), and what failed
    shard_00000.safetensors …  one tensor a layer, [rows, P, d]; a row is a problem
    problems.parquet           a row a problem: question, gold, what the model answered, split, chain, token ids
    index.parquet              a row a problem and position

While a store is being collected, each shard has its problems beside it (`shard_00000.parquet`) and the manifest says
"partial".
Shapes: n problems, P positions (bot, t1 … tK), d width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workings.arithmetic.chain import read_chain
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.files import sha256_of

if TYPE_CHECKING:
    import polars as pl

FORMAT = 1
FINAL_NORM = "final_norm"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class HiddenStates(Protocol):
    """What a lens is fitted on and read over: a `ThoughtStore`, or `StatesInMemory`."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def positions(self) -> tuple[str, ...]: ...

    @property
    def ids(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def hidden(self, layer: str, rows: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True)
class StatesInMemory:
    """Hidden states that never touch the disk: `states[layer]` is [n, P, d]."""

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
    """The read side of a finished store; `collect` writes one. Hidden states are mapped into memory, not read."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self._open: dict[int, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> ThoughtStore:
        """A store that is finished, and whole by names and sizes (`verify` re-hashes). BadInput otherwise."""
        path = Path(path)
        manifest = read_manifest(path)
        if manifest["status"] != "complete":
            raise BadInput(
                f"{path} is a partial store: {manifest['n_problems']} problems collected so far. "
                "Run the same collection again to finish it."
            )
        wrong = [line for name, entry in manifest["files"].items() if (line := _misfit(path / name, entry))]
        if wrong:
            raise BadInput(f"{path} is damaged: {'; '.join(wrong)}. Collect it again into an empty folder.")
        return cls(path, manifest)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.manifest["settings"]["layers"])

    @property
    def positions(self) -> tuple[str, ...]:
        return tuple(self.manifest["settings"]["positions"])

    @property
    def fingerprint(self) -> str:
        """Of the model that thought."""
        return self.manifest["settings"]["model"]

    @property
    def digest(self) -> str:
        """sha256 over the digests of the files: the same for the same thoughts of the same problems."""
        return self.manifest["digest"]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Problems that are not in the store, and why: {problem, number (in the order given), reason}."""
        return self.manifest["failures"]

    def __len__(self) -> int:
        return sum(shard["rows"] for shard in self.manifest["shards"])

    @cached_property
    def problems(self) -> pl.DataFrame:
        """A row a problem, in the rows' order; see `writer.PROBLEMS` for the columns."""
        import polars as pl

        return pl.read_parquet(self.path / "problems.parquet")

    @cached_property
    def index(self) -> pl.DataFrame:
        """A row a problem and position; `own_token` is the model's own next token there."""
        import polars as pl

        return pl.read_parquet(self.path / "index.parquet")

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
        return [Problem(question, read_chain(chain), gold, source) for question, chain, gold, source in columns]

    def hidden(self, layer: str, rows: Tensor | None = None) -> Tensor:
        """[n, P, d] of one layer, in the dtype stored; `rows` (Long [m]) picks and orders problems.

        Nothing is read before it is used, and a store of one shard is not copied either. BadInput for an unknown layer.
        """
        if layer not in self.layers:
            raise BadInput(f"{self.path} has no layer '{layer}'; it has {', '.join(self.layers)}")
        if rows is None:
            parts = [self._tensor(i, layer) for i in range(len(self.manifest["shards"]))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._gathered(layer, rows)

    def verify(self) -> list[str]:
        """One line for every file that is missing or not as it was written; none means the store is whole."""
        lines = []
        for name, entry in self.manifest["files"].items():
            misfit = _misfit(self.path / name, entry)
            if misfit is None and sha256_of(self.path / name) != entry["sha256"]:
                misfit = f"{name}: changed since it was written"
            lines += [misfit] if misfit else []
        return lines

    def _gathered(self, layer: str, rows: Tensor) -> Tensor:
        shard_of = torch.searchsorted(self._starts, rows, right=True) - 1
        touched = shard_of.unique().tolist()
        if len(touched) == 1:
            return self._tensor(touched[0], layer)[rows - self._starts[touched[0]]]
        settings = self.manifest["settings"]
        out = torch.empty(len(rows), len(self.positions), settings["width"], dtype=DTYPES[settings["dtype"]])
        for i in touched:
            here = shard_of == i
            out[here] = self._tensor(i, layer)[rows[here] - self._starts[i]]
        return out

    @cached_property
    def _starts(self) -> Tensor:
        """Long [shards]: the first row of each."""
        counts = torch.tensor([shard["rows"] for shard in self.manifest["shards"]])
        return counts.cumsum(0) - counts

    def _tensor(self, shard: int, layer: str) -> Tensor:
        if shard not in self._open:
            file = self.path / self.manifest["shards"][shard]["file"]
            try:
                self._open[shard] = safe_open(file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise BadInput(f"{file} cannot be read ({error}); collect the store again") from None
        return self._open[shard].get_tensor(layer)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a store, finished or not. BadInput where there is none or it is not one."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is not a thought store: it has no manifest.json") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}/manifest.json cannot be read: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "thoughts" or manifest.get("format") != FORMAT:
        raise BadInput(f"{path}/manifest.json is not the manifest of a thought store of format {FORMAT}")
    return manifest


def file_entry(path: Path) -> dict[str, Any]:
    """What the manifest keeps of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _misfit(path: Path, entry: Mapping[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name}: missing"
    size = path.stat().st_size
    return None if size == entry["bytes"] else f"{path.name}: {size:,} bytes, {entry['bytes']:,} were written"
