"""Outcomes of several runs → the differences between them, example by example; runs that cannot be compared are refused.

Runs are compared pair by pair on the same examples. They may differ in scientific fields and the seed alone, and must be matched
in cost, where they record it (parameters, steps, raw text). The examples of one pair of runs tell about these two models; a
claim about the arms takes several training seeds. Pairs of runs are one family of tests and pairs of arms another: each
interval is shown at the level that Holm gives it, and so agrees with its p and with what is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
import polars as pl

from workings.config import differing, read_mapping, role_of
from workings.errors import BadInput
from workings.judging.arms import (
    CONDITION,
    Cost,
    difference_over_seeds,
    paired_runs,
    refuse_unmatched,
    unpaired_seeds,
)
from workings.judging.paired import PairedDifference, with_holm
from workings.judging.statistics import (
    ONE_SEED,
    Interval,
    minimum_detectable_difference,
    p_in_words,
)
from workings.report.wording import interval, number
from workings.run import RunRecord


@dataclass(frozen=True)
class RunPair:
    """Two runs on one frame of outcomes (and condition, "" where it has none); `difference` is b − a, over items only."""

    outcomes: str
    condition: str
    a: RunRecord
    b: RunRecord
    difference: PairedDifference

    @property
    def subject(self) -> str:
        """Which outcomes of which arms this is about; of which runs, where both are of one arm."""
        a, b = self.a.manifest.arm, self.b.manifest.arm
        return _subject(self.outcomes, self.condition, *((a, b) if a != b else (self.a.path.name, self.b.path.name)))

    @property
    def p_holm(self) -> float:
        """p, adjusted for all pairs of runs in the comparison."""
        assert self.difference.p_holm is not None
        return self.difference.p_holm

    @property
    def detectable(self) -> float:
        """The smallest difference that these examples show with 80 % power, as a fraction.

        NaN if there is none, or where examples share structures, for it is McNemar's power.
        """
        one = self.difference
        if one.test != "exact McNemar":
            return float("nan")
        discordant = ((one.n_only_treatment or 0) + (one.n_only_baseline or 0)) / one.n_items
        return minimum_detectable_difference(one.n_items, one.baseline, discordant=discordant)

    @property
    def finding(self) -> str:
        """The conclusion that the p-value allows."""
        return p_in_words(self.p_holm, self.b.manifest.arm if self.difference.difference > 0 else self.a.manifest.arm)

    def text(self) -> str:
        """One line with all numbers."""
        one = self.difference
        found = self.finding + " on these examples" * one.differs
        # Nothing where no difference is so large that these few examples would show it.
        power = "" if np.isnan(self.detectable) else f" (80 % power for {number(self.detectable, 'share')} points)"
        return (
            f"{self.subject} (seeds {self.a.manifest.seed}, {self.b.manifest.seed}): "
            f"{number(one.baseline, 'share')} % → {number(one.treatment, 'share')} %, "
            f"difference {one.in_points}, n = {one.n_items:,} paired; "
            f"right in only one: {one.n_only_baseline} and {one.n_only_treatment}, {_test(one)}: {found}{power}"
        )

    def row(self) -> dict[str, str | int | float | None]:
        """The pair as a row of `Comparison.table`."""
        one, a, b = self.difference, self.a.manifest, self.b.manifest
        return {
            "outcomes": self.outcomes,
            "condition": self.condition,
            "a": self.a.path.name,
            "b": self.b.path.name,
            "arm_a": a.arm,
            "arm_b": b.arm,
            "seed_a": a.seed,
            "seed_b": b.seed,
            "n": one.n_items,
            "accuracy_a": one.baseline,
            "accuracy_b": one.treatment,
            "difference": one.difference,
            "low": one.interval.low,
            "high": one.interval.high,
            "only_a": one.n_only_baseline,
            "only_b": one.n_only_treatment,
            "p": one.p,
            "p_holm": one.p_holm,
            "detectable": self.detectable,
        }


@dataclass(frozen=True)
class ArmPair:
    """Two arms over the seeds that both have; `difference` is b − a, and its interval says what it covers."""

    outcomes: str
    condition: str
    arm_a: str
    arm_b: str
    difference: PairedDifference

    def text(self) -> str:
        """One line with all numbers."""
        one = self.difference
        found = "the arms differ" if one.differs else "no evidence of a difference between the arms"
        return (
            f"{_subject(self.outcomes, self.condition, self.arm_a, self.arm_b)}, over {one.n_seeds} paired seeds: "
            f"difference {one.in_points} ({one.interval.covers}), {_test(one)}: {found}"
        )


@dataclass(frozen=True)
class Comparison:
    """The differences between runs.

    Attributes:
        pairs: Every pair of runs, frame of outcomes and condition.
        arms: Every pair of arms with several seeds in common.
        costs: The cost of each run that recorded it.
        warnings: Limits of the comparison, such as a single seed.
    """

    pairs: tuple[RunPair, ...]
    arms: tuple[ArmPair, ...]
    costs: tuple[tuple[RunRecord, Cost], ...]
    warnings: tuple[str, ...]

    @property
    def table(self) -> pl.DataFrame:
        """`pairs` as a frame, one row each. Differences are b − a, as fractions; `low` and `high` cover items only.

        They agree with `p_holm`; `p` is each test's by itself.
        """
        return pl.DataFrame([pair.row() for pair in self.pairs])

    def text(self) -> str:
        """One line a comparison, then `beside`."""
        return "\n".join([*(pair.text() for pair in self.pairs), *self.beside()])

    def beside(self) -> list[str]:
        """The arms' lines over seeds, what runs cost, then the warnings."""
        lines = [pair.text() for pair in self.arms] + [cost.text(record) for record, cost in self.costs]
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings)]


