"""Laws of configs: what is written reads back equal, mistakes are named, text becomes what a field asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.config import (
    changed,
    differing,
    digest,
    field_of,
    fixed,
    from_dict,
    leaves,
    names_of,
    nuisance,
    override,
    read_mapping,
    role_of,
    scientific,
    to_dict,
    to_yaml,
)
from workings.errors import BadInput
from workings.experiment import available, load


@dataclass(frozen=True)
class Optim:
    lr: float = nuisance(1e-3)
    betas: tuple[float, float] = nuisance((0.9, 0.999))
    clip: float | None = fixed(1.0)


@dataclass(frozen=True)
class Config:
    vocabulary: Literal["digits", "facts"] = scientific("digits")
    optim: Optim = nuisance(Optim())
    probe: Optim | None = scientific(None)
    steps: int = fixed(100)
    layers: tuple[int, ...] = fixed(())
    note: str = ""
    path: Path | None = None
    fast: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must not be negative, and {self.steps} is")


numbers = st.floats(allow_nan=False)
optims = st.builds(Optim, lr=numbers, betas=st.tuples(numbers, numbers), clip=st.none() | numbers)
configs = st.builds(
    Config,
    vocabulary=st.sampled_from(["digits", "facts"]),
    optim=optims,
    probe=st.none() | optims,
    steps=st.integers(0, 10**12),
    layers=st.lists(st.integers()).map(tuple),
    note=st.text(st.characters(exclude_categories=["Cs"]))
    | st.sampled_from(["null", "3e-4", "1:30", "no", "2026-01-01", "~", "\x85", "a\u2028b"]),
    path=st.none() | st.sampled_from([Path("a/b"), Path("1e5"), Path("null")]),
    fast=st.booleans(),
)


@given(configs)
def test_a_config_written_as_yaml_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Config) -> None:
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert from_dict(Config, read_mapping(file)) == config
    assert from_dict(Config, to_dict(config)) == config


@given(configs, configs)
def test_the_digest_tells_configs_apart_exactly_as_the_differing_fields_do(a: Config, b: Config) -> None:
    assert (digest(a) == digest(b)) == (differing(a, b) == [])
    assert digest(a) == digest(from_dict(Config, to_dict(a)))


@given(configs, configs)
def test_setting_the_differing_fields_turns_one_config_into_the_other(a: Config, b: Config) -> None:
    if (a.probe is None) == (b.probe is None):
        assert changed(a, {name: leaves(b)[name] for name in differing(a, b)}) == b


def test_differing_names_the_fields_with_dots() -> None:
    a = Config()
    b = replace(a, steps=7, optim=replace(a.optim, lr=0.5), probe=Optim())
    assert differing(a, a) == []
    assert differing(a, b) == ["optim.lr", "probe", "steps", "probe.lr", "probe.betas", "probe.clip"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"stepz": 1}, "unknown field 'stepz' in Config (did you mean 'steps'?)"),
        ({"optim": {"lrr": 1}}, "unknown field 'optim.lrr' in Optim (did you mean 'optim.lr'?)"),
        ({"qqq": 1}, "unknown field 'qqq' in Config; the fields are vocabulary, optim, probe, steps"),
        ({"steps": 1.5}, "field 'steps' must be a whole number, not 1.5"),
        ({"steps": True}, "field 'steps' must be a whole number, not True"),
        ({"optim": {"lr": "fast"}}, "field 'optim.lr' must be a number, not 'fast'"),
        ({"optim": {"clip": "no"}}, "field 'optim.clip' must be a number or null, not 'no'"),
        ({"optim": {"betas": [0.9]}}, "field 'optim.betas' must be a list of 2 values, not [0.9]"),
        ({"layers": ["a"]}, "field 'layers[0]' must be a whole number, not 'a'"),
        (
            {"vocabulary": "digitz"},
            "field 'vocabulary' must be one of digits, facts, not 'digitz' (did you mean 'digits'?)",
        ),
        ({"probe": {"lr": []}}, "field 'probe.lr' must be a number, not []"),
        ({"optim": 3}, "field 'optim' must be the fields of Optim, not 3"),
        ({"steps": -1}, "Config: steps must not be negative, and -1 is"),
    ],
)
def test_a_mistake_is_named_with_its_place(mapping: dict, message: str) -> None:
    with pytest.raises(BadInput) as mistake:
        from_dict(Config, mapping)
    assert message in str(mistake.value)


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("optim.lr=3e-4", "optim.lr", 3e-4),
        ("optim.lr=1", "optim.lr", 1.0),
        ("optim.clip=null", "optim.clip", None),
        ("optim.clip=None", "optim.clip", None),
        ("layers=[1, 2]", "layers", [1, 2]),
        ("steps=7", "steps", 7),
        ("fast=true", "fast", True),
        ("note=42", "note", "42"),
        ("note=yes", "note", "yes"),
        ("note=a: b # c", "note", "a: b # c"),
        ("note='quoted'", "note", "quoted"),
        ("note=", "note", ""),
        ("note=x=y", "note", "x=y"),
        ("path=~/data", "path", "~/data"),
        ("vocabulary=facts", "vocabulary", "facts"),
        ("probe.lr=2", "probe.lr", 2.0),
    ],
)
def test_an_override_is_read_as_its_field_asks(setting: str, field: str, value: object) -> None:
    assert leaves(override(Config(), [setting]))[field] == value
    assert type(leaves(override(Config(), [setting]))[field]) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "'steps' sets nothing; write field=value"),
        ("lr=1", "unknown field 'lr' in Config (did you mean 'optim.lr'?)"),
        ("steps=many", "field 'steps' must be a whole number, not 'many'"),
        ("steps.more=1", "unknown field 'steps.more'"),
    ],
)
def test_a_mistaken_override_is_refused(setting: str, message: str) -> None:
    with pytest.raises(BadInput) as mistake:
        override(Config(), [setting])
    assert message in str(mistake.value)


def test_overrides_are_checked_together() -> None:
    @dataclass(frozen=True)
    class Range:
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    Range.__annotations__.update(low=int, high=int)
    assert override(Range(), ["low=5", "high=9"]) == Range(5, 9)
    with pytest.raises(BadInput, match="low is above high"):
        override(Range(), ["low=5"])


def test_a_field_inside_a_marked_one_inherits_its_role() -> None:
    assert role_of(Config, "vocabulary") == "scientific"
    assert role_of(Config, "probe") == "scientific"
    assert role_of(Config, "probe.clip") == "fixed"  # its own mark wins
    assert role_of(Config, "optim.lr") == "nuisance"
    assert role_of(Config, "note") == "fixed"


def test_a_partial_file_takes_defaults_for_the_rest(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("steps: 5\noptim: {lr: 3e-4}\n")
    assert from_dict(Config, read_mapping(tmp_path / "c.yaml")) == Config(steps=5, optim=Optim(lr=3e-4))


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "holds no fields"), ("- 1\n", "holds no fields"), ("a: [1\n", "is not YAML"), (None, "cannot read")],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadInput) as mistake:
        from_dict(Config, read_mapping(file))
    assert message in str(mistake.value)
    assert str(file) in str(mistake.value)


def test_a_field_without_default_must_be_set() -> None:
    with pytest.raises(BadInput, match="field 'must' of Needy has no default"):
        from_dict(Needy, {})
    assert from_dict(Needy, {"must": 1}).must == 1
    assert names_of(Needy) == ["must", "optim", "optim.lr", "optim.betas", "optim.clip"]


def test_a_renamed_field_keeps_the_digest_and_is_read_by_its_former_name() -> None:
    assert digest(Renamed(Renamed.Inner(7))) == digest(Earlier(Earlier.Inner(7)))
    for mapping in ({"inner": {"n_items": 7}}, {"inner": {"items": 7}}, {"part": {"items": 7}}):
        assert from_dict(Renamed, mapping) == changed(Renamed(), mapping) == Renamed(Renamed.Inner(7))
    assert (
        override(Renamed(), ["part.items=7"]) == override(Renamed(), ["inner.n_items=7"]) == Renamed(Renamed.Inner(7))
    )
    assert to_dict(Renamed()) == {"inner": {"n_items": 1}}
    with pytest.raises(BadInput, match="named twice"):
        from_dict(Renamed, {"inner": {"n_items": 1, "items": 2}})


@dataclass(frozen=True)
class Earlier:
    @dataclass(frozen=True)
    class Inner:
        items: int = fixed(1)

    part: Earlier.Inner = Inner()


@dataclass(frozen=True)
class Renamed:
    @dataclass(frozen=True)
    class Inner:
        n_items: int = fixed(1, formerly="items")

    inner: Renamed.Inner = fixed(Inner(), formerly="part")


@dataclass(frozen=True)
class Needy:
    must: int = scientific()
    optim: Optim = Optim()


@pytest.mark.parametrize("name", available())
def test_every_field_of_an_experiment_says_what_it_is(name: str) -> None:
    config = load(name).module.Config
    helps = {field: field_of(config, field)[0].metadata.get("help", "") for field in names_of(config)}
    assert [field for field, text in helps.items() if len(text.split()) < 2 or text.split()[0] in ("of", "at")] == []


def test_a_field_that_a_config_once_had_is_passed_over_and_no_other() -> None:
    @dataclass(frozen=True)
    class Later:
        rate: float = 1.0
        former_fields = ("bundle",)

    assert from_dict(Later, {"rate": 2.0, "bundle": "a/folder"}) == Later(2.0)
    for name in ("bundles", "former_fields"):
        with pytest.raises(BadInput, match=name):
            from_dict(Later, {name: "a/folder"})
