"""A verb and its flags, which are its own fields and fields of a Config: name, type, default and help stand there and nowhere else.

A verb is a frozen dataclass derived from `Command`. Its fields are set from the words of a command line, then it is called. It may
inherit options that several verbs share, and have one field `given: Given = config_fields(…)`, which receives the config fields
that were named. Words become values as `workings.config` reads them in a setting.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import os
import stat
import types
import typing
from abc import ABC, abstractmethod
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn, Unpack

from workings.config import REQUIRED, Range, field_of, in_words, names_of, outside, read_text
from workings.errors import BadInput, suggestion
from workings.experiment import load, report_runs, resume, run_experiment
from workings.launch import rank_here
from workings.progress import quietly

_MEMORY, _NULL = 1, 3  # Linux's numbers of /dev/zero, full and random, and among these of /dev/null, which is empty
_WRITTEN = ("out", "to", "report")
"""Flags that name what is written: it may be a device, such as /dev/stdout."""
ConfigOf = str | Callable[[Sequence[str]], type | None]
"""An experiment, whose Config is meant, or a function from the words behind the verb to a config class."""


class Given(dict[str, object]):
    """{dotted field: value} of the config fields named on the command line."""

    @property
    def settings(self) -> list[str]:
        """As settings for `config.override`: JSON is YAML, so that every value is read back as it is."""
        return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.items()]


def option(default: Any = REQUIRED, help: str = "", **range: Unpack[Range]) -> Any:
    """A field that is a flag: `batch_size` is --batch-size, a bool is a switch, a tuple takes several words.

    `range` says which numbers it takes, as in a config field: `at_least=1`. Text may not be empty.
    """
    return dataclasses.field(default=default, metadata={"help": help, "range": range})


def positional(default: Any = REQUIRED, help: str = "", **range: Unpack[Range]) -> Any:
    """A field that is a positional argument."""
    return dataclasses.field(default=default, metadata={"help": help, "positional": True, "range": range})


def config_fields(config: ConfigOf, *dotted: str, **renamed: str) -> Any:
    """A field of type Given: flags that stand for config fields.

    Args:
        config: The config class, as `ConfigOf` says it.
        dotted: Its fields; the flag of `training.batch_size` is --batch-size. None: all that lie in no group.
        renamed: Fields whose flag has another name: `shuffle_buffer="shuffle_documents"`.
    """
    names = {name.rpartition(".")[2]: name for name in dotted} | renamed
    return dataclasses.field(default_factory=Given, metadata={"config": config, "names": names})


@dataclass(frozen=True)
class Flag:
    """One flag or positional argument: a field of the verb, or the config field `stands_for` (dotted)."""

    name: str
    field: dataclasses.Field[Any]
    annotation: Any
    stands_for: str = ""

    @property
    def words(self) -> str:
        """The flag as it is typed."""
        return self.name if "positional" in self.field.metadata else _typed(self.name)

    @property
    def help(self) -> str:
        """The field's help, with its default where that says something."""
        text, value = self.field.metadata.get("help", ""), self.field.default
        if value is REQUIRED or value is False or value in (None, (), ""):
            return text
        return f"{text}; default {' '.join(map(str, value)) if isinstance(value, tuple) else value}"

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `add_argument`. What is not typed stays absent: the dataclass knows its default."""
        settings: dict[str, Any] = {"default": SUPPRESS, "help": self.help.replace("%", "%%")}
        kind, several = self.annotation, False
        if typing.get_origin(kind) in (typing.Union, types.UnionType):  # None is a flag left out
            kind = typing.Union[tuple(one for one in typing.get_args(kind) if one is not type(None))]  # noqa: UP007
        if typing.get_origin(kind) is tuple:
            kind, several = typing.get_args(kind)[0], True
        if kind is bool:
            return settings | {"action": BooleanOptionalAction if self.stands_for else "store_true"}
        settings["type"] = partial(self._read, kind)
        required = self.field.default is REQUIRED and not self.stands_for
        if "positional" in self.field.metadata:
            return settings | {"nargs": ("+" if required else "*") if several else None}
        if typing.get_origin(kind) is Literal:
            settings["metavar"] = f"{{{','.join(map(str, typing.get_args(kind)))}}}"
        return settings | {"required": required} | ({"nargs": "+", "action": "extend"} if several else {})

    def _read(self, kind: Any, word: str) -> Any:
        if kind in (str, Path):  # text stays as it is typed, quotation marks and all
            if not word and not self.stands_for:  # an unset variable of the shell, as a rule
                raise BadInput(f"{self.words} is empty: give a value, or leave it out")
            if self.name not in _WRITTEN and _never_ends(word):
                raise BadInput(f"{self.words} is {word}, a device that never ends: name a file or a folder")
            return word
        try:
            value = read_text(kind, word, self.name)
        except BadInput:
            raise BadInput(f"{self.words} must be {in_words(kind)}, not '{word}'") from None
        if complaint := outside(self.field, value):
            raise BadInput(f"{self.words} {complaint}")
        return value


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A verb, or options that several verbs share."""

    quiet: bool = option(False, "hide progress and notes; results, warnings and errors are still shown")

    @abstractmethod
    def __call__(self) -> int | None:
        """Do it; the exit code, None for 0."""

    @classmethod
    def carry_out(cls, program: str, words: Sequence[str]) -> int | None:
        """Set the fields from the words of a command line, and call."""
        flags, inside_groups = _flags(cls, words)
        values = _parsed(cls, program, words, flags, inside_groups)
        given = {flags[name].stands_for: value for name, value in values.items() if flags[name].stands_for}
        own: dict[str, Any] = {name: value for name, value in values.items() if not flags[name].stands_for}
        command = cls(**own, **({"given": Given(given)} if given else {}))
        with quietly(command.quiet):
            return command()


