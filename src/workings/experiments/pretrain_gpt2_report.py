"""Runs of `pretrain-gpt2` → their report: bits per byte, costs, curves, samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from workings.experiments.default_report import cost_table, curves, estimate_of, report_on_runs
from workings.judging.arms import Cost
from workings.judging.statistics import Measure
from workings.report import Axis, Column, Conclusion, Row, Table, Text
from workings.run import RunRecord
from workings.training.resuming import SAMPLES


def report(records: Sequence[RunRecord], out: Path) -> Path:
    """Show bits per byte and cost of each run, curves, samples."""
    logged = dict.fromkeys(name for record in records for name in record.metrics().columns)
    validation = {name: name for name in logged if name == "bits_per_byte" or name.startswith("bits_per_byte.")}
    return report_on_runs(
        records,
        out,
        title="Pretraining a GPT-2",
        conclusion=_conclusion(records[-1]),
        sections=[
            _bits_table(records),
            cost_table(records),
            *curves(records, "Training loss", {"loss": "loss"}, Axis("loss", "nats a token")),
            *curves(records, "Validation", validation, Axis("bits per byte")),
            _written(records[-1]),
        ],
    )


def _conclusion(record: RunRecord) -> Conclusion:
    """Judge whether it learned its language at all: the trained model against the same one before its first step."""
    bits, cost = record.curve("bits_per_byte")["bits_per_byte"].to_list(), record.result("budget", Cost)
    if not bits:
        return Conclusion(
            "The corpus has no validation documents, so nothing was measured on text not trained on.", "undecided"
        )
    says = (
        f"{cost.tokens:,} tokens in {cost.steps:,} steps took {cost.parameters:,} parameters from {bits[0]:.3f} "
        f"to {bits[-1]:.3f} bits per byte of the validation documents read on the way"
    )
    return Conclusion(f"{says}.", "holds" if bits[-1] < bits[0] else "fails")


def _bits_table(records: Sequence[RunRecord]) -> Table:
    rows = [
        Row(f"{record.path.name}: {source}", [estimate_of(bits)], bits.n)
        for record in records
        for source, bits in record.result("validation", dict[str, Measure]).items()
    ]
    caption = "All validation documents; 95 % intervals over documents (bootstrap). n: documents."
    return Table(
        "Bits per byte of raw text", [Column("bits per byte", "number", 4)], rows, caption, rows_are="run, source"
    )


def _written(record: RunRecord) -> Text:
    path = record.file(SAMPLES)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    last = [line for line in lines if line["step"] == lines[-1]["step"]]
    body = "\n\n".join(f"{one['prompt']} → {one['text']}" for one in last) or "No samples were asked for."
    return Text("What the last model writes (greedy)", body)
