"""Laws of configs: what is written reads back equal, mistakes are named, text becomes what a field asks for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.config import (
    changed,
    check_ranges,
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
from workings.experiment import available, load, plan


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


numbers = st.floats(allow_nan=False, allow_infinity=False)
optims = st.builds(Optim, lr=numbers, betas=st.tuples(numbers, numbers), clip=st.none() | numbers)
configs = st.builds(
    Config,
    vocabulary=st.sampled_from(["digits", "facts"]),
    optim=optims,
    probe=st.none() | optims,
    steps=st.integers(0, 10**12),
    layers=st.lists(st.integers(-(2**63) + 1, 2**63 - 1)).map(tuple),
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


@dataclass(frozen=True)
class Ranged:
    n: int = fixed(1, at_least=1)
    rate: float | None = fixed(None, above=0, at_most=0.5)
    betas: tuple[float, float] = fixed((0.9, 0.9), at_least=0, below=1)
    pairs: tuple[tuple[int, ...], ...] = fixed((), at_most=9)
    seed: int = nuisance(0)
    fast: bool = fixed(False, at_least=1)
    whole: int = fixed(1000, at_least=1)
    part: int = fixed(50, at_least=0, share_of="whole")
    free: float = 0.0

    __post_init__ = check_ranges


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("n=0", "n is 0, and must be at least 1"),
        ("n=-1", "n is -1, and must be at least 1"),
        (f"n={10**20}", f"n is {10**20}, and must be at least 1 and of 64 bits"),
        ("rate=0", "rate is 0.0, and must be above 0 and at most 0.5"),
        ("rate=.inf", "rate is inf, and must be above 0 and at most 0.5 and finite"),
        ("rate=.nan", "rate is nan, and must be above 0 and at most 0.5 and finite"),
        (f"rate={10**400}", "rate is inf, and must be"),
        ("rate=0.6", "rate is 0.6, and must be above 0 and at most 0.5"),
        ("betas=[0.5, 1.0]", "betas is (0.5, 1.0), and must be at least 0 and below 1"),
        ("pairs=[[1], [2, 10]]", "pairs is ((1,), (2, 10)), and must be at most 9"),
        (f"seed={-(2**63)}", "and must be of 64 bits"),
    ],
)
def test_a_number_outside_the_range_of_its_field_is_refused_with_the_range(setting: str, words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"field '{words.split()[0]}' " if setting[:4] != "seed" else "seed")):
        override(Ranged(), [setting])
    with pytest.raises(BadInput, match=re.escape(words.removeprefix(f"{words.split()[0]} "))):
        override(Ranged(), [setting])


@pytest.mark.parametrize("values", [{"n": 0}, {"rate": math.nan}, {"betas": (0.5, -0.1)}, {"pairs": ((99,),)}])
def test_a_config_made_in_python_is_held_to_the_same_ranges(values: dict) -> None:
    with pytest.raises(BadInput, match=f"Ranged: {next(iter(values))} is"):
        Ranged(**values)
    assert Ranged(rate=0.5, seed=-3, free=math.inf).free == math.inf, "a field without a mark allows every number"


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["whole=100"], 50),  # fits, and stays as it was
        (["whole=50"], 50),
        (["whole=40"], 2),  # its share
        (["whole=6"], 0),
        (["whole=6", "part=3"], 3),
        (["part=7"], 7),
    ],
)
def test_a_part_keeps_its_share_where_only_the_whole_is_set(settings: list[str], part: int) -> None:
    assert override(Ranged(), settings).part == part


def test_a_preset_fits_its_warm_up_to_the_steps_that_are_set_and_no_warm_up_that_was_set_itself() -> None:
    experiment = load("pretrain-gpt2")
    steps, both = ["training.steps=6"], ["training.steps=6", "training.warmup_steps=50"]
    [planned] = plan(experiment, ["mini"], overrides=steps)
    assert (planned.config.training.steps, planned.config.training.warmup_steps) == (6, 0)
    assert set(planned.departures) == {"training.steps=6", "training.warmup_steps=0"}
    assert planned.fitted == ("training.warmup_steps=0",)
    with pytest.raises(BadInput, match=r"warmup_steps = 50 is more than steps = 6: set both"):
        plan(experiment, ["mini"], overrides=both)


def test_a_part_that_a_file_sets_is_not_fitted_to_a_whole_that_a_flag_sets(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("training: {warmup_steps: 50}\n")
    with pytest.raises(BadInput, match="set both"):
        plan(load("pretrain-gpt2"), ["mini"], overrides=["training.steps=6"], config_path=tmp_path / "c.yaml")


def numeric(annotation: object) -> bool:
    return annotation in (int, float) or any(map(numeric, get_args(annotation)))


@pytest.mark.parametrize("name", available())
def test_every_number_of_an_experiment_but_a_seed_says_what_it_may_be(name: str) -> None:
    config = load(name).module.Config
    fields = {dotted: field_of(config, dotted) for dotted in names_of(config)}
    free = {dotted for dotted, (field, kind) in fields.items() if numeric(kind) and not field.metadata.get("range")}
    assert {dotted for dotted in free if "seed" not in dotted} == set()


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
