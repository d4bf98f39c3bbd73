"""Outcomes of several runs → what differs between them, example by example; runs that cannot be compared are refused.

`Arms` makes the one paired comparison of the package (`paired.paired_difference`) of the outcomes of two arms, and `compare` of
every pair of runs, in words. Runs are compared on the same examples, may differ in
scientific fields and the seed alone, and must be matched in what they cost, where they record it (parameters, steps, raw
text). What the examples say is about these models; what holds for their arms takes several training seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from workings.config import differing, read_mapping, role_of
from workings.errors import BadInput
from workings.judging.paired import PairedDifference, paired_difference, with_holm
from workings.judging.statistics import (
    ALPHA,
    ONE_SEED,
    Interval,
    fisher,
    minimum_detectable_difference,
    newcombe,
    p_in_words,
    wilson,
)
from workings.report.wording import interval, number
from workings.run import RunRecord

ID_COLUMNS = ("problem", "example", "id")
CONDITION = "condition"  # several judgements of one example are told apart by it, and paired one by one

# ---- runs, arm by arm --------------------------------------------------------------------------------------------


class Arms:
    """Finished runs by arm and training seed, compared on the same examples.

    `difference` pairs two arms by example and by the seeds that both have, on any column of a frame of outcomes:

        arms = Arms(records)
        gap = arms.difference("facts", "digits", "probes", "worked", where=pl.col("worked").is_not_null())
        arms.difference("recurrent", "constant", "answers", where=(pl.col("condition") == "own") & (pl.col("n_steps") == 4))
        gap.difference, gap.interval.low, gap.p, gap.n_items, gap.n_seeds      # facts − digits

    Raises:
        BadInput: Where two runs are not matched in parameters, steps or raw bytes, or have the same arm and seed.
    """

    def __init__(self, records: Sequence[RunRecord]) -> None:
        self.runs: dict[str, dict[int, RunRecord]] = {}
        for record in records:
            refuse_unmatched(records[0], record)
            other = self.runs.setdefault(_arm(record), {}).setdefault(_seed(record), record)
            if other is not record:
                raise BadInput(f"{other.path} and {record.path} are runs of the same arm and seed: leave one out")

    @property
    def names(self) -> list[str]:
        """The arms, in the order of the runs."""
        return list(self.runs)

    def has(self, *arms: str) -> bool:
        """Whether there are runs of all these arms, with a seed in common."""
        return set(arms) <= set(self.runs) and bool(self.seeds(*arms))

    def seeds(self, *arms: str) -> list[int]:
        """The training seeds that all these arms have, sorted."""
        return sorted(set.intersection(*(set(self.runs[arm]) for arm in arms)))

    def outcomes(self, arm: str, seed: int, name: str) -> pl.DataFrame:
        """One run's frame of outcomes, sorted by example."""
        frame = self.runs[arm][seed].outcomes(name)
        return frame.sort(_id_column(frame) or frame.columns[0])

    def difference(
        self,
        treatment: str,
        baseline: str,
        outcomes: str,
        column: str = "correct",
        *,
        where: pl.Expr | None = None,
        seed: int = 0,
    ) -> PairedDifference:
        """`paired_difference` of two arms (treatment − baseline) over the seeds that both have.

        Args:
            outcomes: Name of the frame of outcomes, one row an example (and condition).
            column: Its column of values: right and wrong, or real numbers.
            where: Rows that are compared, as a polars expression: a condition, or a subset. All, without it.
            seed: Random seed of the bootstrap.

        Raises:
            BadInput: Where the arms have no seed in common, judged different examples, or no row is selected.
        """
        if not self.has(treatment, baseline):
            raise BadInput(f"no seed has runs of both {treatment} and {baseline}: run both with the same --seeds")
        pairs = [(self.runs[treatment][each], self.runs[baseline][each]) for each in self.seeds(treatment, baseline)]
        return _over_seeds([_paired_runs(outcomes, a, b, column, where) for a, b in pairs], seed)


