"""Frozen dataclass ⇄ mapping ⇄ YAML ⇄ digest. An unknown field or a value of the wrong type is an error that names it.

Every field has a role (the words are those of Google's tuning playbook): *scientific* is what arms differ in,
*nuisance* is tuned alike in every arm, *fixed* (also what is not marked) never differs. A field inside a marked one
inherits its role.
Fields may be bool, int, float, str, Path, Literal, tuples, unions of these with None, and other frozen dataclasses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from workings.errors import BadInput
from workings.values import REQUIRED, Dumper, Loader, build, read_text, unknown_field

Role = Literal["scientific", "nuisance", "fixed"]
C = TypeVar("C")


def scientific(default: Any = REQUIRED, help: str = "") -> Any:
    """A field in which arms may differ."""
    return dataclasses.field(default=default, metadata={"role": "scientific", "help": help})


def nuisance(default: Any = REQUIRED, help: str = "") -> Any:
    """A field that must be set well for every arm, and the same way."""
    return dataclasses.field(default=default, metadata={"role": "nuisance", "help": help})


def fixed(default: Any = REQUIRED, help: str = "") -> Any:
    """A field that no arm changes."""
    return dataclasses.field(default=default, metadata={"role": "fixed", "help": help})


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def to_dict(config: Any) -> dict[str, Any]:
    """Nested dicts, lists and scalars, in the order of the fields."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def to_yaml(config: Any) -> str:
    """Text that `from_yaml` reads back to an equal object."""
    return yaml.dump(to_dict(config), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def leaves(config: Any) -> dict[str, Any]:
    """{dotted field: value}, groups left out; values as `to_dict` gives them."""
    return dict(_leaves(to_dict(config)))


def digest(config: Any) -> str:
    """sha256 (hex) of the values, whatever the order in which the fields are declared."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def differing(a: Any, b: Any) -> list[str]:
    """Dotted names of the fields in which two configs differ; a field only one of them has differs."""
    left, right = leaves(a), leaves(b)
    names = [*left, *(name for name in right if name not in left)]
    return [name for name in names if name not in left or name not in right or left[name] != right[name]]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
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
    return build(cls, mapping)


def from_yaml(cls: type[C], path: str | Path) -> C:
    """What `to_yaml` wrote, or a file that sets only some of the fields."""
    return from_dict(cls, read_mapping(path))


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds; BadInput where the file is missing, broken, or holds something else."""
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=Loader)
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
    return build(type(config), mapping)


def override(config: C, settings: Iterable[str]) -> C:
    """`config` after settings such as "optim.lr=3e-4"; the text is read as what the field's type says it is."""
    mapping = to_dict(config)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise BadInput(f"'{setting}' sets nothing; write field=value")
        annotation = annotation_of(type(config), name.strip())
        _set(mapping, name.strip(), _plain(read_text(annotation, text.strip(), name.strip())))
    return build(type(config), mapping)


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
            raise unknown_field(dotted, cls, names_of(cls))
        annotation = annotations[name]
        inside = _dataclass_in(annotation)
    return annotation


def _dataclass_in(annotation: Any) -> Any:
    choices = [annotation, *typing.get_args(annotation)] if typing.get_origin(annotation) is not tuple else []
    return next((choice for choice in choices if isinstance(choice, type) and dataclasses.is_dataclass(choice)), None)


def _set(mapping: dict[str, Any], dotted: str, value: Any) -> None:
    *groups, last = dotted.split(".")
    for group in groups:
        if mapping[group] is None:
            mapping[group] = {}
        mapping = mapping[group]
    mapping[last] = value