def compare(
    records: Sequence[RunRecord],
    config_class: type | None = None,
    outcomes: str | Sequence[str] | None = None,
) -> Comparison:
    """Compare finished runs of one experiment, pair by pair, on the same examples.

    Arms with a common seed are paired by seed; runs of a single arm are compared with each other. n counts examples, or
    structures where the outcomes name them and examples share them.

    Args:
        records: Two finished runs or more.
        config_class: The experiment's `Config`, which marks its scientific fields: only in these, and in the seed, may
            runs differ. Without it they may differ in the seed alone.
        outcomes: One frame of outcomes or several; by default all that the runs share and that have a column `correct`.

    Raises:
        BadInput: Where runs are unfinished, not matched, or did not judge the same examples, or where `correct` holds
            anything but right and wrong.

    >>> import tempfile
    >>> from workings.config import scientific
    >>> from workings.run import Run
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     vocabulary: str = scientific("digits")
    ...     seed: int = 0
    >>> def finished(arm, correct, root):
    ...     with Run.start(root, "facts", arm, 0, Config(arm)) as run:
    ...         _ = run.outcomes("gsm8k", pl.DataFrame({"problem": range(len(correct)), "correct": correct}))
    ...     return RunRecord(run.path)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     runs = [finished("digits", [False] * 6 + [True] * 2, root), finished("facts", [True] * 8, root)]
    ...     found = compare(runs, Config)
    >>> found.table.select("arm_a", "arm_b", "difference", "only_a", "only_b", "p").row(0)
    ('digits', 'facts', 0.75, 0, 6, 0.03125)
    """
    pairs = _pairs(records)
    for a, b in pairs:
        _refuse_unmatched_configs(a, b, config_class)
        refuse_unmatched(a, b)
    names = [outcomes] if isinstance(outcomes, str) else outcomes or shared_outcomes(records)
    found = []
    for name, (a, b) in product(names, pairs):
        for (condition,), rows in paired_runs(name, a, b).group_by(CONDITION, maintain_order=True):
            difference = difference_over_seeds([rows.rename({"a": "b", "b": "a"})])
            found.append(RunPair(name, str(condition), a, b, difference))
    adjusted = with_holm([pair.difference for pair in found])
    arms = list(_over_seeds(names, pairs))
    arms = [
        replace(arm, difference=one) for arm, one in zip(arms, with_holm([a.difference for a in arms]), strict=True)
    ]
    compared = list({record.path: record for pair in pairs for record in pair}.values())
    costs = tuple((record, cost) for record in compared if (cost := Cost.of(record)) is not None)
    return Comparison(
        tuple(replace(pair, difference=one) for pair, one in zip(found, adjusted, strict=True)),
        tuple(arms),
        costs,
        tuple(_warnings(records, pairs, compared, len(costs))),
    )


def shared_outcomes(records: Sequence[RunRecord]) -> list[str]:
    """Names of the frames of right and wrong answers that all the runs have; BadInput where there is none."""
    held = [set(record.names("outcomes", ".parquet")) for record in records]
    judged = [name for name in sorted(set.intersection(*held)) if "correct" in records[0].outcomes(name).columns]
    if not judged:
        raise BadInput(f"no outcomes with a column 'correct' that all {len(records)} runs share")
    return judged


