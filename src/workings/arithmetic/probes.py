"""Probe questions for a model's arithmetic, and how many of them given texts show.

A probe is plain digits; every arm is asked the same questions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal, get_args

from workings import seeds
from workings.arithmetic.drills import DrillSpec
from workings.arithmetic.exercises import QUESTIONS, STYLES, TABLE, added, multiplied, subtracted

ProbeKind = Literal["table", "two-digit × one-digit", "addition", "subtraction", "held-out facts"]
PROBE_KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)

Operands = tuple[int, int]
_TENS, _HUNDRED = range(10, 100), range(1, 101)
_DRAWN: tuple[tuple[ProbeKind, str, list[Operands]], ...] = (
    ("two-digit × one-digit", "*", [(a, b) for a in _TENS for b in range(2, 10)]),
    ("addition", "+", [(a, b) for a in _HUNDRED for b in _HUNDRED]),
    ("subtraction", "-", [(a, b) for a in _HUNDRED for b in range(1, a + 1)]),
)
_FAMILIES = {"*": "MUL", "+": "ADD", "-": "SUB"}
_WORK = {"*": multiplied, "+": added, "-": subtracted}

# How the drills write equations: "6*9=54", "6 times 9 equals 54"; the mark for each way of writing it.
_FORMS = [(mark, *map(str.strip, form.split("%d")[1:3])) for style in STYLES for mark, form in style.items()]
_MARKS = {written: mark for mark, written, _ in _FORMS if mark in _WORK}
_EQUALS = {equals for *_, equals in _FORMS}
_EQUATION = re.compile(
    rf"(?<![\d.])(\d+) ?({'|'.join(map(re.escape, _MARKS))}) ?(\d+) ?(?:{'|'.join(sorted(_EQUALS))}) ?\d"
)
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Probe:
    """One question. `held_out`: it rests on a fact that training drills never show. `id` follows from the question's content."""

    kind: ProbeKind
    question: str
    answer: int
    operands: Operands
    held_out: bool
    id: str


@dataclass(frozen=True)
class Overlap:
    """Overlap of the `n` probes of a kind with some texts: questions found word for word, and equations found.

    An equation counts in either order of its operands (6*9, 9*6) and however the drills write it; `n_equations` is None
    where the texts' equations mean nothing.
    """

    kind: ProbeKind
    n: int
    n_questions: int
    n_equations: int | None


def probes(spec: DrillSpec | None = None, n: int = 100, seed: int = 0) -> list[Probe]:
    """Make the probes: the whole times table (81), `n` of each other kind, and every held-out fact in both orders and all wordings.

    No two questions are the same. The kinds are spread through the list, so that its first items hold each in proportion.

    Args:
        spec: Drills whose held-out facts mark a probe as held out; by default those of `DrillSpec()`.
        n: Probes of each kind that is drawn.
        seed: Selects the operands.
    """
    spec = spec or DrillSpec()
    draw = seeds.python("probes table", seed).random
    kinds = [[_probe(spec, "table", "*", operands) for operands in sorted(TABLE, key=lambda _: draw())]]
    for kind, mark, among in _DRAWN:
        kinds.append([_probe(spec, kind, mark, operands) for operands in islice(_shuffled(among, kind, mark, seed), n)])
    held_out = [operands for operands, fact in TABLE.items() if fact in spec.held_out_facts]
    wordings = range(1, len(QUESTIONS["MUL"]))  # the first is that of the table
    kinds.append([_probe(spec, "held-out facts", "*", both, wording) for wording in wordings for both in held_out])
    places = {probe: (i + 0.5) / len(kind) for kind in kinds for i, probe in enumerate(kind)}
    return sorted(places, key=places.__getitem__)


def overlap(probes: Sequence[Probe], texts: Iterable[str]) -> list[Overlap]:
    """Count how much of the probes raw texts show (plain digits, as `drill_documents` gives them), kind by kind."""
    by_operands: dict[Operands, list[Probe]] = defaultdict(list)
    for probe in probes:
        by_operands[probe.operands].append(probe)
    worded: set[str] = set()
    stated: set[tuple[str, int, int]] = set()
    for text in texts:
        stated |= {_canonical(_MARKS[mark], int(a), int(b)) for a, mark, b in _EQUATION.findall(text)}
        for neighbours in set(_neighbours(text)):
            worded |= {probe.id for probe in by_operands.get(neighbours, ()) if probe.question in text}
    found = []
    for kind in PROBE_KINDS:
        operator = {"addition": "+", "subtraction": "-"}.get(kind, "*")
        of_kind = [probe for probe in probes if probe.kind == kind]
        n_equations = sum(_canonical(operator, *probe.operands) in stated for probe in of_kind)
        found.append(Overlap(kind, len(of_kind), sum(probe.id in worded for probe in of_kind), n_equations))
    return found


def _probe(spec: DrillSpec, kind: ProbeKind, mark: str, operands: Operands, wording: int = 0) -> Probe:
    family, (a, b) = _FAMILIES[mark], operands
    steps = _WORK[mark](a, b)
    name = f"{kind}/{a}{mark}{b}" + (f"/{family} {wording}" if wording else "")
    question = QUESTIONS[family][wording].format(a, b)
    return Probe(kind, question, steps[-1][-1], operands, spec.rests_on_held_out(steps), name)


def _shuffled(among: Sequence[Operands], kind: str, mark: str, seed: int) -> Iterator[Operands]:
    """The operands in the seed's order, without 45+23 after 23+45."""
    draw = seeds.python(f"probes {kind}", seed).random
    seen: set[tuple[str, int, int]] = set()
    for operands in sorted(among, key=lambda _: draw()):
        if _canonical(mark, *operands) not in seen:
            seen.add(_canonical(mark, *operands))
            yield operands


def _canonical(mark: str, a: int, b: int) -> tuple[str, int, int]:
    return (mark, b, a) if mark in "+*" and a > b else (mark, a, b)


def _neighbours(text: str) -> Iterator[Operands]:
    """Pairs of consecutive numbers, in both orders, because a question may name its second operand first."""
    for a, b in pairwise(map(int, _NUMBER.findall(text))):
        yield a, b
        yield b, a
