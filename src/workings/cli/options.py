"""A verb and its flags, which are its own fields and fields of a Config: name, type, default and help stand there and nowhere else.

A verb is a frozen dataclass derived from `Command`. Its fields are set from the words of a command line, then it is called. It may
inherit options that several verbs share, and have one field `given: Given = config_fields(…)`, which receives the config fields
that were named. jsonargparse parses the words and checks their types.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import re
import typing
from abc import ABC, abstractmethod
from argparse import SUPPRESS, ArgumentError, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from workings.config import REQUIRED, field_of, in_words, names_of
from workings.errors import BadInput, suggestion
from workings.experiment import load, report_runs, resume_run, run_experiment
from workings.launch import rank_here
from workings.progress import quietly
from workings.run import RunRecord

ConfigOf = str | Callable[[Sequence[str]], type | None]
"""An experiment, whose Config is meant, or a function from the words behind the verb to a config class."""


class Given(dict[str, object]):
    """{dotted field: value} of the config fields named on the command line."""

    @property
    def settings(self) -> list[str]:
        """As settings for `config.override`: JSON is YAML, so that every value is read back as it is."""
        return [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.items()]


def option(default: Any = REQUIRED, help: str = "") -> Any:
    """A field that is a flag: `batch_size` is --batch-size, a bool is a switch, a tuple takes several words."""
    return dataclasses.field(default=default, metadata={"help": help})


def positional(default: Any = REQUIRED, help: str = "") -> Any:
    """A field that is a positional argument."""
    return dataclasses.field(default=default, metadata={"help": help, "positional": True})


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
        return self.name if "positional" in self.field.metadata else "--" + self.name.replace("_", "-")

    @property
    def kind(self) -> Any:
        """The type of one word: that of the field without None, or of an item of its tuple."""
        kinds = [kind for kind in typing.get_args(self.annotation) if kind is not type(None)]
        kind = kinds[0] if type(None) in typing.get_args(self.annotation) else self.annotation
        return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind

    @property
    def help(self) -> str:
        """The field's help, with its default where that says something."""
        text, value = self.field.metadata.get("help", ""), self.field.default
        if value is REQUIRED or value is False or value in (None, (), ""):
            return text
        return f"{text}; default {' '.join(map(str, value)) if isinstance(value, tuple) else value}"

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `add_argument`. What is not typed stays absent: the dataclass knows its default."""
        settings: dict[str, Any] = {"default": SUPPRESS, "help": self.help}
        if self.kind is bool:
            return settings | {"action": BooleanOptionalAction if self.stands_for else "store_true"}
        several = any(typing.get_origin(kind) is tuple for kind in (self.annotation, *typing.get_args(self.annotation)))
        required = self.field.default is REQUIRED and not self.stands_for
        settings["type"] = self.kind
        if several and typing.get_origin(self.kind) is Literal:  # jsonargparse calls the type with each word
            settings |= {"type": str, "choices": list(typing.get_args(self.kind))}
        if "positional" in self.field.metadata:
            return settings | {"nargs": ("+" if required else "*") if several else None if required else "?"}
        return (
            settings
            | ({"nargs": "+", "action": "extend"} if several else {})
            | ({"required": True} if required else {})
        )


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A verb, or options that several verbs share."""

    quiet: bool = option(False, "show no progress and no notes; results, warnings and errors are shown")

    @abstractmethod
    def __call__(self) -> int | None:
        """Do it; the exit code, None for 0."""

    @classmethod
    def carry_out(cls, program: str, words: Sequence[str]) -> int | None:
        """Set the fields from the words of a command line, and call."""
        flags, inside_groups = _flags(cls, words)
        _check_options(program, words, flags)
        values = _parsed(cls, program, words, flags, inside_groups)
        given = {flags[name].stands_for: value for name, value in values.items() if flags[name].stands_for}
        own: dict[str, Any] = {name: value for name, value in values.items() if not flags[name].stands_for}
        command = cls(**own, **({"given": Given(given)} if given else {}))
        with quietly(command.quiet):
            return command()


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