def _pairs(records: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    if len(records) < 2:
        raise BadInput("a comparison takes two finished runs or more")
    for record in records:
        if record.status != "finished":
            raise BadInput(f"{record.path} is {record.status}, not finished: resume it, or leave it out")
    pairs = list(combinations(records, 2))
    across = [(a, b) for a, b in pairs if a.manifest.arm != b.manifest.arm]
    matched = [(a, b) for a, b in across if a.manifest.seed == b.manifest.seed]
    return matched or across or pairs


def _refuse_unmatched_configs(a: RunRecord, b: RunRecord, config_class: type | None) -> None:
    if a.manifest.experiment != b.manifest.experiment:
        raise BadInput(f"{a.path} and {b.path} are runs of different experiments")
    if config_class is None:
        one, other = (read_mapping(record.file("config.yaml")) for record in (a, b))
        different = [name for name in one | other if one.get(name) != other.get(name)]
    else:
        found = differing(a.config(config_class), b.config(config_class))
        different = [name for name in found if role_of(config_class, name) != "scientific"]
    if unmatched := [name for name in different if name != "seed"]:
        raise BadInput(
            f"{a.path} and {b.path} differ in {', '.join(unmatched)}, which the experiment does not mark scientific: "
            "compare runs that are matched in everything else"
        )


def _over_seeds(names: Sequence[str], pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Iterator[ArmPair]:
    """The difference of every two arms with several seeds in common."""
    matched: dict[tuple[str, str], list[tuple[RunRecord, RunRecord]]] = {}
    for a, b in pairs:
        if a.manifest.seed == b.manifest.seed and a.manifest.arm != b.manifest.arm:
            a, b = (b, a) if (b.manifest.arm, a.manifest.arm) in matched else (a, b)
            matched.setdefault((a.manifest.arm, b.manifest.arm), []).append((a, b))
    # Two runs of one arm and seed are no two seeds.
    several = {arms: some for arms, some in matched.items() if 1 < len(some) == len({a.manifest.seed for a, _ in some})}
    for name in names:
        for (arm_a, arm_b), some in several.items():
            paired = pl.concat([paired_runs(name, b, a).with_columns(seed=pl.lit(a.manifest.seed)) for a, b in some])
            for (condition,), rows in paired.group_by(CONDITION, maintain_order=True):
                difference = difference_over_seeds(rows.partition_by("seed", maintain_order=True))
                yield ArmPair(name, str(condition), arm_a, arm_b, difference)


def _warnings(
    records: Sequence[RunRecord],
    pairs: Sequence[tuple[RunRecord, RunRecord]],
    compared: Sequence[RunRecord],
    n_costs: int,
) -> Iterator[str]:
    if len({record.manifest.seed for record in compared}) == 1:
        yield ONE_SEED
    if any(a.manifest.arm != b.manifest.arm and a.manifest.seed != b.manifest.seed for a, b in pairs):
        yield "No seed is common to the arms: every run is compared with those of the other arms, and no seeds are paired."
    else:
        yield from unpaired_seeds(records)
    if changed := sorted({name for a, b in pairs for name in _changed_inputs(a, b)}):
        yield f"What the runs read was not the same: {', '.join(changed)} changed in content between them."
    if 0 < n_costs < len(compared):
        yield "Some of the runs record no cost, so nothing says that they are matched in it."
    if len({(record.manifest.commit, record.manifest.diff_digest) for record in compared}) > 1:
        yield "The runs were made by different versions of the code."


def _changed_inputs(a: RunRecord, b: RunRecord) -> list[str]:
    """Names of what both runs read from one place with different content."""
    one, other = a.manifest, b.manifest
    return [
        name
        for name, place in one.input_places.items()
        if other.input_places.get(name) == place and one.inputs.get(name) != other.inputs.get(name)
    ]


# ---- words -------------------------------------------------------------------------------------------------------


def _subject(outcomes: str, condition: str, a: str, b: str) -> str:
    return f"{outcomes} {condition}".rstrip() + f", {a} → {b}"


def _brackets(found: Interval) -> str:
    return interval(found.low, found.high, "share")


def _p(p: float | None) -> str:
    assert p is not None
    return f"= {number(p)}" if p >= 0.0005 else "< 0.001"


def _test(one: PairedDifference) -> str:
    """The test and the p that go with the interval shown: "McNemar p = 0.143", or Holm's of several comparisons."""
    name = one.test.removeprefix("exact ")
    family = f", Holm's of {one.n_family} comparisons" if one.n_family > 1 else ""
    return f"{name} p {_p(one.p if one.p_holm is None else one.p_holm)}{family}"
