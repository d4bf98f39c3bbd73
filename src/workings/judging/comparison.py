"""Outcomes of several runs → what differs between them, example by example; runs that cannot be compared are refused.

Two runs are compared on the same examples and may differ in scientific fields (and the seed) alone; where they record what
they cost, they must have the same parameters and steps and have read the same raw text. What the examples say (McNemar,
paired bootstrap) is about these two runs; what holds for their arms takes several seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from workings.config import differing, read_mapping, role_of
from workings.errors import BadInput
from workings.judging.costs import costs, in_words, refuse_unmatched
from workings.judging.statistics import (
    ALPHA,
    Interval,
    ProblemSums,
    evidence,
    fisher,
    holm,
    mcnemar,
    minimum_detectable_difference,
    newcombe,
    not_certain,
    percentile,
    seeds_and_items,
    t_interval,
    wilson,
)
from workings.report.wording import interval, number
from workings.run import Manifest

ID_COLUMNS = ("problem", "example", "id")
CONDITION = "condition"  # several judgements of one example are told apart by it, and compared one by one
ONE_SEED = "One training seed: the intervals are items only and say nothing about the method."


class Record(Protocol):
    """What is needed of a `RunRecord`."""

    path: Path
    manifest: Manifest

    @property
    def status(self) -> str: ...
    def config(self, cls: type, /) -> Any: ...
    def outcomes(self, name: str, /) -> pl.DataFrame: ...
    def result(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class Comparison:
    """`table`: one row a pair of runs and outcome. `over_seeds`: one row a pair of arms with several seeds in common.

    Differences are b − a in fractions. In `table`, `low` and `high` are items only; p is exact (McNemar), p_holm
    adjusted for all pairs; `detectable` is the smallest difference that these examples show four times in five. In
    `over_seeds`, `covers` says what the interval holds for. `costs`: one row a run that recorded what it cost.
    """

    table: pl.DataFrame
    over_seeds: pl.DataFrame
    costs: pl.DataFrame
    warnings: tuple[str, ...]

    def text(self) -> str:
        """One line a comparison, then what is said beside them."""
        return "\n".join([*map(_in_words, self.table.iter_rows(named=True)), *self.beside()])

    def beside(self) -> list[str]:
        """The arms' lines over seeds, what runs cost, then the warnings."""
        lines = [_over_seeds_in_words(row) for row in self.over_seeds.iter_rows(named=True)]
        lines += [in_words(row) for row in self.costs.iter_rows(named=True)]
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings)]