def between_conditions(
    records: Sequence[RunRecord],
    outcomes: str,
    treatment: str,
    baseline: str,
    column: str = "correct",
    *,
    where: pl.Expr | None = None,
    seed: int = 0,
) -> PairedDifference:
    """Compare two conditions of the same runs (own thoughts against zeroed ones), paired by example; one run a seed."""
    paired = []
    for record in records:
        rows = _values(outcomes, record, column, where)
        a, b = (
            rows.filter(condition=condition).with_columns(condition=pl.lit("")) for condition in (treatment, baseline)
        )
        paired.append(_paired(outcomes, (a, f"{record.path} ({treatment})"), (b, f"{record.path} ({baseline})")))
    return _over_seeds(paired, seed)


def _over_seeds(paired: Sequence[pl.DataFrame], seed: int = 0) -> PairedDifference:
    """The difference a − b of frames from `_paired`, one frame a seed."""
    ordered = [each.sort("example", CONDITION) for each in paired]
    keys = [each.select("example", CONDITION) for each in ordered]
    a, b = ([each[name].to_numpy() for each in ordered] for name in ("a", "b"))
    return paired_difference(a, b, same_items=all(each.equals(keys[0]) for each in keys), seed=seed)


def _paired_runs(
    name: str, a: RunRecord, b: RunRecord, column: str = "correct", where: pl.Expr | None = None
) -> pl.DataFrame:
    one, other = ((_values(name, record, column, where), str(record.path)) for record in (a, b))
    return _paired(name, one, other)


def _paired(name: str, a: tuple[pl.DataFrame, str], b: tuple[pl.DataFrame, str]) -> pl.DataFrame:
    """Columns example, condition, a, b (values); BadInput unless both have the same examples."""
    (one, one_is), (other, other_is) = a, b
    both = one.rename({"value": "a"}).join(
        other.rename({"value": "b"}), on=["example", CONDITION], how="inner", maintain_order="left"
    )
    if not len(both) == len(one) == len(other):
        raise BadInput(
            f"outcomes '{name}' are not of the same examples: {len(other) - len(both):,} of {other_is} are missing in "
            f"{one_is}, and {len(one) - len(both):,} the other way; judge both on the same problems"
        )
    return both


def _values(name: str, record: RunRecord, column: str = "correct", where: pl.Expr | None = None) -> pl.DataFrame:
    """Columns example, condition, value of one run's outcomes, one row each; BadInput where they cannot be paired."""
    frame = record.outcomes(name)
    found = _id_column(frame)
    if found is None or column not in frame.columns:
        raise BadInput(f"outcomes '{name}' of {record.path} need columns 'problem' and '{column}', not {frame.columns}")
    condition = pl.col(CONDITION).cast(pl.String) if CONDITION in frame.columns else pl.lit("")
    rows = (frame if where is None else frame.filter(where)).select(
        pl.col(found).cast(pl.String).alias("example"),
        condition.alias(CONDITION),
        value=pl.col(column).cast(pl.Float64),
    )
    if rows.is_empty() or rows["value"].null_count():
        raise BadInput(f"outcomes '{name}' of {record.path} are empty, or lack a judgement for some examples")
    if rows.select("example", CONDITION).is_duplicated().any():
        raise BadInput(f"outcomes '{name}' of {record.path} judge an example more than once")
    return rows


def _id_column(frame: pl.DataFrame) -> str | None:
    return next((column for column in ID_COLUMNS if column in frame.columns), None)


# ---- cost --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a run cost, as it records it in `results/budget.json`; a field it does not record is None."""

    parameters: int | None = None
    steps: int | None = None
    raw_bytes: int | None = None
    tokens: int | None = None
    flops: int | float | None = None

    @classmethod
    def of(cls, record: RunRecord) -> Cost | None:
        """None where the run records no cost."""
        return record.result("budget", cls) if record.has_result("budget") else None


