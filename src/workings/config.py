"""Frozen dataclass ⇄ mapping ⇄ YAML ⇄ digest. An unknown field or a value of the wrong type is an error that names it.

Every field has a role (the words are those of Google's tuning playbook): *scientific* is what arms differ in,
*nuisance* is tuned alike in every arm, *fixed* (also what is not marked) never differs. A field inside a marked one
inherits its role.
Fields may be bool, int, float, str, Path, Literal, tuples, unions of these with None, and other frozen dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from workings.errors import BadInput

Role = Literal["scientific", "nuisance", "fixed"]
C = TypeVar("C")
_REQUIRED: Any = dataclasses.MISSING


def scientific(default: Any = _REQUIRED, help: str = "") -> Any:
    """A field in which arms may differ."""
    return dataclasses.field(default=default, metadata={"role": "scientific", "help": help})


def nuisance(default: Any = _REQUIRED, help: str = "") -> Any:
    """A field that must be set well for every arm, and the same way."""
    return dataclasses.field(default=default, metadata={"role": "nuisance", "help": help})


def fixed(default: Any = _REQUIRED, help: str = "") -> Any:
    """A field that no arm changes."""
    return dataclasses.field(default=default, metadata={"role": "fixed", "help": help})


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dicts, lists and scalars, in the order of the fields."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def to_yaml(config: Any) -> str:
    """Text that `from_yaml` reads back to an equal object."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def digest(config: Any) -> str:
    """sha256 (hex) of the values, whatever the order in which the fields are declared."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def differing(a: Any, b: Any) -> list[str]:
    """Dotted names of the fields in which two configs differ; a field only one of them has differs."""
    left, right = dict(_leaves(to_dict(a))), dict(_leaves(to_dict(b)))
    names = [*left, *(name for name in right if name not in left)]
    return [name for name in names if name not in left or name not in right or left[name] != right[name]]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _leaves(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# ── in ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def from_dict(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """An instance of `cls`; absent fields take their defaults. BadInput names what is unknown, missing or ill-typed."""
    return _build(cls, mapping, "")


def from_yaml(cls: type[C], path: str | Path) -> C:
    """What `to_yaml` wrote, or a file that sets only some of the fields."""
    return from_dict(cls, read_mapping(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds; BadInput where the file is missing, broken, or holds something else."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not content:
        raise BadInput(f"{path} holds no fields; write one 'field: value' per line")
    return content


def changed(config: C, values: Mapping[str, Any]) -> C:
    """`config` with the dotted fields of `values` set; nested mappings set only the fields they name."""
    mapping = to_dict(config)
    for name, value in _leaves(values):
        annotation_of(type(config), name)
        _set(mapping, name, value)
    return _build(type(config), mapping, "")


def override(config: C, settings: Iterable[str]) -> C:
    """`config` after settings such as "optim.lr=3e-4"; the text is read as what the field's type says it is."""
    mapping = to_dict(config)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(f"'{setting}' sets nothing; write field=value")
        annotation = annotation_of(type(config), name.strip())
        _set(mapping, name.strip(), _plain(_read_text(annotation, text.strip(), name.strip())))
    return _build(type(config), mapping, "")


# ── about a class of configs ─────────────────────────────────────────────────────────────────────────────────────────


def role_of(cls: type, dotted: str) -> Role:
    """The role of a field: its own mark, or that of the field it lies in, or "fixed"."""
    role: Role = "fixed"
    inside: Any = cls
    for name in dotted.split("."):
        field = {field.name: field for field in dataclasses.fields(inside)}[name]
        role = field.metadata.get("role", role)
        inside = _dataclass_in(typing.get_type_hints(inside)[name])
    return role


def names_of(cls: type) -> list[str]:
    """Every dotted field name, groups before what is in them."""
    names = []
    for name, annotation in typing.get_type_hints(cls).items():
        inner = _dataclass_in(annotation)
        names += [name, *(f"{name}.{below}" for below in (names_of(inner) if inner else []))]
    return names


def annotation_of(cls: type, dotted: str) -> Any:
    """The declared type of a field; BadInput with a suggestion where there is no such field."""
    inside: Any = cls
    for name in dotted.split("."):
        annotations = typing.get_type_hints(inside) if inside else {}
        if name not in annotations:
            raise _unknown(dotted, cls, names_of(cls))
        annotation = annotations[name]
        inside = _dataclass_in(annotation)
    return annotation


def suggestion(word: str, known: Iterable[str]) -> str:
    """What to append to an error: the known name nearest to `word`, or nothing. Dotted names are found by part too."""
    by_part = {part: name for name in known for part in (name.rsplit(".", 1)[-1], name)}
    near = difflib.get_close_matches(word, by_part, n=1) or difflib.get_close_matches(
        word.rsplit(".", 1)[-1], by_part, n=1
    )
    return f" (did you mean '{by_part[near[0]]}'?)" if near else ""


# ── reading values ───────────────────────────────────────────────────────────────────────────────────────────────────


def _unknown(name: str, cls: type, known: list[str]) -> BadInput:
    hint = suggestion(name, known) or f"; the fields are {', '.join(known)}"
    return BadInput(f"unknown field '{name}' in {cls.__name__}{hint}")


def _set(mapping: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, last = dotted.split(".")
    for group in groups:
        if mapping[group] is None:
            mapping[group] = {}
        mapping = mapping[group]
    mapping[last] = value


def _build(cls: type[C], mapping: Mapping[str, Any], where: str) -> C:
    annotations = typing.get_type_hints(cls)
    for name in mapping:
        if name not in annotations:
            raise _unknown(f"{where}{name}", cls, [where + known for known in annotations])
    values = {name: _read(annotations[name], value, f"{where}{name}") for name, value in mapping.items()}
    required = [f.name for f in dataclasses.fields(cls) if f.default is _REQUIRED and f.default_factory is _REQUIRED]  # ty: ignore
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
            return _build(annotation, value, f"{where}.")
    elif origin is tuple and isinstance(value, list | tuple):
        return _read_tuple(annotation, arguments, value, where)
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


def _read_text(annotation: Any, text: str, where: str) -> Any:
    """A value typed by hand: first as YAML would read it, then as plain text (a str field may be given 42)."""
    try:
        return _read(annotation, None if text == "None" else yaml.load(text, Loader=_Loader), where)
    except (BadInput, yaml.YAMLError) as problem:
        try:
            return _read(annotation, text, where)
        except BadInput as plain_problem:
            raise (problem if isinstance(problem, BadInput) else plain_problem) from None


def _wrong(annotation: Any, value: Any, where: str) -> BadInput:
    hint = ""
    if typing.get_origin(annotation) is Literal:
        hint = suggestion(str(value), [str(choice) for choice in typing.get_args(annotation)])
    return BadInput(f"field '{where}' must be {_in_words(annotation)}, not {value!r}{hint}")


def _in_words(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list of {_in_words(arguments[0])}" if ... in arguments else f"a list of {len(arguments)} values"
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


def _dataclass_in(annotation: Any) -> Any:
    choices = [annotation, *typing.get_args(annotation)] if typing.get_origin(annotation) is not tuple else []
    return next((choice for choice in choices if isinstance(choice, type) and dataclasses.is_dataclass(choice)), None)


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would take for numbers."""


for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )
