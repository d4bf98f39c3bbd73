"""What runs say they cost → whether they may be compared: alike in parameters, steps and raw text; tokens and FLOPs told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from workings.errors import BadInput

if TYPE_CHECKING:
    from workings.judging.comparison import Record

BUDGET = "budget"
"""The result in which a run records what it cost."""
MATCHED = {"parameters": 0.0, "steps": 0.0, "raw_bytes": 0.01}
"""What must be alike, and how far apart it may be: rows of one tokenizer do not end on the same byte as another's."""
REPORTED = ("tokens", "flops")


def refuse_unmatched(a: Record, b: Record) -> None:
    """BadInput where both runs record what they cost and it is not alike; a field only one of them has is not asked about."""
    one, other = _budget(a), _budget(b)
    for field, within in MATCHED.items():
        if field in one and field in other and abs(one[field] - other[field]) > within * max(one[field], other[field]):
            raise BadInput(
                f"{a.path} and {b.path} are not matched in {field}: {one[field]:,} and {other[field]:,}, so that a difference "
                "between them could be one of cost; train both with the same parameters, steps and raw text"
            )


def costs(records: Sequence[Record]) -> pl.DataFrame:
    """One row a run that records its cost: run, arm, parameters, steps, raw_bytes, tokens, flops."""
    names = (*MATCHED, *REPORTED)
    rows = [
        {"run": record.path.name, "arm": record.manifest.arm} | {name: budget.get(name) for name in names}
        for record in records
        if (budget := _budget(record))
    ]
    return pl.DataFrame(rows, schema={"run": pl.String, "arm": pl.String} | dict.fromkeys(names, pl.Float64))


def in_words(row: dict[str, Any]) -> str:
    """A row of `costs`, as a line."""
    said = [(name, row[name]) for name in (*MATCHED, *REPORTED) if row[name] is not None]
    numbers = [f"{value:,.0f} {name}" if name != "flops" else f"{value:.4g} FLOPs" for name, value in said]
    return f"Cost of {row['run']} ({row['arm']}): {', '.join(numbers).replace('_', ' ')}"


def _budget(record: Record) -> dict[str, Any]:
    """What the run recorded of its cost; nothing where it recorded none."""
    return record.result(BUDGET) if (record.path / "results" / f"{BUDGET}.json").is_file() else {}
