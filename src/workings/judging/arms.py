"""Outcomes of runs, arm by arm → paired differences (`paired.paired_difference`); unmatched runs are refused.

Runs are paired by example and by training seed, and examples of one structure are drawn anew together. Where they record what
they cost, they must have the same parameters and steps and have read the same raw text. Where they keep what an example asked,
it must be the same under the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import polars as pl

from workings.errors import BadInput
from workings.judging.paired import PairedDifference, paired_difference
from workings.judging.statistics import with_columns
from workings.run import RunRecord

ID_COLUMNS = ("problem", "example", "id")
CLUSTER = "structure"  # examples that share it are drawn anew together, where a frame of outcomes has it
CONDITION = "condition"  # several judgements of one example are told apart by it, and paired one by one
JUDGED = "correct"  # the column of right and wrong
ASKED = (CLUSTER, "question", "prompt", "context", "gold", "label", "n_steps")
"""Columns that describe the example and not what a model made of it."""

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
            other = self.runs.setdefault(record.manifest.arm, {}).setdefault(record.manifest.seed, record)
            if other is not record:
                raise BadInput(f"{other.path} and {record.path} are runs of the same arm and seed: leave one out")

    @property
    def names(self) -> list[str]:
        """The arms, in the order of the runs."""
        return list(self.runs)

    def has(self, *arms: str) -> bool:
        """True if there are runs of all these arms with a seed in common."""
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
        column: str = JUDGED,
        *,
        where: pl.Expr | None = None,
    ) -> PairedDifference:
        """`paired_difference` of two arms (treatment − baseline) over the seeds that both have.

        Args:
            outcomes: Name of the frame of outcomes, one row an example (and condition).
            column: Its column of values: right and wrong, or real numbers.
            where: Rows to compare, as a polars expression; all rows if omitted.

        Raises:
            BadInput: Where the arms have no seed in common, judged different examples, or no row is selected.
        """
        if not self.has(treatment, baseline):
            raise BadInput(f"no seed has runs of both {treatment} and {baseline}: run both with the same --seeds")
        pairs = [(self.runs[treatment][each], self.runs[baseline][each]) for each in self.seeds(treatment, baseline)]
        return difference_over_seeds([paired_runs(outcomes, a, b, column, where) for a, b in pairs])


def between_conditions(
    records: Sequence[RunRecord],
    outcomes: str,
    treatment: str,
    baseline: str,
) -> PairedDifference:
    """Compare two conditions of the same runs (own thoughts against zeroed ones), paired by example; one run a seed."""
    paired = []
    for record in records:
        rows = with_columns(_values(outcomes, record), [CONDITION], f"outcomes of conditions ({outcomes})")
        a, b = (
            rows.filter(condition=condition).with_columns(condition=pl.lit("")) for condition in (treatment, baseline)
        )
        paired.append(_paired(outcomes, (a, f"{record.path} ({treatment})"), (b, f"{record.path} ({baseline})")))
    return difference_over_seeds(paired)


def difference_over_seeds(paired: Sequence[pl.DataFrame]) -> PairedDifference:
    """The difference a − b of frames from `paired_runs`, one frame a seed."""
    ordered = [each.sort("example", CONDITION) for each in paired]
    keys = [each.select("example", CONDITION) for each in ordered]
    a, b = ([each[name].to_numpy() for each in ordered] for name in ("a", "b"))
    clusters = ordered[0][CLUSTER].to_numpy() if all(CLUSTER in each.columns for each in ordered) else None
    return paired_difference(a, b, clusters, same_items=all(each.equals(keys[0]) for each in keys))


def unpaired_seeds(records: Sequence[RunRecord]) -> list[str]:
    """A sentence for every arm with a seed that another arm lacks: what is left out, and what is compared."""
    arms: dict[str, set[int]] = {}
    for record in records:
        arms.setdefault(record.manifest.arm, set()).add(record.manifest.seed)
    said = []
    for arm, seeds in arms.items():
        others = {other: theirs for other, theirs in arms.items() if other != arm and seeds - theirs}
        if others:
            alone = sorted(set.union(*(seeds - theirs for theirs in others.values())))
            said.append(
                f"{_listed_seeds(alone)} of {arm} {'has' if len(alone) == 1 else 'have'} no run of {', '.join(others)} beside "
                f"{'it' if len(alone) == 1 else 'them'}: only seeds that both arms have are compared."
            )
    return said


def _listed_seeds(seeds: Sequence[int]) -> str:
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def paired_runs(
    name: str, a: RunRecord, b: RunRecord, column: str = JUDGED, where: pl.Expr | None = None
) -> pl.DataFrame:
    """Columns example, condition, a, b (values), and structure where both have it; BadInput unless of the same examples."""
    one, other = ((_values(name, record, column, where), str(record.path)) for record in (a, b))
    return _paired(name, one, other)


def _paired(name: str, a: tuple[pl.DataFrame, str], b: tuple[pl.DataFrame, str]) -> pl.DataFrame:
    """Columns of `paired_runs`; BadInput unless both have the same examples."""
    (one, one_is), (other, other_is) = a, b
    both = one.rename({"value": "a"}).join(
        other.rename({"value": "b"}), on=["example", CONDITION], how="inner", maintain_order="left"
    )
    if not len(both) == len(one) == len(other):
        raise BadInput(
            f"outcomes '{name}' are not of the same examples: {len(other) - len(both):,} of {other_is} are missing in "
            f"{one_is}, and {len(one) - len(both):,} the other way; judge both on the same problems"
        )
    shared = [asked for asked in ASKED if asked in one.columns and asked in other.columns]
    for asked in shared:
        differ = both.filter(pl.col(asked).ne_missing(pl.col(f"{asked}_right")))
        if len(differ):
            raise BadInput(
                f"outcomes '{name}': {len(differ):,} of the examples, first '{differ['example'][0]}', have another {asked} in "
                f"{other_is} than in {one_is}: judge both on the same problems"
            )
    return both.select("example", CONDITION, "a", "b", *([CLUSTER] * (CLUSTER in shared)))


def _values(name: str, record: RunRecord, column: str = JUDGED, where: pl.Expr | None = None) -> pl.DataFrame:
    """Columns example, condition, value, structure and those that say what was asked, of one run's outcomes, one row each.

    BadInput where they cannot be paired.
    """
    frame = record.outcomes(name)
    found = _id_column(frame)
    if found is None or column not in frame.columns:
        raise BadInput(f"outcomes '{name}' of {record.path} need columns 'problem' and '{column}', not {frame.columns}")
    condition = pl.col(CONDITION).cast(pl.String) if CONDITION in frame.columns else pl.lit("")
    chosen = frame if where is None else frame.filter(where)
    kind = chosen.schema[column]
    if not (kind == pl.Boolean or kind.is_numeric() or kind == pl.Null):
        raise BadInput(
            f"'{column}' in outcomes '{name}' of {record.path} is {_in_words(kind)}: write right and wrong as true and false"
        )
    rows = chosen.select(
        pl.col(found).cast(pl.String).alias("example"),
        condition.alias(CONDITION),
        *(
            pl.col(asked).cast(pl.String)
            for asked in ASKED
            if asked in frame.columns and _is_plain(frame.schema[asked])
        ),
        value=pl.col(column).cast(pl.Float64),
    )
    if rows.is_empty() or rows["value"].null_count():
        raise BadInput(f"outcomes '{name}' of {record.path} are empty, or lack a judgement for some examples")
    if column == JUDGED and not rows["value"].is_in([0.0, 1.0]).all():
        strange = rows.filter(~pl.col("value").is_in([0.0, 1.0]))["value"][0]
        raise BadInput(
            f"'{column}' in outcomes '{name}' of {record.path} holds {strange:g}: give true and false, or 1 and 0"
        )
    if rows.select("example", CONDITION).is_duplicated().any():
        raise BadInput(f"outcomes '{name}' of {record.path} judge an example more than once")
    return rows


def _is_plain(kind: pl.DataType) -> bool:
    return kind == pl.String or kind.is_integer()


def _in_words(kind: pl.DataType) -> str:
    return "text" if kind == pl.String else f"of the type {kind}"


def _id_column(frame: pl.DataFrame) -> str | None:
    return next((column for column in ID_COLUMNS if column in frame.columns), None)


# ---- cost --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """The cost of a run, as recorded in `results/budget.json`; None for a field that it does not record."""

    parameters: int | None = None
    steps: int | None = None
    raw_bytes: int | None = None
    tokens: int | None = None
    flops: int | float | None = None

    @classmethod
    def of(cls, record: RunRecord) -> Cost | None:
        """None where the run records no cost."""
        return record.result("budget", cls) if record.has_result("budget") else None

    def text(self, record: RunRecord) -> str:
        """One line with all numbers."""
        said = [(name, value) for name, value in asdict(self).items() if value is not None]
        numbers = [f"{value:,.0f} {name}" if name != "flops" else f"{value:.4g} FLOPs" for name, value in said]
        return f"Cost of {record.path.name} ({record.manifest.arm}): {', '.join(numbers).replace('_', ' ')}"


# Rows of one tokenizer do not end on the same byte as another's, so raw bytes may be 1 % apart.
MATCHED = {"parameters": 0.0, "steps": 0.0, "raw_bytes": 0.01}


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
