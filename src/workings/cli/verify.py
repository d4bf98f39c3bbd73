"""An artifact of any kind → whether every file of it is as it was written, by the digests in its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workings import models, reading, text
from workings.cli.options import positional
from workings.cli.runs import InRuns
from workings.errors import BadInput
from workings.files import changes, digests_beside, digests_of, is_sealed, read_sealed
from workings.run import RunRecord
from workings.sweep import Sweep
from workings.text.bpe import TOKENIZER_FILE

# The file that describes an artifact; a checkpoint and an export hold a tokenizer too, so that comes last.
_DESCRIPTIONS = ("manifest.json", "lens.json", "thinking.json", "config.json", TOKENIZER_FILE)


@dataclass(frozen=True, kw_only=True)
class Verify(InRuns):
    """Check that every file of an artifact is as it was written.

    A run, a store of thoughts, a lens, a checkpoint, a corpus, a tokenizer, an export or a sweep. The exit code is 1 if any file
    has changed or is missing; each is named.
    """

    artifact: str = positional(help="folder of the artifact; a run or a sweep may be named by a part of its name")

    def __call__(self) -> int:
        found = _checked(self.artifact, self.root)
        for line in [*found.differences, *found.notes]:
            print(line)
        if found.n_files and not found.differences:
            print(f"{found.place}: {found.n_files} files of this {found.kind} are as they were written")
        return 1 if found.differences else 0


@dataclass(frozen=True)
class _Checked:
    """An artifact and what is wrong with it; `notes` say what could not be checked."""

    kind: str
    place: Path
    n_files: int
    differences: Sequence[str]
    notes: Sequence[str] = ()


def _checked(artifact: str, root: str) -> _Checked:
    is_bundled = artifact.startswith("bundled") and artifact in models.BUNDLED  # the name first: models need torch
    place = models.resolve(artifact) if is_bundled else Path(artifact).expanduser()
    description = next((place / name for name in _DESCRIPTIONS if (place / name).is_file()), None)
    if description is not None:
        try:
            return _by_description(description)
        except BadInput as error:  # the description itself is damaged
            return _Checked("artifact", place, 0, [str(error)])
    if place.is_dir() and (beside := digests_beside(place)):
        return _Checked("folder of weights", place, len(beside), changes(place, beside))
    if place.is_file() and (digest := digests_beside(place.parent).get(place.name)):
        return _Checked("file", place, 1, changes(place.parent, {place.name: digest}))
    if (sweep := Sweep.find(artifact, root)) is not None:
        return _Checked("sweep", sweep.path, 1, [])
    return _by_description(RunRecord.find(artifact, root).path / "manifest.json")


def _by_description(path: Path) -> _Checked:
    folder, content = path.parent, read_sealed(path)
    kind, digests, differences = _of_kind(path, content)
    notes = []
    if not digests:
        notes.append(f"{path} holds no digests (it is of an earlier version, or not of ours): nothing can be checked")
    elif not is_sealed(path):
        notes.append(f"{path} was written before it had a digest of its own: it cannot be checked itself")
    return _Checked(kind, folder, len(digests) + is_sealed(path), differences, notes)


def _of_kind(path: Path, content: Mapping[str, Any]) -> tuple[str, Mapping[str, str], Sequence[str]]:
    """The kind of artifact that a description describes, the digests that it knows, and what differs from them."""
    folder, form = path.parent, str(content.get("format", ""))
    if path.name == "lens.json":
        return "lens", {"lens.safetensors": str(content.get("weights"))}, reading.verify_lens(folder)
    if path.name != "manifest.json" or form.startswith("workings export"):
        digests = digests_of(content) | digests_beside(folder)
        kind = {TOKENIZER_FILE: "tokenizer", "manifest.json": "export"}.get(path.name, "checkpoint")
        return kind, digests, changes(folder, digests)
    if form.startswith("workings corpus"):
        differences = text.verify_corpus(folder)  # first, for it says what is wrong with a manifest
        shards = [shard for split in content.get("splits", {}).values() for shard in split["shards"]]
        digests = {shard[name]: "" for shard in shards for name in ("file", "documents_sha256")}
        return "corpus", digests, differences
    if content.get("kind") == "thoughts":
        store = reading.ThoughtStore.at(folder)
        return "store of thoughts", dict.fromkeys(store.manifest.files, ""), store.verify()
    record = RunRecord(folder)
    return "run", record.manifest.artifacts, record.verify()