def _check_options(program: str, words: Sequence[str], flags: Mapping[str, Flag]) -> None:
    """BadInput for an option that the verb has not, before the parser's own, less helpful, word on it."""
    known = [*(flag.words for flag in flags.values()), "--help"]
    known += [f"--no-{flag.words[2:]}" for flag in flags.values() if flag.kind is bool and flag.stands_for]
    options = [word.partition("=")[0] for word in itertools.takewhile(lambda word: word != "--", words)]
    for option in options:
        if option.startswith("--") and option not in known:
            hint = suggestion(option, known) or f"; it has {', '.join(known)}"
            raise BadInput(f"{program.partition(' ')[2]} has no option {option}{hint}")


def _parsed(
    verb: type, program: str, words: Sequence[str], flags: Mapping[str, Flag], inside_groups: Sequence[Flag]
) -> dict[str, Any]:
    """The values of the flags that are among the words."""
    lines = [f"  {flag.name}: {flag.help}" for flag in inside_groups]
    parser = ArgumentParser(
        prog=program,
        description=inspect.getdoc(verb),
        epilog="\n".join(["config fields in groups, by --set field=value:", *lines]) if lines else None,
        formatter_class=type("Help", (DefaultHelpFormatter, RawDescriptionHelpFormatter), {}),
        exit_on_error=False,
    )
    group = parser.add_argument_group("config fields")
    for flag in flags.values():
        (group if flag.stands_for else parser).add_argument(flag.words, **flag.arguments())
    try:
        values = vars(parser.parse_args(list(words)))
    except ArgumentError as error:
        message = str(error)
        about = re.search(r'Parser key "([\w.]+)".*Got value: (.*)', message, re.DOTALL)
        if about:
            flag = flags[about[1]]
            message = f"{flag.words} must be {in_words(flag.kind)}, not '{about[2].strip()}'"
        raise BadInput(f"{message} (see {program} --help)") from None
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


# ── options that several verbs share ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class Printing(Command):
    """How results are printed."""

    json: bool = option(False, "print JSON")


@dataclass(frozen=True, kw_only=True)
class Running(Command):
    """Runs of an experiment: their config beside the flags that stand for its fields, and where they go."""

    set: tuple[str, ...] = option((), "settings of config fields, as field=value, dotted for groups: training.steps=64")
    config: str | None = option(None, "YAML file of config fields, such as the config.yaml of a run")
    out: str = option("runs", "folder that runs go into")
    resume: str | None = option(None, "unfinished run to resume, exactly where it stood")
    dry_run: bool = option(False, "print the resolved config and inputs, run nothing")

    def runs(self, experiment: str, given: Given, arms: Sequence[str] = (), **more: Any) -> list[RunRecord]:
        """Resume a run of the experiment, or start some; `more` goes to `run_experiment`."""
        if self.resume:
            return [resume_run(self.resume, self.out, name=experiment)]
        settings = [*given.settings, *self.set]
        return run_experiment(
            experiment, arms, overrides=settings, config_path=self.config, root=self.out, dry_run=self.dry_run, **more
        )

    def print_report(self, records: Sequence[RunRecord]) -> None:
        """Write the report on the runs, and print its path; under torchrun the first process does."""
        if records and not rank_here():
            print(report_runs(records))


@dataclass(frozen=True, kw_only=True)
class Computing(Command):
    """Where and in which format a model computes."""

    device: str = option("auto", "device: auto, cpu, cuda or mps")
    precision: Literal["fp32", "bf16"] = option("fp32", "floating-point format in which the model computes")


def refuse_beside_resume(*settings: object) -> None:
    """BadInput if any is given (not empty, not None) where a run is resumed."""
    if any(settings):
        raise BadInput("--resume goes on with a run as it was configured: leave the other settings out")
