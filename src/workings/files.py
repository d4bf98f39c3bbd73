"""Bytes → files that appear whole or not at all; files → digests; values → JSON that every reader accepts; a lock on a folder.

Every artifact (run, store, lens, checkpoint, corpus, tokenizer, export) has one *description*, a JSON file that holds the sha256
of its other files and, as its last field, of all its own fields before (`sealed`). The description is checked when it is read
(`read_sealed`), every other file when it is first used (`unchanged`). One written before there were such digests is taken as it is.
The lock belongs to the operating system: it goes when its process goes, however that ends.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import numbers
import os
import shutil
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, SupportsFloat

from workings.errors import BadInput, listed

SEAL = "sha256"
"""The last field of a description: the digest of the others."""
_COPY = "copy the whole folder again, or make it again"


def write_atomic(path: str | Path, content: bytes | str) -> Path:
    """Write a file so that nobody ever sees half of it, not even after a power cut. Text is UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    return write_with(path, lambda temporary: temporary.write_bytes(data))


def write_with(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """As `write_atomic`, for a library that writes to a path: `write` gets a temporary one in the same folder.

    A device or a pipe (/dev/null, /dev/stdout) is written into, and not replaced.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        write(path)
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        write(temporary)
        _to_disk(temporary)
        temporary.replace(path)
        _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def overwrite(path: str | Path, content: bytes) -> Path:
    """Give a file new content and leave it what it was otherwise: mode, owner and all its links, symbolic and hard.

    It appears whole, as in `write_atomic`, unless other names must go on meaning it (hard links) or its owner cannot be given to
    another file: then it is written through, and what it held lies beside it meanwhile (`.NAME.before`).

    Raises:
        BadInput: It is write-protected.
    """
    path = Path(os.path.realpath(path))
    if not path.is_file():
        return write_atomic(path, content)
    refuse_protected(path)
    if path.stat().st_nlink == 1:
        with suppress(PermissionError):
            return write_with(path, lambda temporary: _write_as(temporary, content, path))
    before = write_atomic(path.with_name(f".{path.name}.before"), path.read_bytes())
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    before.unlink()
    return path


def refuse_protected(path: Path) -> None:
    """BadInput if a file that exists is write-protected, also for a user who may write to everything."""
    if path.exists() and not (path.stat().st_mode & 0o222 and os.access(path, os.W_OK)):
        raise BadInput(f"{path} is write-protected: make it writable (chmod u+w), or write elsewhere with --out")


def _write_as(temporary: Path, content: bytes, path: Path) -> None:
    """Write a file with mode, owner and attributes of another; its time is now."""
    temporary.write_bytes(content)
    about, mine = path.stat(), temporary.stat()
    if (about.st_uid, about.st_gid) != (mine.st_uid, mine.st_gid):
        os.chown(temporary, about.st_uid, about.st_gid)
    shutil.copystat(path, temporary)
    os.utime(temporary)


def drop_half_written(folder: Path) -> None:
    """Remove what killed processes left of their `write_atomic`s below a folder."""
    for left in folder.rglob(".*.half"):
        left.unlink(missing_ok=True)


def sha256_of(path: str | Path) -> str:
    """The sha256 (hex) of a file, or of a folder: of the sorted list of its files' names and digests."""
    path = Path(path)
    if path.is_dir():
        lines = (f"{digest}  {name}\n" for name, digest in digests_in(path).items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[str]:
    """The relative name of every file below `folder`, sorted, but hidden ones (locks, half-written files)."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def digests_in(folder: Path) -> dict[str, str]:
    """{relative name: sha256} of `files_in` a folder."""
    return {name: sha256_of(folder / name) for name in files_in(folder)}


def input_digest(value: str | Path) -> str:
    """The sha256 of a path that exists, or of the text itself (a hub id with its revision, a generator's recipe)."""
    # os.path.exists, because a text too long for a file name is no error here
    return sha256_of(value) if os.path.exists(value) else hashlib.sha256(str(value).encode()).hexdigest()


# ── descriptions ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sealed(description: Any) -> str:
    """The JSON text of a description (a mapping or a dataclass) with the sha256 of its fields behind them."""
    content = plain(description)
    return to_json({**content, SEAL: _seal_of(content)})


def read_sealed(path: Path, remedy: str = _COPY) -> dict[str, Any]:
    """The fields that `sealed` was given.

    Args:
        path: The file of the description.
        remedy: What the user can do about a damaged one, for the message.

    Raises:
        BadInput: There is no such file, it is no JSON mapping, or it was changed since it was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing: {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} does not describe anything: {remedy}")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _seal_of(content):
        raise BadInput(
            f"{path} was changed after it was written: {remedy}, or delete its last field, '{SEAL}', if you meant to change it"
        )
    return content


def describe(folder: Path, name: str, about: Mapping[str, Any]) -> Path:
    """Write the description of a folder whose other files are all there, with their digests as its field `files`.

    A file that has its sha256 beside it is vouched for by that, and a README.md may be written anew.
    """
    digests = {
        file: sha256_of(folder / file)
        for file in files_in(folder)
        if file not in (name, "README.md") and not file.endswith(".sha256") and not sha256_file(folder / file).exists()
    }
    return write_atomic(folder / name, sealed({**about, "files": digests}))


def read_description(path: Path) -> dict[str, Any]:
    """The fields that `describe` was given, of a folder in which every file is as it was then. BadInput as `unchanged`."""
    content = read_sealed(path)
    for file, digest in digests_of(content).items():
        unchanged(path.parent / file, digest, path.name)
    content.pop("files", None)
    return content


def digests_of(description: Mapping[str, Any]) -> dict[str, str]:
    """What a description says of other files as {name: sha256}; nothing where an earlier version wrote it."""
    files = description.get("files")
    return {str(name): str(digest) for name, digest in files.items()} if isinstance(files, Mapping) else {}


def digests_beside(folder: Path) -> dict[str, str]:
    """{name: sha256} of the files in a folder that have it beside them, there or not."""
    found = sorted(folder.glob("*.sha256"))
    return {path.name.removesuffix(".sha256"): digest_beside(path.with_suffix("")) for path in found}


def digest_beside(file: Path) -> str:
    """The sha256 that lies beside a file; empty where there is none in the file for it."""
    return next(iter(sha256_file(file).read_text("utf-8", "replace").split()), "")


def sha256_file(file: Path) -> Path:
    """Where the sha256 of a file lies that has it beside it, in the format of `sha256sum`."""
    return file.with_name(file.name + ".sha256")


def is_sealed(path: Path) -> bool:
    """Whether a description holds a digest of its own; False for one written before there were any."""
    return SEAL in json.loads(path.read_text(encoding="utf-8"))


def unchanged(path: Path, digest: str, by: str, remedy: str = _COPY) -> Path:
    """The path, of a file that still has the sha256 with which it was written. A file is hashed once in a process.

    Args:
        path: The file.
        digest: Its sha256.
        by: The name of the file that says so, for the message: it may be that one which is not as it was.
        remedy: What the user can do, for the message.

    Raises:
        BadInput: It is missing, or was changed.
    """
    try:
        found = _digest(path)
    except FileNotFoundError:
        raise BadInput(f"{path} is missing, which {by} vouches for: {remedy}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    if found != digest:
        raise BadInput(f"{path} was changed after it was written: its sha256 is not the one in {by}; {remedy}")
    return path


def changes(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """One line for each of these files that is missing or has another sha256 now; all are hashed anew."""
    found = []
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif _digest(path, anew=True) != digest:
            found.append(f"{name}: changed")
    return found


_KNOWN: dict[tuple[Path, int, int, int], str] = {}


def _digest(path: Path, anew: bool = False) -> str:
    """The sha256 of a file, computed once in a process for its size, its time of change and its inode; or anew."""
    about = path.stat()
    state = (path.absolute(), about.st_size, about.st_mtime_ns, about.st_ino)
    if anew or state not in _KNOWN:
        _KNOWN[state] = sha256_of(path)
    return _KNOWN[state]


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(to_json(content).encode("utf-8", "surrogatepass")).hexdigest()


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_json(value: Any) -> str:
    """JSON text, indented, ending in a newline; see `plain`."""
    return json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """The JSON form of a value: dataclasses become mappings, numpy and torch scalars numbers, NaN and infinity null."""
    if value is None or isinstance(value, str | bool):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, SupportsFloat):
        number = float(value)
        return number if math.isfinite(number) else None
    raise TypeError(f"{type(value).__name__} has no JSON form here: {value!r}")


def lock(folder: Path) -> IO[str]:
    """The lock on a folder, held until the file returned is closed. BadInput if it is held already."""
    file = (folder / ".lock").open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise BadInput(f"{folder} is being written by another process; wait for it, or stop it first") from None
    return file


def begin_in(folder: Path, kind: str, leftovers: Container[str] = ()) -> IO[str]:
    """Make the folder of an artifact of some kind ("corpus"), or go on in one that has begun, and lock it.

    Args:
        folder: New, empty, or with a manifest.json that says what it is.
        kind: For the message.
        leftovers: What a writer killed before its manifest may have left.

    Raises:
        BadInput: It holds other files, among which nothing is written; or another process is writing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    others = [left.name for left in folder.iterdir() if not left.name.startswith(".") and left.name not in leftovers]
    if others and "manifest.json" not in others:
        raise BadInput(f"{folder} holds other files and no {kind} ({listed(others)}): give an empty or a new folder")
    return lock(folder)


def is_locked(folder: Path) -> bool:
    """Whether some process is writing into the folder now."""
    try:
        file = (folder / ".lock").open(encoding="utf-8")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