def _never_ends(word: str) -> bool:
    """Whether a word names a disk or a source of bytes such as /dev/zero: reading it would fill the memory."""
    try:
        about = os.stat(word)
    except (OSError, ValueError):
        return False
    is_source = stat.S_ISCHR(about.st_mode) and os.major(about.st_rdev) == _MEMORY and os.minor(about.st_rdev) != _NULL
    return is_source or stat.S_ISBLK(about.st_mode)


def _typed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flags(verb: type[Command], words: Sequence[str]) -> tuple[dict[str, Flag], list[Flag]]:
    """The flags of a verb, by name; where every config field outside groups is a flag, also the fields inside groups."""
    annotations = typing.get_type_hints(verb)
    own, named, inside = {}, {}, []
    for field in dataclasses.fields(verb):
        if "config" not in field.metadata:
            own[field.name] = Flag(field.name, field, annotations[field.name])
            continue
        config, names = field.metadata["config"], field.metadata["names"]
        config = load(config).module.Config if isinstance(config, str) else config(words)
        if config and not names:
            known = names_of(config)
            leaves = [name for name in known if not any(other.startswith(f"{name}.") for other in known)]
            names = {name: name for name in leaves if "." not in name}
            inside = [Flag(name, *field_of(config, name), name) for name in leaves if "." in name]
        named = {name: Flag(name, *field_of(config, dotted), dotted) for name, dotted in names.items()}
    return named | own, inside  # a field of the verb is not hidden by a config field of its name


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parsed(
    verb: type, program: str, words: Sequence[str], flags: Mapping[str, Flag], inside_groups: Sequence[Flag]
) -> dict[str, Any]:
    """The values of the flags that are among the words."""
    lines = [f"  {flag.name}: {flag.help}" for flag in inside_groups]
    parser = _Parser(
        prog=program,
        description=inspect.getdoc(verb),
        epilog="\n".join(["config fields in groups, by --set field=value:", *lines]) if lines else None,
        formatter_class=RawDescriptionHelpFormatter,
    )
    group = parser.add_argument_group("config fields")
    known: list[str] = []
    for flag in flags.values():
        target = group if flag.stands_for else parser
        known += target.add_argument(flag.words, **flag.arguments()).option_strings
    known.append("--help")
    for word in itertools.takewhile(lambda word: word != "--", words):
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:  # the parser would say less about it
            hint = suggestion(option, known) or f"; it has {', '.join(known)}"
            raise BadInput(f"{program.partition(' ')[2]} has no option {option}{hint}")
    values = vars(parser.parse_args(list(words)))
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


_HOW = ("jobs", "launcher", "slurm")  # how runs are carried out: no part of their configuration

# ── options that several verbs share ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Printing(Command):
    """The form in which results are printed."""

    json: bool = option(False, "print the result as JSON")


@dataclass(frozen=True, kw_only=True)
class Resumable(Command):
    """The folder of the runs, and an unfinished run or sweep to go on with."""

    out: str = option("runs", "folder for the runs")
    resume: str | None = option(
        None, "run or sweep to resume as it was configured: no other setting may be given; a finished one is reported"
    )

    def refuse_settings(self) -> None:
        """BadInput if anything is set beside --resume but the folder, the arguments and how results are shown."""
        named: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Given):
                named += [dotted.rpartition(".")[2] for dotted in value]
            elif field.name not in ("resume", "out", "quiet", "json", *_HOW) and "positional" not in field.metadata:
                named += [field.name] * (value != field.default)
        if named:
            listed = ", ".join(map(_typed, named))
            raise BadInput(f"--resume goes on with a run as it was configured: leave the other settings out ({listed})")


@dataclass(frozen=True, kw_only=True)
class Running(Resumable):
    """Runs of an experiment, whose config is set by a file, by settings, and by the flags that stand for its fields."""

    set: tuple[str, ...] = option((), "config fields as field=value, dotted in groups: training.steps=64")
    config: str | None = option(None, "YAML file of config fields, such as the config.yaml of a run")
    dry_run: bool = option(False, "print the resolved config and inputs, run nothing")
    given: Given

    @property
    def settings(self) -> list[str]:
        """The config fields that were named, the later of two to be taken."""
        return [*self.given.settings, *self.set]

    def run_and_report(self, experiment: str, arms: Sequence[str], **more: Any) -> None:
        """Start runs of the experiment, or resume one; write the report, and print its path. `more` goes to `run_experiment`."""
        if self.resume:
            self.refuse_settings()
            how = {name: more[name] for name in _HOW if name in more}
            records = resume(self.resume, self.out, name=experiment, **how)
        else:
            records = run_experiment(
                experiment,
                arms,
                overrides=self.settings,
                config_path=self.config,
                root=self.out,
                dry_run=self.dry_run,
                **more,
            )
        if records and not rank_here():  # under torchrun the first process reports
            print(report_runs(records))
