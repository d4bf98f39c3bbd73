"""Skill over the controls, with its intervals → one of four answers, and the sentence that says it.

*Read* takes an interval that excludes no skill, over the best control and over the control without recurrence.
*Explained* takes one that excludes a skill worth having (`margin`). One that excludes neither leaves it undecided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from workings.judging.scores import CONTROLS, at_one_layer, choose_layer, score, skill
from workings.report.wording import interval, number

Kind = Literal["read", "explained by a control", "nothing read", "undecided"]
MARGIN = 0.05  # a smaller skill would not be worth having: 5 points
WITHOUT_RECURRENCE = "control model"

_NAMED = {WITHOUT_RECURRENCE: "a matched model without recurrence"}
_DOES_AS_WELL = {
    "majority": "always naming each position's commonest token",
    "structure only": "knowing the position and the length of the chain, and no thought,",
    "copy from question": "copying numbers out of the question",
    "shuffled targets": "the same lens fitted on shuffled targets",
    "untrained model": "the same lens on an untrained model",
    WITHOUT_RECURRENCE: "a matched model without recurrence",
}


@dataclass(frozen=True)
class Verdict:
    """The answer, the sentence for the top of a report, and every number in it (flat, ready for JSON)."""

    kind: Kind
    sentence: str
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Lead:
    """The lens's lead over one control at one measure."""

    control: str
    value: float
    low: float
    high: float
    lens_value: float
    control_value: float

    def numbers(self, name: str) -> dict[str, Any]:
        keys = {"": self.value, "_low": self.low, "_high": self.high}
        return {f"{name}{key}": value for key, value in keys.items()} | {
            f"{name}_control": self.control,
            f"{name}_control_value": self.control_value,
        }

    def in_points(self) -> str:
        return f"{number(self.value, 'points')} points {interval(self.low, self.high, 'share')}"

    def in_bits(self) -> str:
        return f"{number(self.value, 'bits', signed=True)} bits {interval(self.low, self.high, 'bits')}"


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on: the lens at one layer, its lead over the best control, and over some by themselves."""

    lens: str
    layer: str
    n_seeds: int
    margin: float
    score: Mapping[str, Any]  # the lens's row of `score`
    points: Lead  # over the best control
    bits: Lead  # over the best control in bits
    majority: Lead | None
    recurrence: Lead | None  # over the matched control without recurrence
    others: Lead | None  # over the best of the other controls, where there is one without recurrence

    @property
    def decisive(self) -> Lead:
        """The lead that is less sure, over the best control or over the one without recurrence."""
        return min((lead for lead in (self.points, self.recurrence) if lead), key=lambda lead: lead.low)

    @property
    def kind(self) -> Kind:
        if self.decisive.low > 0:
            return "read"
        if self.majority and self.majority.high < 0:
            return "nothing read"
        if self.bits.low > 0 or self.decisive.high > self.margin:
            return "undecided"
        return "explained by a control"

    def numbers(self) -> dict[str, Any]:
        own = {"lens": self.lens, "layer": self.layer, "n_seeds": self.n_seeds, "margin": self.margin}
        own |= {name: self.score[name] for name in ("n_problems", "n_rows", "ce", "top1", "top1_low", "top1_high")}
        leads = {"skill": self.points, "bits": self.bits, "over_majority": self.majority}
        leads |= {"over_no_recurrence": self.recurrence, "over_the_others": self.others}
        for name, lead in leads.items():
            own |= lead.numbers(name) if lead else {}
        return own


def verdict(
    readings: pl.DataFrame,
    lens: str = "tuned lens",
    *,
    n_seeds: int = 1,
    layer: str | None = None,
    margin: float = MARGIN,
) -> Verdict:
    """What the test rows say of a lens at the layer chosen on validation (or at `layer`).

    `n_seeds` is the number of training runs the readings stand for; the intervals cover problems, not runs.
    """
    found = evidence(readings, lens, n_seeds=n_seeds, layer=layer, margin=margin)
    sentences = (_headline(found), _on_recurrence(found), _on_seeds(found))
    return Verdict(found.kind, " ".join(each for each in sentences if each), found.numbers())


def evidence(
    readings: pl.DataFrame, lens: str, *, n_seeds: int = 1, layer: str | None = None, margin: float = MARGIN
) -> Evidence:
    """Everything a verdict rests on. Each control is taken at the layer where it does best on validation."""
    layer = choose_layer(readings, lens) if layer is None else layer
    readers = set(readings["reader"].unique())
    at_top1, at_bits = (at_one_layer(readings, lens, layer, measure) for measure in ("top1", "bits"))

    def lead(*controls: str) -> Lead | None:
        present = [control for control in controls if control in readers]
        return _lead(at_top1, lens, present, "top1") if present else None

    recurrence = lead(WITHOUT_RECURRENCE)
    return Evidence(
        lens,
        layer,
        n_seeds,
        margin,
        score(at_top1.filter(reader=lens)).row(0, named=True),
        _lead(at_top1, lens, None, "top1"),
        _lead(at_bits, lens, None, "bits"),
        lead("majority"),
        recurrence,
        lead(*(control for control in CONTROLS if control != WITHOUT_RECURRENCE)) if recurrence else None,
    )


def _lead(readings: pl.DataFrame, lens: str, controls: list[str] | None, measure: str) -> Lead:
    row = skill(readings, lens, controls=controls).row(by_predicate=pl.col("measure") == measure, named=True)
    return Lead(row["control"], row["skill"], row["low"], row["high"], row["lens_value"], row["control_value"])


def _headline(found: Evidence) -> str:
    share, best = found.score, found.points
    at = f" at {found.layer}" if found.layer else ""
    over = f" over {_NAMED.get(found.bits.control, found.bits.control)}" if found.bits.control != best.control else ""
    return (
        f"The {found.lens} names the target {number(share['top1'], 'share')} % "
        f"{interval(share['top1_low'], share['top1_high'], 'share')} of the time{at} "
        f"(n = {share['n_problems']:,} problems); the best control ({_NAMED.get(best.control, best.control)}) "
        f"{number(best.control_value, 'share')} %; skill {best.in_points()}, {found.bits.in_bits()}{over}: "
        f"{_conclusion(found)}."
    )


def _conclusion(found: Evidence) -> str:
    best = found.points
    if found.kind == "read":
        return "the thoughts hold more than the controls explain"
    if found.kind == "nothing read" and found.majority:
        commonest = number(found.majority.control_value, "share")
        return f"always naming each position's commonest token does better ({commonest} %), so nothing was read"
    if found.decisive is not best:
        return "this control is beaten" if best.low > 0 else "this control is not clearly beaten"
    if found.kind == "explained by a control":
        return f"{_DOES_AS_WELL.get(best.control, best.control)} does {'better' if best.high < 0 else 'as well'}"
    if best.high <= found.margin:
        return "the lens names no more targets than the control and yet finds them likelier, so this stays undecided"
    worth_having = number(found.margin, "share", 0)
    return f"the interval excludes neither no skill nor {worth_having} points of it, so more problems are needed"


def _on_recurrence(found: Evidence) -> str:
    lead, others = found.recurrence, found.others
    if lead is None or found.kind == "nothing read":
        return ""
    is_best = found.points.control == WITHOUT_RECURRENCE
    reads = f"{number(lead.control_value, 'share')} % (difference {lead.in_points()})"
    if lead.low > 0:
        return "" if is_best else f"A matched model without recurrence reads {reads}."
    over = f"Over the best other control ({others.control}) the skill is {others.in_points()}. " if others else ""
    if lead.high > found.margin:
        says = f"Whether this needs recurrence stays open: a matched model without it reads {reads}."
    else:
        says = f"A matched model without recurrence reads as well, {reads}: what is read needs no recurrence."
    return (over if is_best else "") + says


def _on_seeds(found: Evidence) -> str:
    if found.n_seeds > 1:
        return ""
    return "One training seed: the interval is items only and says nothing about the method."
