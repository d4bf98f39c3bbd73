"""The table of `conditional.judged` → five answers for each target, each *yes*, *no* or *undecided*; a pure function of the table.

| answer | the paired differences it rests on |
|---|---|
| before: was it there before the first thought? | S+B − S |
| read: do the thoughts add it to the question? | S+T − S, and S+T − each question reader, − S+untrained, − S+shuffled |
| of this step: and not of its neighbours? | S+N+T − (S+N) |
| in the thoughts: rather than before them? | S+B+T − (S+B) |
| needs the recurrence? | S+T of the model − S+T of the matched control |

S is the stack of question readers up to a rung; T, B and N are a thought, the states before the first thought and the true results
of the neighbouring steps. Of each difference, in bits and in points (percentage points of problems whose value is named):

* **yes**: the lower 95 % bound lies above `WORTH_BITS`, after Holm over the targets judged together, and the points are above 0.
  Where an answer rests on several differences, all of them (an intersection–union test, Berger 1982: no control is chosen as the
  best). The last three are yes only if *read* is.
* **no**: the upper one-sided 95 % bounds of one of these differences lie below `MARGIN` points and `MARGIN_BITS` (of several, with
  Bonferroni), the reader on the right still misses at least `ROOM` of the problems, at most `MOST_UNKNOWN` of the values are
  unknown to every reader, and bits and points do not contradict each other.
* **undecided**: otherwise; `why` says what stands in the way.

n counts structures (the numbers and operations of a chain), which problems may share. The intervals hold the fitted readers fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from scipy import stats

from workings.errors import BadInput
from workings.judging.paired import seeds_and_items, t_interval
from workings.judging.statistics import Array, ProblemSums, holm, with_columns
from workings.report.wording import number

RUNGS = ("surface", "first order", "computing")
"""The ladder of question readers, the weakest first; `questions` has them."""

JUDGED = {
    "reader": pl.String,
    "subject": pl.String,
    "features": pl.String,
    "targets": pl.String,
    "rung": pl.String,
    "layer": pl.String,
    "position": pl.String,
    "problem": pl.String,
    "structure": pl.String,
    "fold": pl.Int64,
    "value": pl.String,
    "known": pl.Boolean,
    "hit": pl.Boolean,
    "bits": pl.Float64,
}
"""Columns of the table: one row for each predictor (the first four columns) and tested problem. `rung` is that of a question
reader, or up to which the question readers are in the stack. `layer` and `position` are the place that was chosen. `known` is
whether training showed the value; where it did not, every reader misses and `bits` is null. `bits` is log₂ of the probability
given to the true value."""

Says = Literal["yes", "no", "undecided", "not asked"]
MARGIN = 0.05  # 5 points: the smallest gain worth having
MARGIN_BITS = 0.25
WORTH_BITS = 0.05  # what pure noise gains now and then by the luck of selection: with 0 instead, 3 to 9 % false yes
ROOM = 0.10
MOST_UNKNOWN = 0.40
LUCK_OF_FIT = (
    1.4  # two readers of different states each have their own luck of fitting; their difference varies so much more
)
LEVEL = 0.05
_TWO_SIDED, _ONE_SIDED = (float(stats.norm.ppf(1 - tail)) for tail in (LEVEL / 2, LEVEL))

QUESTIONS = ("before", "read", "of_this_step", "in_the_thoughts", "needs_the_recurrence")
IN_WORDS = {
    "before": "there before the first thought",
    "read": "read from the thoughts",
    "of_this_step": "of this step and not of its neighbours",
    "in_the_thoughts": "in the thoughts rather than before them",
    "needs_the_recurrence": "needs the recurrence",
}


@dataclass(frozen=True)
class Answer:
    """What was found of one question.

    Attributes:
        answer: "not asked" where the table lacks what it takes: no control, no state before the first thought.
        points, low, high: The gain in named problems, a fraction, with its 95 % interval; of several, the one that decides.
        bits, bits_low, bits_high: The gain in bits.
        n: Structures among the tested problems.
        n_problems: Tested problems.
        p: One-sided p of a gain of no more than `WORTH_BITS`, adjusted by Holm over the targets judged together.
        over: The right side of the difference that decides, in words.
        why: Why it is undecided, or how small a yes is.
    """

    answer: Says
    points: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    bits: float = float("nan")
    bits_low: float = float("nan")
    bits_high: float = float("nan")
    n: int = 0
    n_problems: int = 0
    p: float = 1.0
    over: str = ""
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """The five answers about one target.

    Attributes:
        rule: The target.
        declared: The rung of question readers that was named beforehand; all answers are given beside it.
        rung: The strongest rung beyond which the target is read; None if there is none.
        by_rung: The answer *read* for every rung up to the declared one.
        layer, position: The place at which the thoughts were read, where all folds chose the same; else "".
        named: Shares of the tested problems that a predictor names: "question" (the stack), "thoughts" (the stack and the state),
            "state" (the state alone).
        unknown: Share of the tested problems whose value training did not show.
        n_seeds: Training seeds that the table stands for.
    """

    rule: str
    declared: str
    rung: str | None
    before: Answer
    read: Answer
    of_this_step: Answer
    in_the_thoughts: Answer
    needs_the_recurrence: Answer
    by_rung: Mapping[str, Answer]
    layer: str
    position: str
    named: Mapping[str, float]
    unknown: float
    n_seeds: int

    @property
    def sentence(self) -> str:
        """What was found, in at most 30 words and two numbers."""
        read = self.read
        gain, bits = number(read.points, "points"), number(read.bits, "bits", signed=True)
        if read.answer == "yes":
            beyond = f"beyond {WHAT_IT_KNOWS[self.declared]} ({gain} points, {bits} bits)"
            return f"The thoughts hold {_target(self.rule)} {beyond}."
        if self.rung is not None:
            weaker, gained = WHAT_IT_KNOWS[self.rung], number(self.by_rung[self.rung].points, "points")
            all_of_it = WHAT_IT_KNOWS[self.declared]
            says = "they add nothing worth having" if read.answer == "no" else "it is not shown"
            return (
                f"The thoughts hold {_target(self.rule)} beyond {weaker} ({gained} points); beyond {all_of_it} {says}."
            )
        if read.answer == "no":
            known = WHAT_IT_KNOWS[self.declared]
            return f"About {_target(self.rule)} the thoughts add nothing to {known} ({gain} points, {bits} bits)."
        return f"Whether the thoughts hold {_target(self.rule)} is undecided ({gain} points, {bits} bits): {read.why}."

    def to_json(self) -> dict[str, object]:
        """The answers by question with their numbers, null where there is none; `read` has its rung, and the answer for each."""
        found: dict[str, object] = {question: _plain(getattr(self, question)) for question in QUESTIONS}
        by_rung = {rung: _plain(one) for rung, one in self.by_rung.items()}
        about = {"target": self.rule, "declared": self.declared, "layer": self.layer, "position": self.position}
        read = _plain(self.read) | {"rung": self.rung, "by_rung": by_rung}
        return {
            **found,
            "read": read,
            **about,
            "named": dict(self.named),
            "unknown": self.unknown,
            "n_seeds": self.n_seeds,
        }


def _plain(answer: Answer) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in asdict(answer).items()
    }


WHAT_IT_KNOWS = {
    "surface": "the words of the question",
    "first order": "the question's numbers one by one",
    "computing": "every reader of the question",
}
"""What the question readers up to a rung know, in words."""


def _target(rule: str) -> str:
    return "the answer" if rule == "answer" else f"the result of step {rule.removeprefix('step')}"


def checked_rung(rung: str) -> str:
    """The name of a rung; BadInput where it is none."""
    if rung not in RUNGS:
        raise BadInput(f"no rung '{rung}' of question readers; there are {', '.join(RUNGS)}")
    return rung


def verdicts(tables: Mapping[str, pl.DataFrame | Sequence[pl.DataFrame]], rung: str = RUNGS[-1]) -> dict[str, Verdict]:
    """Answer the five questions about some targets, which form one family.

    Args:
        tables: By target, the table of `conditional.judged`; a sequence of them where several training seeds were judged on the
            same problems.
        rung: The rung of question readers that was named beforehand.

    Raises:
        BadInput: A table is none of `judged`, or lacks the stack of that rung.
    """
    checked_rung(rung)
    found = {rule: _Evidence.of(rule, table, rung) for rule, table in tables.items()}
    asked: dict[str, dict[str, list[_Gain]]] = {
        question: {rule: gains for rule, one in found.items() if (gains := one.gains[question])}
        for question in QUESTIONS
    }
    for lower in RUNGS[: RUNGS.index(rung)]:
        asked[lower] = {rule: one.read_beyond(lower) for rule, one in found.items() if one.has(lower)}
    answers = {question: _family(by_rule) for question, by_rule in asked.items()}
    return {
        rule: _verdict(rule, one, rung, {q: by.get(rule) for q, by in answers.items()}) for rule, one in found.items()
    }


def _verdict(rule: str, evidence: _Evidence, rung: str, answers: Mapping[str, Answer | None]) -> Verdict:
    given = {question: answers[question] or Answer("not asked") for question in QUESTIONS}
    if given["read"].answer != "yes":
        for question in QUESTIONS[2:]:
            if given[question].answer == "yes":
                given[question] = replace(given[question], answer="undecided", why="it is not shown to be read")
    by_rung = {lower: one for lower in RUNGS if (one := given["read"] if lower == rung else answers.get(lower))}
    beaten = [lower for lower, one in by_rung.items() if one.answer == "yes"]
    return Verdict(
        rule=rule,
        declared=rung,
        rung=beaten[-1] if beaten else None,
        by_rung=by_rung,
        layer=evidence.place("layer"),
        position=evidence.place("position"),
        named=evidence.named(),
        unknown=evidence.unknown,
        n_seeds=len(evidence.tables),
        **given,
    )


def _family(by_rule: Mapping[str, list[_Gain]]) -> dict[str, Answer]:
    """One question about all targets that have it: yes after Holm."""
    worst = {rule: max(gain.p_nothing for gain in gains) for rule, gains in by_rule.items()}
    adjusted = dict(zip(worst, holm(list(worst.values())), strict=True))
    return {rule: _answer(gains, adjusted[rule]) for rule, gains in by_rule.items()}


def _answer(gains: list[_Gain], p: float) -> Answer:
    """The decision table above, for one target and question; `p` is Holm's."""
    least = min(gains, key=lambda gain: gain.bits - gain.bits_reach)
    # A single reader of the stack can only do worse than the stack: it takes no part in a no.
    rivals = [gain for gain in gains if not gain.of_one_reader]
    small = [gain for gain in rivals if gain.is_small(len(rivals))]
    shown = least
    if p <= LEVEL / 2 and least.points > 0:
        says: Says = "yes"
        why = "below the margin" if least.is_small(1) else ""
    elif small:
        says, shown = "no", min(small, key=lambda gain: gain.bits)
        why = ""
    else:
        says, why = "undecided", least.obstacle()
    return Answer(
        says,
        points=shown.points,
        low=max(shown.points - shown.points_reach, -1.0),
        high=min(shown.points + shown.points_reach, 1.0),
        bits=shown.bits,
        bits_low=shown.bits - shown.bits_reach,
        bits_high=shown.bits + shown.bits_reach,
        n=shown.n,
        n_problems=shown.n_problems,
        p=p,
        over=shown.over,
        why=why,
    )


