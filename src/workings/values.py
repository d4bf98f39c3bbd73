"""A value as YAML or the command line gives it → what a field's type asks for, or an error that says what that is."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from workings.errors import BadInput

C = TypeVar("C")
REQUIRED: Any = dataclasses.MISSING


def build(cls: type[C], mapping: Mapping[str, Any], where: str = "") -> C:
    """An instance of a config class; `where` is the dotted prefix under which errors name its fields."""
    annotations = typing.get_type_hints(cls)
    for name in mapping:
        if name not in annotations:
            raise unknown_field(f"{where}{name}", cls, [where + known for known in annotations])
    values = {name: _read(annotations[name], value, f"{where}{name}") for name, value in mapping.items()}
    required = [f.name for f in dataclasses.fields(cls) if f.default is REQUIRED and f.default_factory is REQUIRED]  # ty: ignore
    for name in required:
        if name not in values:
            raise BadInput(f"field '{where}{name}' of {cls.__name__} has no default: set it")
    try:
        return cls(**values)
    except ValueError as error:  # what a __post_init__ objects to is the user's to mend
        raise BadInput(f"{where.rstrip('.') or cls.__name__}: {error}") from None


def _read(annotation: Any, value: Any, where: str) -> Any:
    """`value` (from YAML or a dict) as `annotation` asks for it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):
            return value
        if isinstance(value, Mapping):
            return build(annotation, value, f"{where}.")
    elif origin is tuple and isinstance(value, list | tuple):
        return _read_tuple(annotation, arguments, value, where)
    elif origin is list and isinstance(value, list | tuple):
        return [_read(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value)]
    elif origin is dict and isinstance(value, Mapping):
        return {str(name): _read(arguments[1], one, f"{where}.{name}") for name, one in value.items()}
    elif annotation is Any:
        return value
    elif origin is Literal:
        for choice in arguments:
            if type(choice) is type(value) and choice == value:
                return value
    elif annotation in (bool, int, str, type(None)) and type(value) is annotation:
        return value
    elif annotation is float and type(value) in (int, float):
        return float(value)
    elif annotation is Path and isinstance(value, str | Path):
        return Path(value)
    raise _wrong(annotation, value, where)


def _read_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    problems = []
    for choice in choices:
        try:
            return _read(choice, value, where)
        except BadInput as problem:
            problems.append((choice, problem))
    inside = [
        problem for choice, problem in problems if dataclasses.is_dataclass(choice) and isinstance(value, Mapping)
    ]
    raise inside[0] if inside else _wrong(typing.Union[choices], value, where)  # noqa: UP007


def _read_tuple(annotation: Any, items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if len(items) == 2 and items[1] is ...:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise _wrong(annotation, value, where)
    return tuple(_read(item, one, f"{where}[{i}]") for i, (item, one) in enumerate(zip(items, value, strict=True)))


def read_text(annotation: Any, text: str, where: str) -> Any:
    """A value typed by hand: first as YAML would read it, then as plain text (a str field may be given 42)."""
    try:
        value = None if text == "None" else yaml.load(text, Loader=Loader)
        # YAML drops what follows a # in plain text; a path or a hub id must arrive as it was typed
        return _read(annotation, text if isinstance(value, str) and text[0] not in "'\"" else value, where)
    except (BadInput, yaml.YAMLError) as problem:
        try:
            return _read(annotation, text, where)
        except BadInput as plain_problem:
            raise (problem if isinstance(problem, BadInput) else plain_problem) from None


def _wrong(annotation: Any, value: Any, where: str) -> BadInput:
    hint = ""
    if typing.get_origin(annotation) is Literal:
        hint = suggestion(str(value), [str(choice) for choice in typing.get_args(annotation)])
    return BadInput(f"field '{where}' must be {in_words(annotation)}, not {value!r}{hint}")


def in_words(annotation: Any) -> str:
    """What a type asks for, as an error message says it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list of {in_words(arguments[0])}" if ... in arguments else f"a list of {len(arguments)} values"
    if origin in (list, dict):
        return f"a {'list' if origin is list else 'mapping'} of {in_words(arguments[-1])}"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        type(None): "null",
    }
    if annotation in names:
        return names[annotation]
    if dataclasses.is_dataclass(annotation):
        return f"the fields of {annotation.__name__}"
    raise TypeError(f"a config field cannot have the type {annotation}: see workings.config for those it can")


def unknown_field(name: str, cls: type, known: list[str]) -> BadInput:
    """The error for a field that a config class has not."""
    hint = suggestion(name, known) or f"; the fields are {', '.join(known)}"
    return BadInput(f"unknown field '{name}' in {cls.__name__}{hint}")


def suggestion(word: str, known: Iterable[str]) -> str:
    """What to append to an error: the known name nearest to `word`, or nothing. Dotted names are found by part too."""
    by_part = {part: name for name in reversed(list(known)) for part in (name.rsplit(".", 1)[-1], name)}
    tries = (word, word.rsplit(".", 1)[-1])
    near = [match for one in tries for match in difflib.get_close_matches(one, by_part, n=1)]
    return f" (did you mean '{by_part[near[0]]}'?)" if near else ""


class Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""


class Dumper(yaml.SafeDumper):
    """Quotes the strings that `Loader` would take for numbers."""


for _yaml in (Loader, Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