def compare(
    records: Sequence[Record],
    config_class: type | None = None,
    outcomes: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Arms with one seed are paired; runs of a single arm are compared with each other.

    `config_class` (the experiment's `Config`) says which fields are scientific; without it no field but the seed may
    differ. `outcomes` names one frame or several; by default all that the runs share and that have a column `correct`.
    """
    pairs = _pairs(records)
    for a, b in pairs:
        _refuse_unless_alike(a, b, config_class)
        refuse_unmatched(a, b)
    names = [outcomes] if isinstance(outcomes, str) else outcomes or shared_outcomes(records)
    rows = [row for name in names for a, b in pairs for row in _compared(name, a, b, seed)]
    adjusted = holm([row["p"] for row in rows])
    table = pl.DataFrame(rows).with_columns(pl.Series("p_holm", adjusted, dtype=pl.Float64))
    over_seeds = _over_seeds(names, pairs)
    warnings = (*_warnings(pairs), *_each_by_itself(over_seeds))
    return Comparison(table, over_seeds, costs(_records(pairs)), warnings)


def shares_in_words(k1: int, n1: int, k2: int, n2: int, names: tuple[str, str] = ("the first", "the second")) -> str:
    """k1 of n1 against k2 of n2, independent samples, of which nothing but the counts is known: one sentence.

    Wilson's intervals, Newcombe's of the difference, Fisher's exact p. Runs whose examples are kept say more: `compare`.
    """
    shares = [f"{number(k / n, 'share')} % {interval(*_ends(wilson(k, n)), 'share')}" for k, n in ((k1, n1), (k2, n2))]
    difference, p = k1 / n1 - k2 / n2, fisher(k1, n1, k2, n2)
    return (
        f"{shares[0]} against {shares[1]}, n = {n1:,} and {n2:,}: "
        f"difference {number(difference, 'points')} points {interval(*_ends(newcombe(k1, n1, k2, n2)), 'share')}, "
        f"Fisher p {_p(p)}: {evidence(p, names[0] if difference > 0 else names[1])}"
    )


# ---- which runs --------------------------------------------------------------------------------------------------


def _pairs(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    if len(records) < 2:
        raise BadInput("a comparison takes two finished runs or more")
    for record in records:
        if record.status != "finished":
            raise BadInput(f"{record.path} is {record.status}, not finished: resume it, or leave it out")
    pairs = list(combinations(records, 2))
    across = [(a, b) for a, b in pairs if _arm(a) != _arm(b)]
    matched = [(a, b) for a, b in across if _seed(a) == _seed(b)]
    return matched or across or pairs


def _records(pairs: Sequence[tuple[Record, Record]]) -> list[Record]:
    return list({record.path: record for pair in pairs for record in pair}.values())


def _refuse_unless_alike(a: Record, b: Record, config_class: type | None) -> None:
    if a.manifest.experiment != b.manifest.experiment:
        raise BadInput(f"{a.path} and {b.path} are runs of different experiments")
    fields = [name for name in _differing_fields(a, b, config_class) if name != "seed"]
    unmatched = [name for name in fields if config_class is None or role_of(config_class, name) != "scientific"]
    if unmatched:
        raise BadInput(
            f"{a.path} and {b.path} differ in {', '.join(unmatched)}, which the experiment does not mark scientific: "
            "compare runs that are matched in everything else"
        )


def _differing_fields(a: Record, b: Record, config_class: type | None) -> list[str]:
    if config_class is not None:
        return differing(a.config(config_class), b.config(config_class))
    one, other = (read_mapping(record.path / "config.yaml") for record in (a, b))
    return [name for name in one | other if one.get(name) != other.get(name)]


def shared_outcomes(records: Sequence[Record]) -> list[str]:
    """The frames of right and wrong answers that all the runs have; BadInput where there is none."""
    held = [{path.stem for path in (record.path / "outcomes").glob("*.parquet")} for record in records]
    judged = [name for name in sorted(set.intersection(*held)) if "correct" in records[0].outcomes(name).columns]
    if not judged:
        raise BadInput(f"no outcomes with a column 'correct' that all {len(records)} runs share")
    return judged


def _warnings(pairs: Sequence[tuple[Record, Record]]) -> Iterable[str]:
    if len({_seed(record) for pair in pairs for record in pair}) == 1:
        yield ONE_SEED
    if any(_arm(a) != _arm(b) and _seed(a) != _seed(b) for a, b in pairs):
        yield "No seed is common to the arms, so the seeds are not paired."
    if 0 < len(costs(_records(pairs))) < len(_records(pairs)):
        yield "Some of the runs record no cost, so nothing says that they are matched in it."
    code = {(r.manifest.commit, r.manifest.diff_digest) for pair in pairs for r in pair}
    if len(code) > 1:
        yield "The runs were made by different versions of the code."


def _each_by_itself(over_seeds: pl.DataFrame) -> Iterable[str]:
    if (n := len(over_seeds)) > 1:
        yield f"Each of the {n} intervals over seeds holds in 95 % by itself; of so many, some miss."


# ---- one pair ----------------------------------------------------------------------------------------------------


def _compared(name: str, a: Record, b: Record, seed: int) -> Iterable[dict[str, Any]]:
    """One row, or one for each condition."""
    paired = _paired(name, a, b)
    for (condition,), rows in paired.group_by(CONDITION, maintain_order=True):
        right_a, right_b = (rows[column].to_numpy().astype(np.float64) for column in ("a", "b"))
        sums = ProblemSums.of(right_b - right_a, np.arange(len(rows)))
        band = not_certain(percentile(sums, seed=seed), sums)
        only_a, only_b = int((right_a > right_b).sum()), int((right_b > right_a).sum())
        share_a, discordant = float(right_a.mean()), (only_a + only_b) / len(rows)
        yield {
            "outcomes": name,
            "condition": condition,
            "a": a.path.name,
            "b": b.path.name,
            "arm_a": _arm(a),
            "arm_b": _arm(b),
            "seed_a": _seed(a),
            "seed_b": _seed(b),
            "n": len(rows),
            "accuracy_a": share_a,
            "accuracy_b": float(right_b.mean()),
            "difference": float(band.estimate[0]),
            "low": float(band.low[0]),
            "high": float(band.high[0]),
            "only_a": only_a,
            "only_b": only_b,
            "p": mcnemar(only_b, only_a),
            "detectable": minimum_detectable_difference(len(rows), share_a, discordant=discordant),
        }


def _paired(name: str, a: Record, b: Record) -> pl.DataFrame:
    """Columns example, condition, a, b: whether each run is right; BadInput unless both judged the same examples."""
    one, other = _judged(name, a).rename({"correct": "a"}), _judged(name, b).rename({"correct": "b"})
    both = one.join(other, on=["example", CONDITION], how="inner", maintain_order="left")
    if not len(both) == len(one) == len(other):
        raise BadInput(
            f"outcomes '{name}' are not of the same examples: {len(other) - len(both):,} of {b.path} are missing in "
            f"{a.path}, and {len(one) - len(both):,} the other way; judge both on the same problems"
        )
    return both


def _judged(name: str, record: Record) -> pl.DataFrame:
    frame = record.outcomes(name)
    found = next((column for column in ID_COLUMNS if column in frame.columns), None)
    if found is None or "correct" not in frame.columns:
        raise BadInput(f"outcomes '{name}' of {record.path} need columns 'problem' and 'correct', not {frame.columns}")
    condition = pl.col(CONDITION).cast(pl.String) if CONDITION in frame.columns else pl.lit("")
    judged = frame.select(
        pl.col(found).cast(pl.String).alias("example"), condition.alias(CONDITION), pl.col("correct").cast(pl.Boolean)
    )
    if judged.is_empty() or judged["correct"].null_count():
        raise BadInput(f"outcomes '{name}' of {record.path} are empty, or lack a judgement for some examples")
    if judged.select("example", CONDITION).is_duplicated().any():
        raise BadInput(f"outcomes '{name}' of {record.path} judge an example more than once")
    return judged


# ---- several seeds -----------------------------------------------------------------------------------------------


def _over_seeds(names: Sequence[str], pairs: Sequence[tuple[Record, Record]]) -> pl.DataFrame:
    """Arms with two seeds in common or more: the mean of the differences and its interval."""
    matched: dict[tuple[str, str], list[tuple[Record, Record]]] = {}
    for a, b in pairs:
        if _seed(a) == _seed(b) and _arm(a) != _arm(b):
            a, b = (b, a) if (_arm(b), _arm(a)) in matched else (a, b)
            matched.setdefault((_arm(a), _arm(b)), []).append((a, b))
    rows = [
        {"outcomes": name, "condition": condition, "arm_a": arm_a, "arm_b": arm_b, "n_seeds": len(of_seeds)}
        | {"difference": float(np.mean([one["difference"].mean() for one in of_seeds]))}
        | vars(_interval_over_seeds(of_seeds))
        for name in names
        for (arm_a, arm_b), of_arms in matched.items()
        if len(of_arms) > 1
        for condition, of_seeds in _differences(name, of_arms).items()
    ]
    kinds = dict.fromkeys(("outcomes", "condition", "arm_a", "arm_b"), pl.String) | {"n_seeds": pl.Int64}
    ends = dict.fromkeys(("difference", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=kinds | ends | {"covers": pl.String})


def _differences(name: str, pairs: Sequence[tuple[Record, Record]]) -> dict[str, list[pl.DataFrame]]:
    """{condition: for each seed, columns example and difference (b − a), in the order of the examples' names}."""
    found: dict[str, list[pl.DataFrame]] = {}
    for a, b in pairs:
        ordered = _paired(name, a, b).sort("example")
        for (condition,), rows in ordered.group_by(CONDITION, maintain_order=True):
            difference = pl.col("b").cast(pl.Int8) - pl.col("a").cast(pl.Int8)
            found.setdefault(str(condition), []).append(rows.select("example", difference=difference))
    return found


def _interval_over_seeds(of_seeds: Sequence[pl.DataFrame]) -> Interval:
    """Over seeds and items where every seed judged the same examples; else Student's, over seeds."""
    first = of_seeds[0]["example"]
    if all(one["example"].equals(first) for one in of_seeds):
        return seeds_and_items(np.array([one["difference"].to_numpy() for one in of_seeds]))
    means = [float(one["difference"].to_numpy().mean()) for one in of_seeds]
    return replace(t_interval(means), covers="seeds")


# ---- words -------------------------------------------------------------------------------------------------------


def _in_words(row: dict[str, Any]) -> str:
    better = row["arm_b"] if row["difference"] > 0 else row["arm_a"]
    found = evidence(row["p_holm"], better) + " on these examples" * (row["p_holm"] <= ALPHA)
    return (
        f"{subject(row)} (seeds {row['seed_a']}, {row['seed_b']}): "
        f"{number(row['accuracy_a'], 'share')} % → {number(row['accuracy_b'], 'share')} %, "
        f"difference {_points(row)}, n = {row['n']:,} paired; "
        f"right in only one: {row['only_a']} and {row['only_b']}, McNemar p {_p(row['p'])}, "
        f"Holm {_p(row['p_holm'])}: {found}{_power(row['detectable'])}"
    )


def _power(detectable: float) -> str:
    """Nothing where no difference is so large that these few examples would show it."""
    return "" if np.isnan(detectable) else f" (80 % power for {number(detectable, 'share')} points)"


def _over_seeds_in_words(row: dict[str, Any]) -> str:
    found = "no evidence of a difference between the arms" if row["low"] <= 0 <= row["high"] else "the arms differ"
    return f"{subject(row)}, over {row['n_seeds']} paired seeds: difference {_points(row)} ({row['covers']}): {found}"


def subject(row: dict[str, Any]) -> str:
    """Which outcomes of which arms a row is about; of the runs where both are of one arm."""
    condition = f" {row['condition']}" if row["condition"] else ""
    ends = ("arm_a", "arm_b") if row["arm_a"] != row["arm_b"] else ("a", "b")
    return f"{row['outcomes']}{condition}, {' → '.join(row[end] for end in ends)}"


def _points(row: dict[str, Any]) -> str:
    return f"{number(row['difference'], 'points')} points {interval(row['low'], row['high'], 'share')}"


def _ends(found: Interval) -> tuple[float, float]:
    return found.low, found.high


def _p(p: float) -> str:
    return f"= {number(p)}" if p >= 0.0005 else "< 0.001"


def _arm(record: Record) -> str:
    return record.manifest.arm


def _seed(record: Record) -> int:
    return record.manifest.seed
