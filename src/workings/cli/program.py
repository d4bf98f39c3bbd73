"""A command line → a verb that is carried out, and an exit code.

The module of a verb is imported when the verb is named, so that help costs nothing. The first word of a verb of two words
("codi train") is its group.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from workings.errors import BadInput, Failed, suggestion

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
        """Carry out a command line; the exit code. A traceback is shown only for what nobody foresaw."""
        try:
            return self._dispatch(words) or 0
        except (BadInput, Failed) as error:
            print(f"{self.name}: {error}{_notes(error)}", file=sys.stderr)
            return MISTAKE if isinstance(error, BadInput) else FAILURE
        except KeyboardInterrupt as error:
            print(f"\n{self.name}: interrupted{_notes(error)}", file=sys.stderr)
            return INTERRUPTED
        except SystemExit as error:  # --help comes this way; with notes, it is a run that was told to stop
            if _notes(error):
                print(f"{self.name}: stopped{_notes(error)}", file=sys.stderr)
            return error.code if isinstance(error.code, int) else FAILURE
        except BrokenPipeError:  # whoever read our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILURE
        except Exception:
            traceback.print_exc()
            return FAILURE

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


def _notes(error: BaseException) -> str:
    return "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
