"""Frozen dataclass ⇄ mapping ⇄ YAML ⇄ digest. An unknown field or a value of the wrong type is an error that names it.

A field is marked with its role, in the words of Google's tuning playbook: arms differ in *scientific* fields, *nuisance* fields
are tuned in the same way for every arm, *fixed* fields (also those without a mark) never differ. A field inside a marked one
inherits its role. The mark also holds the help text (a noun phrase with its unit, which `workings.cli.options` shows at the flag),
the numbers that the field allows (`at_least=1`), for a renamed field the name under which earlier configs and digests have it, and
for a part of another field (the warm-up of the steps) the name of that: where only the whole is set, and to less than the part,
the part keeps its share (`changed`).

Types: bool, int, float, str, Path, Literal, tuples, unions of these with None, other frozen dataclasses. Manifests and results,
which are read here too, may also have lists, mappings and Any. docs/decisions/0010 says why we read them ourselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import operator
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import yaml

from workings.errors import BadInput, suggestion

Role = Literal["scientific", "nuisance", "fixed"]
C = TypeVar("C")
_WORDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
_WORDS[type(None)] = "null"
REQUIRED: Any = dataclasses.MISSING


class Range(TypedDict, total=False):
    """The numbers that a field allows, each number of a list among them. They are finite, and whole ones have 64 bits."""

    at_least: float
    above: float
    at_most: float
    below: float


def scientific(
    default: Any = REQUIRED, help: str = "", formerly: str = "", share_of: str = "", **range: Unpack[Range]
) -> Any:
    """A field in which arms may differ."""
    return _marked("scientific", default, help, formerly, share_of, range)


def nuisance(
    default: Any = REQUIRED, help: str = "", formerly: str = "", share_of: str = "", **range: Unpack[Range]
) -> Any:
    """A field that is tuned for every arm, in the same way."""
    return _marked("nuisance", default, help, formerly, share_of, range)


def fixed(
    default: Any = REQUIRED, help: str = "", formerly: str = "", share_of: str = "", **range: Unpack[Range]
) -> Any:
    """A field that no arm changes."""
    return _marked("fixed", default, help, formerly, share_of, range)


def _marked(role: Role, default: Any, help: str, formerly: str, share_of: str, range: Range) -> Any:
    metadata = {"role": role, "help": help, "formerly": formerly, "share_of": share_of, "range": range}
    return dataclasses.field(default=default, metadata=metadata)


_HOLDS = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


def outside(field: dataclasses.Field[Any], value: Any) -> str:
    """What a number in `value` is and must be, in words ("is 0, and must be at least 1"); nothing where the field allows all.

    A field that carries no range in its metadata, as in a dataclass of results, allows every number.
    """
    range: Mapping[str, float] | None = field.metadata.get("range")
    if range is None:
        return ""
    for number in _numbers_in(value):
        kind, finite = (
            ("of 64 bits", abs(number) < 2**63) if isinstance(number, int) else ("finite", math.isfinite(number))
        )
        if not (finite and all(_HOLDS[bound](number, end) for bound, end in range.items())):
            words = [f"{bound.replace('_', ' ')} {end:,}" for bound, end in range.items()]
            return f"is {value}, and must be {' and '.join(words + [kind] * (not finite))}"
    return ""


def check_ranges(config: Any) -> None:
    """BadInput where a number of a config is outside the range of its field; a config class takes it as its `__post_init__`."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if complaint := outside(field, value):
            raise BadInput(f"{type(config).__name__}: {field.name} {complaint}")


def _numbers_in(value: Any) -> Iterator[float]:
    for item in value if isinstance(value, tuple | list) else (value,):
        if isinstance(item, tuple | list):
            yield from _numbers_in(item)
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield item


class Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number (YAML 1.1 wants 3.0e-4)."""


class Dumper(yaml.SafeDumper):
    """Quotes the strings that `Loader` would take for numbers, and escapes the line breaks that YAML would fold to a space."""

    def _text(self, text: str) -> yaml.Node:
        style = '"' if any(char in text for char in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, Dumper._text)


for _yaml in (Loader, Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def to_dict(config: Any, former_names: bool = False) -> dict[str, Any]:
    """Nested dicts, lists and scalars, in the order of the fields."""
    return {
        (former_names and field.metadata.get("formerly")) or field.name: _plain(
            getattr(config, field.name), former_names
        )
        for field in dataclasses.fields(config)
    }


def to_yaml(config: Any) -> str:
    """Text that `from_yaml` reads back to an equal object."""
    return yaml.dump(to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def leaves(config: Any) -> dict[str, Any]:
    """{dotted field: value} of a config or a nested mapping, groups left out; values as `to_dict` gives them."""
    flat: dict[str, Any] = {}
    for name, value in (config if isinstance(config, Mapping) else to_dict(config)).items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{below}": leaf for below, leaf in leaves(value).items()}
        else:
            flat[name] = value
    return flat


def digest(config: Any) -> str:
    """sha256 (hex) of the values, whatever the order in which fields are declared, and unchanged when one is renamed."""
    return hashlib.sha256(json.dumps(to_dict(config, former_names=True), sort_keys=True).encode()).hexdigest()


def differing(a: Any, b: Any) -> list[str]:
    """Dotted names of the fields in which two configs differ; a field only one of them has differs."""
    left, right = leaves(a), leaves(b)
    names = dict.fromkeys([*left, *right])
    return [name for name in names if left.get(name, REQUIRED) != right.get(name, REQUIRED)]


def _plain(value: Any, former_names: bool = False) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value, former_names)
    if isinstance(value, tuple | list):
        return [_plain(item, former_names) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item, former_names) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_dict(cls: type[C], mapping: Mapping[str, Any], where: str = "") -> C:
    """Read an instance of a dataclass from a mapping.

    Args:
        cls: The dataclass.
        mapping: Its fields by their present or former names; absent fields take their defaults. Fields that the class once had,
            and names in an attribute `former_fields`, are passed over, so that a record of before is read.
        where: Prefix of the field names in messages, with a dot at its end: "training.".

    Raises:
        BadInput: A field is unknown, missing or of the wrong type, or `cls` itself objects.
    """
    annotations = typing.get_type_hints(cls)
    values = {}
    for given, value in mapping.items():
        name = _present_name(cls, given)
        if given in getattr(cls, "former_fields", ()):
            continue
        if name not in annotations:
            raise _unknown(f"{where}{given}", cls, [where + known for known in annotations])
        if name in values:
            raise BadInput(f"field '{where}{name}' is named twice, also by its former name '{given}'")
        field = cls.__dataclass_fields__[name]  # ty: ignore[missing-attribute]
        values[name] = read_value(annotations[name], _said(field, value), f"{where}{name}")
        if complaint := outside(field, values[name]):
            raise BadInput(f"field '{where}{name}' {complaint}")
    for field in dataclasses.fields(cls):  # ty: ignore[invalid-argument-type]
        if field.default is REQUIRED and field.default_factory is REQUIRED and field.name not in values:
            raise BadInput(f"field '{where}{field.name}' of {cls.__name__} has no default: set it")
    try:
        return cls(**values)
    except ValueError as error:  # raised by a __post_init__ about what the user set
        raise BadInput(f"{where.rstrip('.') or cls.__name__}: {error}") from None


def _said(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value, or what null says in this field: JSON has no infinity, and a field may mark that null stands for one."""
    return field.metadata.get("null") if value is None else value


