"""Probes ask each thing once, know the answer, say what training never shows, and are found again in texts."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import pytest

from workings.arithmetic.drills import DrillSpec, drill_documents
from workings.arithmetic.facts import Fact
from workings.arithmetic.probes import PROBE_KINDS, Probe, overlap, probes

SPEC = DrillSpec()
NONE_HELD_OUT = DrillSpec(fact_holdout=0.0)


def shown(asked: list[Probe], *texts: str) -> dict[str, tuple[int, int]]:
    """{kind: (questions, equations)} of the kinds of which anything is shown."""
    found = {report.kind: (report.n_questions, report.n_equations) for report in overlap(asked, texts)}
    return {kind: counts for kind, counts in found.items() if any(counts)}


def test_there_are_as_many_of_each_kind_as_promised_and_no_two_ask_the_same() -> None:
    asked = probes(SPEC)
    n_held_out = sum(1 if fact.operands[0] == fact.operands[1] else 2 for fact in SPEC.held_out_facts)
    counts = dict(zip(PROBE_KINDS, (81, 100, 100, 100, 9 * n_held_out), strict=True))
    assert Counter(probe.kind for probe in asked) == counts
    assert len({probe.question for probe in asked}) == len({probe.id for probe in asked}) == len(asked)


@pytest.mark.parametrize("n", [12, 50, 200])
def test_the_first_few_hold_each_kind_in_proportion(n: int) -> None:
    asked = probes(SPEC)
    whole, some = (Counter(probe.kind for probe in part) for part in (asked, asked[:n]))
    assert all(abs(some[kind] - n * whole[kind] / len(asked)) <= 1 for kind in PROBE_KINDS)


def test_answers_are_what_the_operands_give() -> None:
    for probe in probes(SPEC, n=500):
        a, b = probe.operands
        assert probe.answer == {"addition": a + b, "subtraction": a - b}.get(probe.kind, a * b)
        assert sorted(map(int, re.findall(r"\d+", probe.question))) == sorted(probe.operands)
        assert probe.answer >= 0


def test_operands_lie_in_the_ranges_of_their_kind() -> None:
    by_kind = {kind: [probe.operands for probe in probes(SPEC, n=400) if probe.kind == kind] for kind in PROBE_KINDS}
    assert set(by_kind["table"]) == {(a, b) for a in range(1, 10) for b in range(1, 10)}
    assert all(10 <= a <= 99 and 2 <= b <= 9 for a, b in by_kind["two-digit × one-digit"])
    assert all(1 <= a <= 100 and 1 <= b <= 100 for a, b in by_kind["addition"])
    assert len({tuple(sorted(operands)) for operands in by_kind["addition"]}) == 400
    assert all(1 <= b <= a <= 100 for a, b in by_kind["subtraction"])


def test_held_out_is_what_rests_on_a_held_out_fact() -> None:
    for probe in probes(SPEC):
        digits = [[int(digit) for digit in str(n) if digit != "0"] for n in probe.operands]
        rests = any(Fact.of(i, j) in SPEC.held_out_facts for i in digits[0] for j in digits[1])
        assert probe.held_out == (rests and probe.kind not in ("addition", "subtraction"))
    assert not any(probe.held_out for probe in probes(NONE_HELD_OUT))


def test_the_same_questions_are_asked_whatever_is_held_out() -> None:
    one, other = ({probe.id for probe in probes(DrillSpec(holdout_seed=s)) if "held" not in probe.kind} for s in (0, 1))
    assert one == other


def test_a_seed_draws_the_operands_and_ids_stay() -> None:
    first = {probe.id: probe for probe in probes(SPEC)}
    assert {probe.id: probe for probe in probes(SPEC)} == first
    assert {probe.id for probe in probes(SPEC, n=40)} < set(first)
    assert len(set(first) & {probe.id for probe in probes(SPEC, seed=1)}) < 250
    assert first["table/6*9"] == Probe("table", "What is 6 times 9?", 54, (6, 9), False, "table/6*9")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Q: What is 4 times 8?\nA: 4*8=32", {"table": (1, 2)}),  # 4*8 and 8*4
        ("8 × 4 = 32", {"table": (0, 2)}),
        ("8 times 4 equals 32, 5*5=25", {"table": (0, 3)}),
        ("what is 14*8=112", {}),
        ("What is 4 times 8? What is 8 times 4? What is 4 times 80?", {"table": (2, 0)}),
        ("4*8 is not said to be anything", {}),
        ("1.4*8=11.2", {}),
        ("What is 3 times 3? 3*3=9", {"table": (1, 1), "held-out facts": (0, 9)}),
        ("Find the product of 7 and 8.", {"held-out facts": (1, 0)}),
    ],
)
def test_overlap_finds_planted_questions_and_equations(text: str, found: dict[str, tuple[int, int]]) -> None:
    assert shown(probes(SPEC), "nothing here", text, "nor here: 3") == found


def test_overlap_finds_sums_and_differences() -> None:
    asked = {probe.kind: probe for probe in probes(SPEC)}
    (a, b), (c, d) = asked["addition"].operands, asked["subtraction"].operands
    assert shown(probes(SPEC), f"{b}+{a}={a + b}")["addition"] == (0, 1)
    assert shown(probes(SPEC), f"{c} minus {d} equals {c - d}")["subtraction"] == (0, 1)
    assert "subtraction" not in shown([asked["subtraction"]], f"{d}-{c}=0")
    assert shown(probes(SPEC), asked["subtraction"].question)["subtraction"] == (1, 0)


def test_training_drills_show_the_table_but_for_what_is_held_out() -> None:
    reports = {report.kind: report for report in overlap(probes(SPEC), islice(drill_documents(SPEC, 0), 800))}
    n_held_out = sum(probe.held_out for probe in probes(SPEC) if probe.kind == "table")
    assert reports["table"].n_equations == 81 - n_held_out
    assert (reports["held-out facts"].n_questions, reports["held-out facts"].n_equations) == (0, 0)
    validation = overlap(probes(SPEC), islice(drill_documents(SPEC, 0, "validation"), 400))
    assert validation[-1].n_questions > 0 and validation[-1].n_equations == validation[-1].n
