"""Files of problems in four formats → `Problem`s: question, written steps, answer, and an id made of nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction

from workings.arithmetic.answers import answer_in
from workings.arithmetic.chain import Step


@dataclass(frozen=True, slots=True)
class Problem:
    """A question, its chain as written (none is legal), and its answer as written; `source` says where it came from."""

    question: str
    steps: tuple[Step, ...]
    answer: str
    source: str = ""

    @property
    def id(self) -> str:
        """16 hex digits of the content: equal wherever question, steps and answer are, whatever the file or format."""
        content = [self.question, [[step.expression, step.result] for step in self.steps], self.answer]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def value(self) -> Fraction:
        """The answer as an exact number; raises ValueError where the answer holds none."""
        value = answer_in(self.answer)
        if value is None:
            raise ValueError(f"the answer {self.answer!r} of problem {self.id} holds no number")
        return value

    @property
    def n_steps(self) -> int:
        return len(self.steps)