# ---- differences between two predictors --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gain:
    """How much better one predictor does than another on the same problems; a reach is half of a 95 % interval."""

    points: float
    points_reach: float
    bits: float
    bits_reach: float
    n: int
    n_problems: int
    missed: float  # share that the right side misses
    unknown: float
    over: str
    of_one_reader: bool = False

    @property
    def p_nothing(self) -> float:
        """One-sided p of a gain of no more than `WORTH_BITS`; below .025 where the interval lies above it."""
        if not np.isfinite(self.bits_reach):
            return 1.0
        return float(stats.norm.sf(_TWO_SIDED * (self.bits - WORTH_BITS) / max(self.bits_reach, 1e-12)))

    def is_small(self, n_gains: int) -> bool:
        """Whether it is shown to be below the margin, with room for more."""
        share = float(stats.norm.ppf(1 - LEVEL / n_gains)) / _TWO_SIDED
        below = self.points + share * self.points_reach < MARGIN and self.bits + share * self.bits_reach < MARGIN_BITS
        return below and self.missed >= ROOM and self.unknown <= MOST_UNKNOWN and not self.contradicts_itself

    @property
    def contradicts_itself(self) -> bool:
        """Whether bits show a gain where points do not, or points where bits do not."""
        by_bits, by_points = self.bits - self.bits_reach > WORTH_BITS, self.points - self.points_reach > 0
        return (by_bits and self.points <= 0) or (by_points and self.bits <= 0)

    def obstacle(self) -> str:
        """Why nothing was decided."""
        if self.unknown > MOST_UNKNOWN:
            return "too many values are unknown to every reader"
        if self.missed < ROOM:
            return "the question alone leaves too little to gain"
        if self.contradicts_itself:
            return "points and bits contradict each other"
        return "more problems are needed"


