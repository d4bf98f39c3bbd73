"""Probe questions for a model's arithmetic, and how many of them given texts show.

A probe is plain digits; every arm is asked the same questions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal, get_args

from workings import seeds
from workings.arithmetic.drills import DrillSpec
from workings.arithmetic.exercises import FAMILY_OF, QUESTIONS, STYLES, TABLE, WORK, canonical
from workings.arithmetic.facts import Fact

ProbeKind = Literal["table", "two-digit × one-digit", "addition", "subtraction", "held-out facts"]
PROBE_KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)

Operands = tuple[int, int]
_OPERATORS: dict[ProbeKind, str] = dict(zip(PROBE_KINDS, "**+-*", strict=True))
_TENS, _HUNDRED = range(10, 100), range(1, 101)
_DRAWN: dict[ProbeKind, list[Operands]] = {
    "two-digit × one-digit": [(a, b) for a in _TENS for b in range(2, 10)],
    "addition": [(a, b) for a in _HUNDRED for b in _HUNDRED],
    "subtraction": [(a, b) for a in _HUNDRED for b in range(1, a + 1)],
}

# How the drills write equations: "6*9=54", "6 times 9 equals 54".
_FORMS = [(operator, *map(str.strip, form.split("%d")[1:3])) for style in STYLES for operator, form in style.items()]
_OPERATOR_OF = {written: operator for operator, written, _ in _FORMS if operator in _OPERATORS.values()}
_EQUALS = {equals for *_, equals in _FORMS}
_EQUATION = re.compile(
    rf"(?<![\d.])(\d+) ?({'|'.join(map(re.escape, _OPERATOR_OF))}) ?(\d+) ?(?:{'|'.join(sorted(_EQUALS))}) ?\d"
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

    @property
    def fact(self) -> Fact:
        """The equation that the question asks for."""
        return Fact.of(*self.operands, family=FAMILY_OF[_OPERATORS[self.kind]])


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
    kinds = [[_probe(spec, "table", operands) for operands in sorted(TABLE, key=lambda _: draw())]]
    for kind, among in _DRAWN.items():
        draw = seeds.python(f"probes {kind}", seed).random
        distinct: dict[tuple[str, int, int], Operands] = {}  # no 45+23 after 23+45
        for operands in sorted(among, key=lambda _: draw()):
            distinct.setdefault(canonical(_OPERATORS[kind], *operands), operands)
        kinds.append([_probe(spec, kind, operands) for operands in islice(distinct.values(), n)])
    held_out = [operands for operands, fact in TABLE.items() if fact in spec.held_out_facts]
    wordings = range(1, len(QUESTIONS["MUL"]))  # the first is that of the table
    kinds.append([_probe(spec, "held-out facts", both, wording) for wording in wordings for both in held_out])
    places = {probe: (i + 0.5) / len(kind) for kind in kinds for i, probe in enumerate(kind)}
    return sorted(places, key=places.__getitem__)


def overlap(probes: Sequence[Probe], texts: str | Iterable[str]) -> list[Overlap]:
    """Count how much of the probes raw texts show (plain digits, as `drill_documents` gives them), kind by kind."""
    by_operands: dict[Operands, list[Probe]] = defaultdict(list)
    for probe in probes:
        by_operands[probe.operands].append(probe)
    worded: set[str] = set()
    stated: set[tuple[str, int, int]] = set()
    for text in [texts] if isinstance(texts, str) else texts:
        stated |= {canonical(_OPERATOR_OF[written], int(a), int(b)) for a, written, b in _EQUATION.findall(text)}
        # Pairs of consecutive numbers, in both orders, because a question may name its second operand first.
        neighbours = set(pairwise(map(int, _NUMBER.findall(text))))
        for operands in neighbours | {(b, a) for a, b in neighbours}:
            worded |= {probe.id for probe in by_operands.get(operands, ()) if probe.question in text}
    found = []
    for kind, operator in _OPERATORS.items():
        of_kind = [probe for probe in probes if probe.kind == kind]
        n_equations = sum(canonical(operator, *probe.operands) in stated for probe in of_kind)
        found.append(Overlap(kind, len(of_kind), sum(probe.id in worded for probe in of_kind), n_equations))
    return found


def _probe(spec: DrillSpec, kind: ProbeKind, operands: Operands, wording: int = 0) -> Probe:
    operator, (a, b) = _OPERATORS[kind], operands
    family = FAMILY_OF[operator]
    steps = WORK[operator](a, b, False)
    name = f"{kind}/{a}{operator}{b}" + (f"/{family} {wording}" if wording else "")
    question = QUESTIONS[family][wording].format(a, b)
    return Probe(kind, question, steps[-1][-1], operands, spec.rests_on_held_out(steps), name)
