"""Functions → a program with verbs: typed arguments become options, docstrings help, errors exit codes.

A parameter before `/` is positional, the others are options; `Annotated[type, "help"]` describes one. A list takes
several words, a bool is a switch, a trailing underscore (`set_`) keeps an option off a builtin. A verb of two words
("codi train") is in a group.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import traceback
import typing
from argparse import ArgumentError
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jsonargparse import ArgumentParser

from workings.config import in_words
from workings.errors import BadInput, Failed, suggestion

Verb = Callable[..., int | None]
MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


def execute(
    program: str, version: str, verbs: Mapping[str, Verb], groups: Mapping[str, str], words: Sequence[str]
) -> int:
    """Carry out a command line; the exit code. A traceback is shown only for what nobody foresaw."""
    try:
        return _dispatch(program, version, verbs, groups, words) or 0
    except (BadInput, Failed) as error:
        print(f"{program}: {error}{_notes(error)}", file=sys.stderr)
        return MISTAKE if isinstance(error, BadInput) else FAILURE
    except KeyboardInterrupt as error:
        print(f"\n{program}: interrupted{_notes(error)}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as error:  # --help and --version come this way; with notes, it is a run that was told to stop
        if _notes(error):
            print(f"{program}: stopped{_notes(error)}", file=sys.stderr)
        return error.code if isinstance(error.code, int) else FAILURE
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception:
        traceback.print_exc()
        return FAILURE


def _dispatch(
    program: str, version: str, verbs: Mapping[str, Verb], groups: Mapping[str, str], words: Sequence[str]
) -> int | None:
    top = ArgumentParser(prog=program, description=groups[""], version=version, exit_on_error=False)
    parsers = _add_verbs(top, verbs, groups)
    name = _verb_in(words, parsers)
    if len(words) == len(name.split()) and name not in verbs:
        parsers[name].print_help()
        return MISTAKE
    if name in verbs:
        _check_options(name, words[len(name.split()) :], verbs[name])
    try:
        arguments = top.parse_args(list(words))
    except ArgumentError as error:
        raise _in_plain_words(str(error), program, name, verbs.get(name)) from None
    for word in name.split():
        arguments = arguments[word]
    return _call(verbs[name], {key: arguments[key] for key in _parameters(verbs[name])})


def _add_verbs(top: ArgumentParser, verbs: Mapping[str, Verb], groups: Mapping[str, str]) -> dict[str, ArgumentParser]:
    """A parser for every verb and every group, by its words."""
    subcommands = {"": top.add_subcommands(title="verbs", metavar="VERB")}
    parsers = {"": top}
    for name, verb in verbs.items():
        group, _, last = name.rpartition(" ")
        if group not in subcommands:
            parsers[group] = ArgumentParser(description=groups[group], exit_on_error=False)
            subcommands[""].add_subcommand(group, parsers[group], help=groups[group])
            subcommands[group] = parsers[group].add_subcommands(title="verbs", metavar="VERB")
        parsers[name] = _parser_of(verb)
        subcommands[group].add_subcommand(last, parsers[name], help=(verb.__doc__ or "").partition("\n")[0])
    return parsers


def _parser_of(verb: Verb) -> ArgumentParser:
    parser = ArgumentParser(description=inspect.getdoc(verb), exit_on_error=False)
    for name, parameter in _parameters(verb).items():
        kind, several, help_text = _described(verb, name)
        settings: dict[str, Any] = {"help": help_text}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            settings |= {"type": kind, "metavar": _metavar(kind, name)} | ({"nargs": "+"} if several else {})
        if several and typing.get_origin(kind) is Literal:  # jsonargparse calls the type with each word
            settings |= {"type": str, "choices": list(typing.get_args(kind))}
        if parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is not parameter.empty:
                settings |= {"nargs": "*" if several else "?", "default": parameter.default}
            parser.add_argument(name, **settings)
            continue
        if parameter.default is parameter.empty:
            settings["required"] = True
        else:
            settings["default"] = parameter.default
        if several:
            settings["action"] = "extend"
        parser.add_argument(_option(name), dest=name, **settings)
    return parser


def _metavar(kind: Any, name: str) -> str:
    choices = typing.get_args(kind)
    return "{" + ",".join(map(str, choices)) + "}" if choices else name.rstrip("_").upper()


def _parameters(verb: Verb) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(verb).parameters)


def _described(verb: Verb, name: str) -> tuple[Any, bool, str]:
    """The type of one word, whether several are taken, and the help."""
    kind, help_text = typing.get_args(typing.get_type_hints(verb, include_extras=True)[name])
    choices = [choice for choice in typing.get_args(kind) if choice is not type(None)]
    if type(None) in typing.get_args(kind):
        kind = choices[0]
    several = typing.get_origin(kind) is list
    return (typing.get_args(kind)[0] if several else kind), several, help_text


def _option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def _call(verb: Verb, values: Mapping[str, Any]) -> int | None:
    parameters = _parameters(verb)
    positional = [name for name in parameters if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    return verb(*(values[name] for name in positional), **{n: values[n] for n in parameters if n not in positional})


def _verb_in(words: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> str:
    """The verb or group a command line begins with, "" where it begins with an option; BadInput if there is none."""
    name = ""
    for word in words[:2]:
        longer = f"{name} {word}".strip()
        if longer in parsers:
            name = longer
        elif word.startswith("-") or name not in _groups_of(parsers):
            break
        else:
            known = [verb.removeprefix(f"{name} ") for verb in parsers if verb.rpartition(" ")[0] == name and verb]
            hint = suggestion(word, known) or f"; there are {', '.join(known)}"
            raise BadInput(f"there is no verb '{longer}'{hint}")
    return name


def _groups_of(parsers: Mapping[str, ArgumentParser]) -> set[str]:
    return {name.rpartition(" ")[0] for name in parsers}


def _check_options(name: str, words: Sequence[str], verb: Verb) -> None:
    """BadInput for an option that the verb has not, before the parser's own, less helpful, word on it."""
    known = [_option(parameter) for parameter in _parameters(verb)] + ["--help"]
    for word in words:
        option = word.partition("=")[0]
        if word == "--":
            return
        if option.startswith("--") and option not in known:
            hint = suggestion(option, known) or f"; it has {', '.join(known)}"
            raise BadInput(f"{name} has no option {option}{hint}")


def _in_plain_words(message: str, program: str, name: str, verb: Verb | None) -> BadInput:
    see = f"see {' '.join((program, name)).strip()} --help"
    about = re.search(r'Parser key "([\w.]+)".*Got value: (.*)', message, re.DOTALL)
    if about and verb:
        parameter = about[1].rpartition(".")[2]
        kind, _, _ = _described(verb, parameter)
        return BadInput(f"{_option(parameter)} must be {in_words(kind)}, not '{about[2].strip()}' ({see})")
    return BadInput(f"{message.replace(name.replace(' ', '.') + '.', '')} ({see})")


def _notes(error: BaseException) -> str:
    return "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