# Rows of one tokenizer do not end on the same byte as another's, so raw bytes may be 1 % apart.
MATCHED = {"parameters": 0.0, "steps": 0.0, "raw_bytes": 0.01}
REPORTED = ("tokens", "flops")


def refuse_unmatched(a: RunRecord, b: RunRecord) -> None:
    """Refuse two runs that are not compute-matched: in parameters, steps and raw bytes, where both record them.

    Raises:
        BadInput: Where they differ.
    """
    costs_of = [Cost.of(record) for record in (a, b)]
    for field, within in MATCHED.items():
        one, other = (getattr(cost, field, None) for cost in costs_of)
        if one is not None and other is not None and abs(one - other) > within * max(one, other):
            raise BadInput(
                f"{a.path} and {b.path} are not matched in {field}: {one:,} and {other:,}, so that a difference "
                "between them could be one of cost; train both with the same parameters, steps and raw text"
            )


def costs(records: Sequence[RunRecord]) -> pl.DataFrame:
    """One row a run that records its cost: run, arm, parameters, steps, raw_bytes, tokens, flops."""
    rows = [
        {"run": record.path.name, "arm": _arm(record)} | asdict(cost)
        for record in records
        if (cost := Cost.of(record)) is not None
    ]
    numbers = dict.fromkeys((field.name for field in fields(Cost)), pl.Float64)
    return pl.DataFrame(rows, schema={"run": pl.String, "arm": pl.String} | numbers)


# ---- every pair of runs ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """The differences between runs.

    Attributes:
        table: One row a pair of runs, frame of outcomes and condition. Differences are b − a, as fractions; `low` and `high`
            cover items only; `p` is exact (McNemar), `p_holm` is adjusted for all rows; `detectable` is the smallest
            difference that these examples show with 80 % power.
        over_seeds: One row a pair of arms with several seeds in common; `covers` says what the interval holds for.
        costs: One row a run that recorded what it cost.
        warnings: What the numbers do not cover.
    """

    table: pl.DataFrame
    over_seeds: pl.DataFrame
    costs: pl.DataFrame
    warnings: tuple[str, ...]

    def text(self) -> str:
        """One line a comparison, then `beside`."""
        return "\n".join([*map(_in_words, self.table.iter_rows(named=True)), *self.beside()])

    def beside(self) -> list[str]:
        """The arms' lines over seeds, what runs cost, then the warnings."""
        lines = [_over_seeds_in_words(row) for row in self.over_seeds.iter_rows(named=True)]
        lines += [_cost_in_words(row) for row in self.costs.iter_rows(named=True)]
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings)]


