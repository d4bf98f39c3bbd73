"""Results of tasks: every number that has an interval, by a flat name, and nothing else."""

from __future__ import annotations

from workings.evals.evaluation import TaskResult
from workings.evals.hellaswag import HellaSwagMeasures
from workings.evals.probes import ProbeMeasures
from workings.judging.statistics import Measure

ONE, OTHER = Measure(1.0, 0.5, 1.0, 2), Measure(0.5, 0.1, 0.9, 2, k=1)


def result(summary) -> TaskResult:
    return TaskResult("probes", "tiny", "", None, 2, 2, None, "", (), summary)


def test_measures_are_flat_and_leave_out_what_has_no_interval():
    choices = HellaSwagMeasures(2, acc=ONE, acc_norm=OTHER, acc_bytes=ONE, n_cut=1, n_not_judged=0)
    found = result({"karpathy": choices}).measures
    assert found == {"karpathy.acc": ONE, "karpathy.acc_norm": OTHER, "karpathy.acc_bytes": ONE}


def test_a_measure_that_does_not_apply_is_no_measure():
    probes = ProbeMeasures(2, *[ONE] * 6, value_choice=OTHER)
    found = result({"table": probes}).measures
    assert found["table.value_choice"] == OTHER and "table.fact_rank" not in found
    assert len(found) == 7