def from_yaml(cls: type[C], path: str | Path) -> C:
    """Read a file that `to_yaml` wrote, or one that sets only some of the fields."""
    return from_dict(cls, read_mapping(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; BadInput if it is missing, broken, or holds something else."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        raise BadInput(f"{path} is not YAML: {error}") from None
    except RecursionError:
        raise BadInput(f"{path} is not a config: it is nested too deeply") from None
    if not isinstance(content, dict) or not content:
        raise BadInput(f"{path} holds no fields; write one 'field: value' per line")
    return content


def changed(config: C, values: Mapping[str, Any]) -> C:
    """`config` with the dotted fields of `values` set; nested mappings set only the fields they name.

    A field that is a share of another and is not set itself shrinks with it where it would be more than that.
    """
    mapping, before = to_dict(config), {}
    for dotted, value in leaves(values).items():
        path = _path(type(config), dotted)
        *groups, last = [field.name for field, _ in path]
        inside = mapping
        for group in groups:
            inside[group] = inside[group] or {}
            inside = inside[group]
        before.setdefault((*groups, last), (inside, inside.get(last), path))
        inside[last] = value
    for (*groups, whole), (inside, was, path) in before.items():
        holder: Any = _dataclass_in(path[-2][1]) if groups else type(config)
        for field in dataclasses.fields(holder):
            if field.metadata.get("share_of") == whole and (*groups, field.name) not in before:
                inside[field.name] = _shrunk(inside[field.name], was, inside[whole])
    return from_dict(type(config), mapping)


def _shrunk(part: Any, whole: Any, new: Any) -> Any:
    """The same share of `new` as `part` is of `whole`, where `part` would be more than all of it."""
    if not (whole and type(new) in (int, float) and 0 < new < part):
        return part
    return type(part)(part * new / whole)


def several(given: str | Iterable[str]) -> list[str]:
    """Names or texts as a list: one string is one of them, where iterating over it would give its characters.

    Example:
        >>> several("block1"), several(["block1", "block2"])
        (['block1'], ['block1', 'block2'])
    """
    return [given] if isinstance(given, str) else list(given)


def settings_in(cls: type, settings: str | Iterable[str]) -> dict[str, Any]:
    """{dotted field: value} of settings such as "optim.lr=3e-4"; the text is read as what the field's type says it is."""
    values = {}
    for setting in several(settings):
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or not name:
            raise BadInput(f"'{setting}' sets nothing; write field=value")
        values[name] = _plain(read_text(field_of(cls, name)[1], text, name))
    return values


def override(config: C, settings: str | Iterable[str]) -> C:
    """`config` after settings, as `settings_in` reads them."""
    return changed(config, settings_in(type(config), settings))


def read_text(annotation: Any, text: str, where: str) -> Any:
    """Read a value typed by hand: first as YAML, then as plain text (a str field may be given 42)."""
    try:
        value = None if text == "None" else yaml.load(text, Loader=Loader)
        # YAML drops what follows a # in plain text; a path or a hub id must arrive as it was typed
        return read_value(annotation, text if isinstance(value, str) and text[0] not in "'\"" else value, where)
    except (BadInput, ValueError, RecursionError, yaml.YAMLError) as problem:  # ValueError: 2026-13-01, or 5,000 digits
        try:
            return read_value(annotation, text, where)
        except BadInput as plain_problem:
            raise (problem if isinstance(problem, BadInput) else plain_problem) from None


def read_value(annotation: Any, value: Any, where: str) -> Any:
    """Read a value, from YAML or JSON, as the type `annotation`; BadInput names the field `where`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, value, where)
    if dataclasses.is_dataclass(annotation):
        if isinstance(value, annotation):
            return value
        if isinstance(value, Mapping):
            return from_dict(annotation, value, f"{where}.")
    elif origin is tuple and isinstance(value, list | tuple):
        items = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(items) == len(value):
            return tuple(
                read_value(item, one, f"{where}[{i}]") for i, (item, one) in enumerate(zip(items, value, strict=True))
            )
    elif origin is list and isinstance(value, list | tuple):
        return [read_value(arguments[0], one, f"{where}[{i}]") for i, one in enumerate(value)]
    elif origin is dict and isinstance(value, Mapping):
        return {str(name): read_value(arguments[1], one, f"{where}.{name}") for name, one in value.items()}
    elif origin is Literal:
        if any(type(choice) is type(value) and choice == value for choice in arguments):
            return value
    elif annotation is float and type(value) in (int, float):
        return float(repr(value))  # by its digits, of which 400 are an infinity and no OverflowError
    elif annotation is Path and isinstance(value, str | Path):
        return Path(value)
    elif annotation is Any or (annotation in _WORDS and type(value) is annotation):
        return value
    raise _wrong(annotation, value, where)


def _read_union(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    inside_a_group = None
    for choice in choices:
        try:
            return read_value(choice, value, where)
        except BadInput as problem:
            if dataclasses.is_dataclass(choice) and isinstance(value, Mapping):
                inside_a_group = inside_a_group or problem
    raise inside_a_group or _wrong(typing.Union[choices], value, where)  # noqa: UP007


def role_of(cls: type, dotted: str) -> Role:
    """The role of a field: its own mark, or that of the field it lies in, or "fixed"."""
    marks = [field.metadata["role"] for field, _ in _path(cls, dotted) if "role" in field.metadata]
    return marks[-1] if marks else "fixed"


def field_of(cls: type, dotted: str) -> tuple[dataclasses.Field[Any], Any]:
    """The field under a dotted name (its help is in `metadata`) and its type; BadInput with a suggestion if there is none."""
    return _path(cls, dotted)[-1]


def names_of(cls: type) -> list[str]:
    """Every dotted field name, groups before what is in them."""
    names = []
    for name, annotation in typing.get_type_hints(cls).items():
        inner = _dataclass_in(annotation)
        names += [name, *(f"{name}.{below}" for below in (names_of(inner) if inner else []))]
    return names


def _path(cls: type, dotted: str) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Field and type at each part of a dotted name."""
    path: list[tuple[dataclasses.Field[Any], Any]] = []
    inside: Any = cls
    for part in dotted.split("."):
        fields = {field.name: field for field in dataclasses.fields(inside)} if inside else {}
        name = _present_name(inside, part) if inside else part
        if name not in fields:
            raise _unknown(dotted, cls, names_of(cls))
        annotation = typing.get_type_hints(inside)[name]
        path.append((fields[name], annotation))
        inside = _dataclass_in(annotation)
    return path


def _present_name(cls: Any, name: str) -> str:
    return next((field.name for field in dataclasses.fields(cls) if field.metadata.get("formerly") == name), name)


def _dataclass_in(annotation: Any) -> Any:
    choices = [annotation, *typing.get_args(annotation)] if typing.get_origin(annotation) is not tuple else []
    return next((choice for choice in choices if isinstance(choice, type) and dataclasses.is_dataclass(choice)), None)


def _wrong(annotation: Any, value: Any, where: str) -> BadInput:
    choices = (
        [str(choice) for choice in typing.get_args(annotation)] if typing.get_origin(annotation) is Literal else []
    )
    return BadInput(f"field '{where}' must be {in_words(annotation)}, not {value!r}{suggestion(str(value), choices)}")


def in_words(annotation: Any) -> str:
    """A type in the words of an error message: "a whole number"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(in_words(choice) for choice in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple and ... not in arguments:
        return f"a list of {len(arguments)} values"
    if origin in (tuple, list, dict):
        return f"a mapping of {in_words(arguments[1])}" if origin is dict else f"a list of {in_words(arguments[0])}"
    if annotation in _WORDS:
        return _WORDS[annotation]
    if dataclasses.is_dataclass(annotation):
        return f"the fields of {annotation.__name__}"
    raise TypeError(f"a config field cannot have the type {annotation}: see workings.config for those it can")


def _unknown(name: str, cls: type, known: list[str]) -> BadInput:
    hint = suggestion(name, known) or f"; the fields are {', '.join(known)}"
    return BadInput(f"unknown field '{name}' in {cls.__name__}{hint}")
