"""Runs of `pretrain-gpt2` → their report: bits per byte, costs, curves, samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workings.run import RunRecord
from workings.training.journal import SAMPLES

# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────────


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Bits per byte and cost of each run, curves, samples."""
    from workings.report import Axis, Curves, Provenance, Report, write_report

    made = Report(
        title="Pretraining a GPT-2",
        question=records[0].question,
        conclusion=_verdict(records[-1]),
        sections=[
            _bits_table(records),
            _costs(records),
            Curves("Training loss", Axis("step"), Axis("loss", "nats a token"), _curves(records, "loss")),
            Curves("Validation", Axis("step"), Axis("bits per byte"), _curves(records, "bits_per_byte")),
            _written(records[-1]),
        ],
        provenance=Provenance([str(r.path) for r in records], versions=records[0].manifest.versions),
        warnings=["One training seed: the intervals are over documents only and say nothing about other seeds."],
    )
    return write_report(made, out)


def _verdict(record: RunRecord) -> Any:
    """Whether it learned its language at all: the trained model against the same one before its first step."""
    from workings.report import Conclusion

    logged, budget = record.metrics(), record.result("budget")
    if "bits_per_byte" not in logged.columns:
        return Conclusion(
            "The corpus has no validation documents, so nothing was measured on text not trained on.", "undecided"
        )
    bits = logged.drop_nulls("bits_per_byte")["bits_per_byte"].to_list()
    says = (
        f"{budget['tokens']:,} tokens in {budget['steps']:,} steps took {budget['parameters']:,} parameters from {bits[0]:.3f} "
        f"to {bits[-1]:.3f} bits per byte of the validation documents read on the way"
    )
    return Conclusion(f"{says}.", "holds" if bits[-1] < bits[0] else "fails")


def _bits_table(records: Sequence[RunRecord]) -> Any:
    from workings.report import Column, Estimate, Row, Table

    rows = [
        Row(f"{record.path.name}: {source}", [Estimate(one["value"], one["low"], one["high"])], one["n"])
        for record in records
        for source, one in record.result("validation").items()
    ]
    caption = "All validation documents; 95 % intervals over documents (bootstrap). n: documents."
    return Table(
        "Bits per byte of raw text", [Column("bits per byte", "number", 4)], rows, caption, rows_are="run, source"
    )


def _costs(records: Sequence[RunRecord]) -> Any:
    from workings.report import Column, Row, Table

    names = ("parameters", "steps", "raw_bytes", "tokens", "flops")
    rows = [Row(record.path.name, [record.result("budget")[name] for name in names]) for record in records]
    return Table("What it cost", [Column(name.replace("_", " "), "count") for name in names], rows, rows_are="run")


def _curves(records: Sequence[RunRecord], column: str) -> Any:
    from workings.report import Series

    series = []
    for record in records:
        logged = record.metrics()
        for name in [n for n in logged.columns if n == column or n.startswith(f"{column}.")]:
            kept = logged.drop_nulls(name)
            series.append(Series(f"{record.path.name}: {name}", kept["step"].to_list(), kept[name].to_list()))
    return series


def _written(record: RunRecord) -> Any:
    from workings.report import Text

    path = record.path / SAMPLES
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    last = [line for line in lines if line["step"] == lines[-1]["step"]]
    body = "\n\n".join(f"{one['prompt']} → {one['text']}" for one in last) or "No samples were asked for."
    return Text("What the last model writes (greedy)", body)
