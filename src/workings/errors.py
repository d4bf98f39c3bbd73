"""The two ways a command ends badly: a mistake in what was given (exit code 2), a failure of the work (exit code 1).

Where a file or a field is known, whoever reads it says what is wrong with it. What is left of the errors of the operating system
and of libraries becomes one of the two in `ours`, which knows them by name: no library is imported for its errors.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from pathlib import Path


class BadInput(Exception):
    """Something given to us cannot be used. The message says what, where, and what to do; exit code 2."""


class Failed(Exception):
    """The input was fine and the work still did not succeed. The message says what and where; exit code 1."""


_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk's end, a quota's, a file-size limit's
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
_NOT_OURS_TO_MEND = {errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}
_NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|Storage size calculation overflowed")
_NO_THREAD = "can't start new thread"

# What libraries raise about the content of a file, by the name of the class or of one that it derives from.
_UNREADABLE = {
    "json.decoder.JSONDecodeError": "JSON is broken",
    "builtins.UnicodeDecodeError": "text is not UTF-8",
    "builtins.UnicodeEncodeError": "text cannot be written in this encoding",
    "builtins.RecursionError": "data are nested too deeply",
    "builtins.EOFError": "data end too early",
    "builtins.OverflowError": "a number is too large",
    "yaml.error.YAMLError": "YAML is broken",
    "zlib.error": "compressed data are damaged",
    "gzip.BadGzipFile": "compressed data are damaged",
    "_lzma.LZMAError": "compressed data are damaged",
    "zipfile.BadZipFile": "an archive is damaged",
    "_pickle.UnpicklingError": "a file of torch.save is damaged, or holds more than tensors",
    "safetensors._safetensors_rust.SafetensorError": "a .safetensors file is damaged",
    "pyarrow.lib.ArrowException": "Arrow cannot use the data",
    "polars.exceptions.PolarsError": "a table is damaged or is not of the expected kind",
    "huggingface_hub.errors.HFValidationError": "no repository of the hub can have this name",
    "jinja2.exceptions.TemplateError": "a chat template is broken",
}
_UNQUOTED = {"_pickle.UnpicklingError", "builtins.RecursionError"}  # torch advises to load without its safeguards


def ours(error: BaseException) -> BadInput | Failed | None:
    """What the operating system or a library raised, as an error of ours with its notes; None where nobody foresaw it.

    Example:
        >>> ours(FileNotFoundError(2, "No such file or directory", "a.json"))
        BadInput('a.json: No such file or directory')
    """
    found = (
        error if isinstance(error, BadInput | Failed) else _of_memory(error) or _of_system(error) or _of_library(error)
    )
    for note in getattr(error, "__notes__", []):
        if found is not None and found is not error:
            found.add_note(note)
    return found


def explained(error: BaseException, place: Path) -> BadInput | Failed:
    """What to tell the user about a write that was refused at a known place."""
    if is_disk_full(error):
        return _full(place)
    known = _of_memory(error)
    if known or system_number(error) in _TOO_MANY_FILES:
        return known or _too_many_files()
    reason = f"cannot write to {place}: {getattr(error, 'strerror', None) or error}"
    return Failed(reason) if system_number(error) in _NOT_OURS_TO_MEND else BadInput(reason)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error says that there is no space left; libraries in Rust and C++ say it in words only."""
    return error is not None and (system_number(error) in _FULL or os.strerror(errno.ENOSPC) in str(error))


def system_number(error: BaseException) -> int | None:
    """The number that the operating system gives its error (`errno.ENOENT`); libraries in Rust say it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    said = re.search(r"\(os error (\d+)\)", str(error))
    return int(said[1]) if said else None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none; at most 300 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


def _of_memory(error: BaseException) -> Failed | None:
    lacks = isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))
    if isinstance(error, MemoryError) or lacks or system_number(error) == errno.ENOMEM:
        about = first_line(error).rpartition(": ")[2]
        return Failed(f"there is not enough memory ({about}): take smaller batches, or less at once")
    if isinstance(error, RuntimeError) and _NO_THREAD in str(error):
        return Failed("the system starts no more threads or processes: end some, or raise the limit (ulimit -u)")
    return None


def _of_system(error: BaseException) -> BadInput | Failed | None:
    number = system_number(error)
    if number in _TOO_MANY_FILES:
        return _too_many_files()
    if number in _FULL:
        return _full(getattr(error, "filename", None))
    if isinstance(error, ConnectionError | TimeoutError):
        return Failed(f"the network does not answer: {first_line(error)}")
    if number is None:
        return None
    places = [getattr(error, name, None) for name in ("filename", "filename2")]
    named = " → ".join(str(place) for place in places if place is not None)
    about = f"{named}: {os.strerror(number)}" if named else first_line(error)
    return Failed(about) if number in _NOT_OURS_TO_MEND else BadInput(about)


def _of_library(error: BaseException) -> BadInput | None:
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    known = next((name for name in names if name in _UNREADABLE), None)
    if known:
        said = "" if known in _UNQUOTED else f" ({first_line(error)})"
        return BadInput(f"{_UNREADABLE[known]}{said}: check what was given")
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return BadInput("a path holds a null character: check what was given")
    if isinstance(error, OSError) or type(error) is Exception:  # Hugging Face's libraries, of tokenizers above all
        return BadInput(f"{first_line(error)}: check what was given")
    return None


def _full(place: object) -> Failed:
    return Failed(f"the disk is full{f' at {place}' if place else ''}: free some space, then resume or start again")


def _too_many_files() -> Failed:
    return Failed("too many files are open: raise the limit (ulimit -n 4096), or start fewer processes")


def suggestion(word: str, known: Iterable[str]) -> str:
    """Text to append to an error: the known name nearest to `word`, or nothing. Dotted names are found by their last part too."""
    by_part = {part: name for name in reversed(list(known)) for part in (name.rsplit(".", 1)[-1], name)}
    tries = (word, word.rsplit(".", 1)[-1])
    near = [match for one in tries for match in difflib.get_close_matches(one, by_part, n=1)]
    return f" (did you mean '{by_part[near[0]]}'?)" if near else ""


def listed(names: Iterable[str], most: int = 4) -> str:
    """A few names in a sentence, in alphabetical order, and how many more there are."""
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
