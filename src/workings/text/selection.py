"""A path, a folder or a pattern (`data/*.jsonl`) → the files to read, and the names of what is left out.

Hidden files and folders are left out, and names that the reader does not know. Links to folders are followed, each folder once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import NamedTuple, NoReturn

from workings.errors import BadInput, listed

_PATTERN = frozenset("*?[")


class Found(NamedTuple):
    """A file that a reference stands for."""

    path: Path
    name: str
    """What is behind the folder that was named, or where a pattern starts. Ends in "/" for a folder that is not entered."""
    is_hidden: bool = False


@dataclass(frozen=True)
class Selection:
    """The files that a reference stands for, in the order of their paths."""

    files: tuple[Found, ...]
    left_out: tuple[str, ...] = ()
    """Names of files that are not read, and of hidden folders."""

    @property
    def note(self) -> str:
        """What is left out, in words; "" where that is nothing."""
        n = len(self.left_out)
        return f"{n} {'entries' if n > 1 else 'entry'} left out: {listed(self.left_out)}" if n else ""


def is_pattern(reference: str | Path) -> bool:
    """True for `data/*.jsonl` and the like, unless a file has that very name."""
    return not _PATTERN.isdisjoint(str(reference)) and not os.path.exists(reference)


def select_files(reference: str | Path, can_read: Callable[[str], bool], endings: str) -> Selection | None:
    """Find the files that a reference names.

    Args:
        reference: A file, a folder (read with all below it), or a pattern in which `**` stands for any folders.
        can_read: Says of a file's name whether it can be read.
        endings: Those names in words, for messages.

    Returns:
        The files; None where the reference is no pattern and nothing has that name.

    Raises:
        BadInput: Nothing among it can be read, or a folder cannot be listed.
    """
    path = Path(reference).expanduser()
    if is_pattern(path):
        root = next(folder for folder in path.parents if not is_pattern(folder))
        matches = [Path(match) for match in sorted(glob(str(path), recursive=True))]
        found = [one for match in matches for one in _at(match, match.relative_to(root))]
        if not found:
            raise BadInput(f"no file matches the pattern {reference}: check it, and the folder that it starts from")
    elif not os.path.exists(path):
        return None
    else:
        found = list(_at(path, Path()))
    files = {one.path: one for one in found if can_read(one.path.name) and not one.is_hidden and one.path.is_file()}
    if not files and path.is_file():
        raise BadInput(f"{reference}: files that can be read here end in {endings}; rename or convert it")
    if not files and found and os.path.exists(path) and not path.is_dir():
        raise BadInput(f"{reference} is a pipe or a device, and would be read more than once: save it as a file first")
    if not files:
        there = listed(one.name for one in found) or "nothing"
        raise BadInput(f"{reference} holds no file that ends in {endings}; there is {there}")
    others = {
        one.name
        for one in found
        if one.path not in files and (not one.is_hidden or one.name.endswith("/") or can_read(one.path.name))
    }
    return Selection(tuple(sorted(files.values())), tuple(sorted(others)))


def _at(path: Path, named: Path) -> Iterator[Found]:
    """The file, or all that lies below the folder; `named` stands for the path in the names of what is below."""
    if not path.is_dir():
        yield Found(path, str(named) if named.parts else path.name)
        return
    entered: set[str] = set()
    for place, folders, files in os.walk(path, followlinks=True, onerror=_refuse):
        here, real = named / Path(place).relative_to(path), os.path.realpath(place)
        if real in entered:  # a link to a folder around it, or to one that was read
            yield Found(Path(place), f"{here}/")
            folders.clear()
            continue
        entered.add(real)
        yield from (Found(Path(place, name), f"{here / name}/", True) for name in folders if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Found(Path(place, name), str(here / name), name.startswith(".")) for name in files)


def _refuse(error: OSError) -> NoReturn:
    raise BadInput(f"the folder {error.filename} cannot be read: {error.strerror}") from None
