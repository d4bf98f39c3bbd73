"""The judge of stored states: anybody's, without a model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workings.cli.options import Printing, option, positional
from workings.errors import BadInput
from workings.files import write_with
from workings.judging.conditional import Asked, judged
from workings.judging.verdict import IN_WORDS, QUESTIONS, Answer, Verdict, verdicts
from workings.progress import say
from workings.reading import ThoughtStore
from workings.report.wording import interval, number


@dataclass(frozen=True, kw_only=True)
class Judge(Printing):
    """Say what stored thoughts hold about the results of steps.

    Five answers are given for each target, each yes, no or undecided. No model is needed: the states may come from
    anybody's code (`ThoughtStore.from_arrays`). The targets named together are one family, corrected by Holm.
    """

    thoughts: str = positional(help="store of thoughts, from workings thoughts collect or ThoughtStore.from_arrays")
    target: tuple[str, ...] = option(("step1",), "targets: step1, step2, … for the result of that step, or answer")
    control: str | None = option(None, "store of the matched control without recurrence, on the same problems")
    untrained: str | None = option(None, "store of an untrained model, on the same problems")
    rung: Literal["surface", "first order", "computing"] = option(
        "computing", "strongest question readers that the thoughts must beat"
    )
    seed: int = option(0, "random seed for folds, shuffled targets and question readers")
    out: str | None = option(None, "folder for the tables behind the answers, one Parquet file for each target")

    def __call__(self) -> None:
        store = ThoughtStore.open(self.thoughts)
        others = [None if path is None else ThoughtStore.open(path) for path in (self.control, self.untrained)]
        if len(set(self.target)) < len(self.target):
            raise BadInput(f"a target is named twice: {' '.join(self.target)}")
        if self.out:  # now, so that a place that cannot be written shows before the work
            Path(self.out).mkdir(parents=True, exist_ok=True)
        problems, tables = store.as_problems(), {}
        for rule in self.target:
            say(f"judging {rule}")
            tables[rule] = judged(Asked.of(rule, problems, store.splits, self.seed), store, *others, rung=self.rung)
            if self.out:
                write_with(Path(self.out) / f"judged_{rule}.parquet", tables[rule].write_parquet)
        found = verdicts(tables, self.rung)
        if self.json:
            print(json.dumps({rule: one.to_json() for rule, one in found.items()}, ensure_ascii=False))
            return
        print("\n\n".join(_in_lines(one) for one in found.values()))


def _in_lines(found: Verdict) -> str:
    """The sentence, then a line for each question and for each rung."""
    lines = [found.sentence]
    lines += [_line(IN_WORDS[question], getattr(found, question)) for question in QUESTIONS]
    lines += [_line(f"read beyond {rung}", one) for rung, one in found.by_rung.items()]
    return "\n".join(lines)


def _line(question: str, found: Answer) -> str:
    if found.answer == "not asked":
        return f"  {question:40} not asked"
    points = f"{number(found.points, 'points')} points {interval(found.low, found.high, 'points')}"
    bits = f"{number(found.bits, 'bits', signed=True)} bits {interval(found.bits_low, found.bits_high, 'bits', signed=True)}"
    return (
        f"  {question:40} {found.answer:9}  {points}, {bits}, n = {found.n:,}{f' ({found.why})' if found.why else ''}"
    )