_Key = tuple[str, str, str, str]
"""A predictor: reader, subject, features, targets."""


def _in_words(key: _Key) -> str:
    """What the right side of a difference is."""
    reader, subject, features, targets = key
    if targets == "shuffled":
        return "shuffled targets"
    if features == "S+T":
        return {"control": "the matched control", "untrained": "an untrained model"}[subject]
    if features in ("S", "Q"):
        return f"question readers up to {reader}" if features == "S" else reader
    return {"S+B": "the states before the first thought", "S+N": "the neighbouring results"}[features]


@dataclass(frozen=True)
class _Evidence:
    """The tables of one target, one a training seed, by predictor."""

    rule: str
    rung: str
    tables: list[dict[_Key, pl.DataFrame]]

    @classmethod
    def of(cls, rule: str, tables: pl.DataFrame | Sequence[pl.DataFrame], rung: str) -> _Evidence:
        several = [tables] if isinstance(tables, pl.DataFrame) else list(tables)
        for table in several:
            with_columns(table, JUDGED, f"a table of judging.judged ('{rule}')")
        keys = ["reader", "subject", "features", "targets"]
        found = cls(rule, rung, [table.partition_by(keys, as_dict=True, maintain_order=True) for table in several])
        if not several or not found.has(rung):
            raise BadInput(
                f"the table of '{rule}' has no stack of question readers up to '{rung}'; judge the states again with it"
            )
        first = found.tables[0][rung, "", "S", "real"]["problem"]
        for table in found.tables:
            if any(not rows["problem"].equals(first) for rows in table.values()):
                raise BadInput(f"the readers of '{rule}' were tested on different problems, so they cannot be paired")
        return found

    def has(self, rung: str) -> bool:
        return all(
            (rung, "", "S", "real") in table and (rung, "model", "S+T", "real") in table for table in self.tables
        )

    @cached_property
    def gains(self) -> dict[str, list[_Gain]]:
        """By question, the differences it rests on; none where the table lacks a side."""
        rung = self.rung
        pair = lambda left, right, **more: [one] if (one := self._gain(left, right, **more)) else []
        thoughts = (rung, "model", "S+T", "real")
        stretch = LUCK_OF_FIT if len(self.tables) == 1 else 1.0
        return {
            "before": pair((rung, "model", "S+B", "real"), (rung, "", "S", "real")),
            "read": self.read_beyond(rung),
            "of_this_step": pair((rung, "model", "S+N+T", "real"), (rung, "", "S+N", "real")),
            "in_the_thoughts": pair((rung, "model", "S+B+T", "real"), (rung, "model", "S+B", "real")),
            "needs_the_recurrence": pair(thoughts, (rung, "control", "S+T", "real"), stretch=stretch),
        }

    def read_beyond(self, rung: str) -> list[_Gain]:
        """The stack up to a rung and the thoughts against the stack, its readers, and the stack with states that hold nothing."""
        upto = RUNGS[: RUNGS.index(rung) + 1]
        single = [key for key, rows in self.tables[0].items() if key[2] == "Q" and rows["rung"][0] in upto]
        rivals = [
            (rung, "", "S", "real"),
            (rung, "untrained", "S+T", "real"),
            (rung, "model", "S+T", "shuffled"),
            *single,
        ]
        gains = [self._gain((rung, "model", "S+T", "real"), rival) for rival in rivals]
        return [gain for gain in gains if gain]

    def _gain(self, left: _Key, right: _Key, stretch: float = 1.0) -> _Gain | None:
        pairs = [(table[left], table[right]) for table in self.tables if left in table and right in table]
        if len(pairs) < len(self.tables):
            return None
        points, points_reach, n = _difference([_minus(a["hit"], b["hit"]) for a, b in pairs], self._structures, True)
        bits, bits_reach, _ = _difference([_minus(a["bits"], b["bits"]) for a, b in pairs], self._structures, False)
        return _Gain(
            points,
            stretch * points_reach,
            bits,
            stretch * bits_reach,
            n,
            len(pairs[0][0]),
            missed=1 - float(np.mean([_share(b["hit"]) for _, b in pairs])),
            unknown=self.unknown,
            over=_in_words(right),
            of_one_reader=right[2] == "Q",
        )

    @property
    def _stack(self) -> pl.DataFrame:
        return self.tables[0][self.rung, "", "S", "real"]

    @property
    def _structures(self) -> pl.Series:
        return self._stack["structure"]

    @property
    def unknown(self) -> float:
        """Share of the tested problems whose value no reader can name."""
        return 1 - _share(self._stack["known"])

    def named(self) -> dict[str, float]:
        """Shares named by the stack, by the stack and the state, by the state alone; means over seeds."""
        keys = {
            "question": (self.rung, "", "S", "real"),
            "thoughts": (self.rung, "model", "S+T", "real"),
            "state": ("linear probe", "model", "T", "real"),
        }
        return {
            name: float(np.mean([_share(t[key]["hit"]) for t in self.tables]))
            for name, key in keys.items()
            if all(key in t for t in self.tables)
        }

    def place(self, column: str) -> str:
        places = {value for table in self.tables for value in table[self.rung, "model", "S+T", "real"][column].unique()}
        return places.pop() if len(places) == 1 else ""


def _share(flags: pl.Series) -> float:
    return float(flags.to_numpy().mean())


def _minus(left: pl.Series, right: pl.Series) -> Array:
    """The difference for each problem; 0 where the value is unknown, for there neither side can be better."""
    return np.nan_to_num(left.to_numpy().astype(np.float64) - right.to_numpy().astype(np.float64))


def _difference(by_seed: list[Array], structures: pl.Series, are_shares: bool) -> tuple[float, float, int]:
    """(mean, half of its 95 % interval, number of structures) of differences for each problem."""
    sums = [ProblemSums.of(one, structures) for one in by_seed]
    n = len(sums[0].sums)
    values = np.array([one.linearised()[:, 0] for one in sums])
    around = seeds_and_items(values) if len(values) > 1 else t_interval(values[0].tolist())
    mean, reach = float(np.mean([one.means()[0] for one in sums])), (around.high - around.low) / 2
    if are_shares and reach == 0:
        reach = 3 / n  # the rule of three: what none of n showed may still have a probability of 3/n
    return mean, reach, n
