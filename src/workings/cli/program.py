"""A command line → a verb that is carried out, and an exit code.

The module of a verb is imported when the verb is named, so that help costs nothing. The first word of a verb of two words
("codi train") is its group.
"""

from __future__ import annotations

import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, cast

from workings.errors import BadInput, ours, suggestion

if TYPE_CHECKING:
    from workings.cli.options import Command

MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


@dataclass(frozen=True)
class Verb:
    """A verb that is not imported yet: module and class in workings.cli ("runs:Show", an `options.Command`), and its summary."""

    place: str
    summary: str

    def load(self) -> type[Command]:
        """Import the class."""
        return resolve_name(f"workings.cli.{self.place}")


@dataclass(frozen=True)
class Program:
    """A program with verbs; `groups` describes the first words of verbs of two, and under "" the program."""

    name: str
    version: str
    verbs: Mapping[str, Verb]
    groups: Mapping[str, str]

    def execute(self, words: Sequence[str]) -> int:
        """Carry out a command line; the exit code.

        A traceback is shown for what nobody foresaw, and in Python's development mode (PYTHONDEVMODE=1) for every error.
        """
        _speak_utf8()
        try:
            with _plain_warnings():
                code = self._dispatch(words) or 0
            sys.stdout.flush()  # here, where a full disk has an exit code
            return code
        except KeyboardInterrupt as error:
            print(f"\n{self.name}: interrupted{_notes(error)}", file=sys.stderr)
            return INTERRUPTED
        except SystemExit as error:  # --help comes this way; with notes, it is a run that was told to stop
            if _notes(error):
                print(f"{self.name}: stopped{_notes(error)}", file=sys.stderr)
            return error.code if isinstance(error.code, int) else FAILURE
        except BrokenPipeError:  # whoever read our output has seen enough
            _drop_output()
            return FAILURE
        except Exception as error:
            known = ours(error)
            if known is None or sys.flags.dev_mode:
                traceback.print_exception(error)
            if known is None:
                advice = (
                    "nobody foresaw this: unless the mistake is in a file of yours, please report it with these lines"
                )
                print(f"{self.name}: {advice}", file=sys.stderr)
            else:
                print(f"{self.name}: {_shortened(str(known))}{_notes(known)}", file=sys.stderr)
            _drop_output()
            return MISTAKE if isinstance(known, BadInput) else FAILURE

    def _dispatch(self, words: Sequence[str]) -> int | None:
        for n_words in (2, 1):
            name = " ".join(words[:n_words])
            if name in self.verbs:
                return self.verbs[name].load().carry_out(f"{self.name} {name}", words[n_words:])
        group = words[0] if words and words[0] in self.groups else ""
        rest = words[1:] if group else words
        if rest == ["--version"] and not group:
            print(f"{self.name} {self.version}")
            return 0
        if not rest or rest[0] in ("-h", "--help"):
            print(self._overview(group))
            return 0 if rest else MISTAKE
        if rest[0].startswith("-"):
            raise BadInput(f"{self.name} has no option {rest[0]} (see {self.name} --help)")
        known = self._inside(group)
        hint = suggestion(rest[0], known) or f"; there are {', '.join(known)}"
        raise BadInput(f"there is no verb '{f'{group} {rest[0]}'.strip()}'{hint}")

    def _inside(self, group: str) -> dict[str, str]:
        """{word: summary} of the verbs, and of the groups, in a group."""
        found = {}
        for name, verb in self.verbs.items():
            first, _, last = name.rpartition(" ")
            if first == group:
                found[last] = verb.summary
            elif not group:
                found[first] = self.groups[first]
        return found

    def _overview(self, group: str) -> str:
        known = self._inside(group)
        width = max(map(len, known))
        lines = [f"usage: {f'{self.name} {group}'.strip()} VERB ...", "", self.groups[group], "", "verbs:"]
        lines += [f"  {word:{width}}  {summary}" for word, summary in known.items()]
        return "\n".join([*lines, "", "options: --help, also after a verb" + ("" if group else "; --version")])


def _speak_utf8() -> None:
    """Print UTF-8 whatever the locale; what is no text (half a character, a byte of a file name) as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextmanager
def _plain_warnings() -> Generator[None]:
    """Inside, what is meant for the user (a UserWarning) is a sentence, without the line of code that it comes from."""
    standard = warnings.formatwarning

    def plain(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        is_for_users = category is UserWarning
        return f"warning: {message}\n" if is_for_users else standard(message, category, filename, lineno, line)

    warnings.formatwarning = cast(Any, plain)  # a module's function has a type of its own
    try:
        yield
    finally:
        warnings.formatwarning = standard


def _drop_output() -> None:
    """Write what is left of the output; where that is not possible any more, forget it: Python would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shortened(message: str) -> str:
    """A message without the middle of a word (a path, or what was taken for one) that would fill the screen."""
    return re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}…{word[0][-50:]}", message)


def _notes(error: BaseException) -> str:
    return "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
