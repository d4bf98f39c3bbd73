"""What the mini scale is for: a small model learns something there, or a difference between arms could not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from workings.experiment import run_experiment


@pytest.mark.slow
def test_a_model_that_reads_digits_learns_the_times_table(tmp_path: Path) -> None:
    [record] = run_experiment("fact-tokens", ["digits"], "mini", [0], root=tmp_path, quiet=True)
    curve = record.metrics().drop_nulls("table_worked")["table_worked"].to_list()
    assert curve[0] == 0.0 and curve[-1] > 0.8, curve