def compare(
    records: Sequence[RunRecord],
    config_class: type | None = None,
    outcomes: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare finished runs of one experiment, pair by pair, on the same examples.

    Arms with a common seed are paired by seed; runs of a single arm are compared with each other.

    Args:
        records: Two finished runs or more.
        config_class: The experiment's `Config`, which marks its scientific fields: only in these, and in the seed, may
            runs differ. Without it they may differ in the seed alone.
        outcomes: One frame of outcomes or several; by default all that the runs share and that have a column `correct`.
        seed: Random seed of the bootstrap.

    Raises:
        BadInput: Where runs are unfinished, not matched, or did not judge the same examples.

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
        _refuse_unless_alike(a, b, config_class)
        refuse_unmatched(a, b)
    names = [outcomes] if isinstance(outcomes, str) else outcomes or shared_outcomes(records)
    found = [one for name in names for a, b in pairs for one in _compared(name, a, b, seed)]
    adjusted = with_holm([difference for _, difference in found])
    table = pl.DataFrame([_row(labels, one) for (labels, _), one in zip(found, adjusted, strict=True)])
    over_seeds = _arms_over_seeds(names, pairs)
    warnings = (*_warnings(pairs), *_each_by_itself(over_seeds))
    return Comparison(table, over_seeds, costs(_records(pairs)), warnings)


def shared_outcomes(records: Sequence[RunRecord]) -> list[str]:
    """Names of the frames of right and wrong answers that all the runs have; BadInput where there is none."""
    held = [{path.stem for path in (record.path / "outcomes").glob("*.parquet")} for record in records]
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
    across = [(a, b) for a, b in pairs if _arm(a) != _arm(b)]
    matched = [(a, b) for a, b in across if _seed(a) == _seed(b)]
    return matched or across or pairs


def _records(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> list[RunRecord]:
    return list({record.path: record for pair in pairs for record in pair}.values())


def _refuse_unless_alike(a: RunRecord, b: RunRecord, config_class: type | None) -> None:
    if a.manifest.experiment != b.manifest.experiment:
        raise BadInput(f"{a.path} and {b.path} are runs of different experiments")
    if config_class is not None:
        different = differing(a.config(config_class), b.config(config_class))
    else:
        one, other = (read_mapping(record.path / "config.yaml") for record in (a, b))
        different = [name for name in one | other if one.get(name) != other.get(name)]
    unmatched = [
        name
        for name in different
        if name != "seed" and (config_class is None or role_of(config_class, name) != "scientific")
    ]
    if unmatched:
        raise BadInput(
            f"{a.path} and {b.path} differ in {', '.join(unmatched)}, which the experiment does not mark scientific: "
            "compare runs that are matched in everything else"
        )


def _compared(
    name: str, a: RunRecord, b: RunRecord, seed: int
) -> Iterable[tuple[dict[str, str | int], PairedDifference]]:
    """The labels and the difference b − a of each condition."""
    for (condition,), rows in _paired_runs(name, a, b).group_by(CONDITION, maintain_order=True):
        labels = {"outcomes": name, "condition": str(condition), "a": a.path.name, "b": b.path.name}
        arms = {"arm_a": _arm(a), "arm_b": _arm(b), "seed_a": _seed(a), "seed_b": _seed(b)}
        yield labels | arms, paired_difference(rows["b"].to_numpy(), rows["a"].to_numpy(), seed=seed)


def _row(labels: dict[str, str | int], one: PairedDifference) -> dict[str, str | int | float | None]:
    only_a, only_b = one.n_only_baseline or 0, one.n_only_treatment or 0
    discordant = (only_a + only_b) / one.n_items
    return labels | {
        "n": one.n_items,
        "accuracy_a": one.baseline,
        "accuracy_b": one.treatment,
        "difference": one.difference,
        "low": one.interval.low,
        "high": one.interval.high,
        "only_a": only_a,
        "only_b": only_b,
        "p": one.p,
        "detectable": minimum_detectable_difference(one.n_items, one.baseline, discordant=discordant),
        "p_holm": one.p_holm,
    }


def _arms_over_seeds(names: Sequence[str], pairs: Sequence[tuple[RunRecord, RunRecord]]) -> pl.DataFrame:
    """One row a pair of arms with two seeds in common or more, frame of outcomes and condition."""
    matched: dict[tuple[str, str], list[tuple[RunRecord, RunRecord]]] = {}
    for a, b in pairs:
        if _seed(a) == _seed(b) and _arm(a) != _arm(b):
            a, b = (b, a) if (_arm(b), _arm(a)) in matched else (a, b)
            matched.setdefault((_arm(a), _arm(b)), []).append((a, b))
    rows = []
    for name in names:
        for (arm_a, arm_b), of_arms in matched.items():
            # Two runs of one arm and seed are no two seeds.
            if len({_seed(a) for a, _ in of_arms}) < max(2, len(of_arms)):
                continue
            paired = pl.concat([_paired_runs(name, b, a).with_columns(seed=pl.lit(_seed(a))) for a, b in of_arms])
            for (condition,), of_condition in paired.group_by(CONDITION, maintain_order=True):
                one = _over_seeds(of_condition.partition_by("seed", maintain_order=True))
                rows.append(
                    {"outcomes": name, "condition": condition, "arm_a": arm_a, "arm_b": arm_b, "n_seeds": one.n_seeds}
                    | {"difference": one.difference}
                    | asdict(one.interval)
                )
    kinds = dict.fromkeys(("outcomes", "condition", "arm_a", "arm_b"), pl.String) | {"n_seeds": pl.Int64}
    ends = dict.fromkeys(("difference", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema=kinds | ends | {"covers": pl.String})


def _warnings(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Iterable[str]:
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


# ---- words -------------------------------------------------------------------------------------------------------


def shares_in_words(k1: int, n1: int, k2: int, n2: int, names: tuple[str, str] = ("the first", "the second")) -> str:
    """Compare k1 of n1 with k2 of n2 in one sentence: independent samples of which only the counts are known.

    Wilson's intervals, Newcombe's of the difference, Fisher's exact p. Runs whose examples are kept say more: `compare`.
    """
    shares = [f"{number(k / n, 'share')} % {_brackets(wilson(k, n))}" for k, n in ((k1, n1), (k2, n2))]
    difference, p = k1 / n1 - k2 / n2, fisher(k1, n1, k2, n2)
    return (
        f"{shares[0]} against {shares[1]}, n = {n1:,} and {n2:,}: "
        f"difference {number(difference, 'points')} points {_brackets(newcombe(k1, n1, k2, n2))}, "
        f"Fisher p {_p(p)}: {p_in_words(p, names[0] if difference > 0 else names[1])}"
    )


def subject(row: dict[str, Any]) -> str:
    """Which outcomes of which arms a row is about; of the runs where both are of one arm."""
    condition = f" {row['condition']}" if row["condition"] else ""
    ends = ("arm_a", "arm_b") if row["arm_a"] != row["arm_b"] else ("a", "b")
    return f"{row['outcomes']}{condition}, {' → '.join(row[end] for end in ends)}"


def _in_words(row: dict[str, Any]) -> str:
    better = row["arm_b"] if row["difference"] > 0 else row["arm_a"]
    found = p_in_words(row["p_holm"], better) + " on these examples" * (row["p_holm"] <= ALPHA)
    # Nothing where no difference is so large that these few examples would show it.
    power = "" if np.isnan(row["detectable"]) else f" (80 % power for {number(row['detectable'], 'share')} points)"
    return (
        f"{subject(row)} (seeds {row['seed_a']}, {row['seed_b']}): "
        f"{number(row['accuracy_a'], 'share')} % → {number(row['accuracy_b'], 'share')} %, "
        f"difference {_points(row)}, n = {row['n']:,} paired; "
        f"right in only one: {row['only_a']} and {row['only_b']}, McNemar p {_p(row['p'])}, "
        f"Holm {_p(row['p_holm'])}: {found}{power}"
    )


def _over_seeds_in_words(row: dict[str, Any]) -> str:
    found = "no evidence of a difference between the arms" if row["low"] <= 0 <= row["high"] else "the arms differ"
    return f"{subject(row)}, over {row['n_seeds']} paired seeds: difference {_points(row)} ({row['covers']}): {found}"


def _cost_in_words(row: dict[str, Any]) -> str:
    said = [(name, row[name]) for name in (*MATCHED, *REPORTED) if row[name] is not None]
    numbers = [f"{value:,.0f} {name}" if name != "flops" else f"{value:.4g} FLOPs" for name, value in said]
    return f"Cost of {row['run']} ({row['arm']}): {', '.join(numbers).replace('_', ' ')}"


def _points(row: dict[str, Any]) -> str:
    return f"{number(row['difference'], 'points')} points {interval(row['low'], row['high'], 'share')}"


def _brackets(found: Interval) -> str:
    return interval(found.low, found.high, "share")


def _p(p: float) -> str:
    return f"= {number(p)}" if p >= 0.0005 else "< 0.001"


def _arm(record: RunRecord) -> str:
    return record.manifest.arm


def _seed(record: RunRecord) -> int:
    return record.manifest.seed
