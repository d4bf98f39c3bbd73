"""A model whose thoughts are known: noise everywhere, but for one token in one direction at one layer and position.

What is planted is the result of step 1, along a rotation of its row of the unembedding: a lens has to learn it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn

from workings.arithmetic.answers import answer_in
from workings.arithmetic.chain import Step, read_chain, write_chain
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import Unembedding, layer_names, position_names
from workings.reading.target_rules import Spelling

MARKS = ["<<", ">>", "+", "-", "*", "/", "="]
NUMBERS = 64
WIDTH = 32


@dataclass(frozen=True)
class ToyThoughts:
    hidden: Tensor
    question: Tensor


@dataclass(frozen=True)
class ToyAnswer:
    text: str
    token_ids: list[int]
    value: Fraction | None


def encode(text: str) -> list[int]:
    """One token for a number below 64; a longer number is written digit by digit."""
    ids = []
    for piece in re.findall(r"\d+|<<|>>|\S", text):
        if piece in MARKS:
            ids.append(NUMBERS + MARKS.index(piece))
        elif piece.isdigit():
            ids += [int(piece)] if int(piece) < NUMBERS else [int(digit) for digit in piece]
    return ids


def decode(ids: Sequence[int]) -> str:
    return " ".join(str(i) if i < NUMBERS else MARKS[i - NUMBERS] for i in ids)


SPELLING = Spelling(encode, decode, lambda problem: encode(write_chain(problem.steps)))


class ToyThinker:
    """`planted` names the layer and position that hold step 1's result; None plants nothing (the untrained control)."""

    n_thoughts = 3
    layers = layer_names(3)
    device = torch.device("cpu")
    context_words = 30

    def __init__(self, planted: tuple[str, str] | None = ("block1", "t2"), seed: int = 0, delay: float = 0.0) -> None:
        random = torch.Generator().manual_seed(seed)
        weight = torch.randn(NUMBERS + len(MARKS), WIDTH, generator=random) / WIDTH**0.5
        self.unembedding = Unembedding(nn.LayerNorm(WIDTH), weight)
        self.rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=random))[0]
        self.planted, self.delay = planted, delay
        self.fingerprint = f"toy-{planted}-{seed}"
        self.calls: list[int] = []

    def positions(self, n_thoughts: int | None = None) -> tuple[str, ...]:
        return position_names(self.n_thoughts if n_thoughts is None else n_thoughts)

    def chain_ids(self, problem: Problem) -> list[int]:
        return list(SPELLING.chain_ids(problem))

    @torch.no_grad()
    def think_and_answer(
        self, questions: Sequence[str], *, n_thoughts: int | None, max_new_tokens: int, batch_size: int
    ) -> tuple[ToyThoughts, list[ToyAnswer]]:
        time.sleep(self.delay)
        self.calls.append(len(questions))
        for question in questions:
            if len(question.split()) > self.context_words:
                raise BadInput(f"a question of {len(question.split())} words does not fit {self.context_words}")
            if "boom" in question:
                raise RuntimeError("the toy broke")
        said = [re.findall(r"\d+", question)[-1] if max_new_tokens else "" for question in questions]
        answers = [ToyAnswer(text, encode(text), answer_in(text)) for text in said]
        hidden = torch.stack([self._hidden(question, n_thoughts) for question in questions])
        return ToyThoughts(hidden, hidden[:, 0].flip(-1)), answers  # the mean over a question is noise, too

    def _hidden(self, question: str, n_thoughts: int | None) -> Tensor:
        """[1+K, L+1, d]: a function of the question alone."""
        random = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(question.encode()).digest()[:7], "big"))
        positions = self.positions(n_thoughts)
        hidden = torch.randn(len(positions), len(self.layers), WIDTH, generator=random)
        if self.planted is not None:
            layer, position = self.planted
            a, b = (int(n) for n in re.findall(r"\d+", question)[:2])
            direction = self.unembedding.weight[a + b] @ self.rotation
            hidden[positions.index(position), self.layers.index(layer)] += 6 * direction
        hidden[:, -1] = self.unembedding.norm(hidden[:, -1])
        return hidden * (torch.nan if "nan" in question else 1)


def problem(i: int, words: str = "") -> Problem:
    """The i-th toy problem: two numbers added, the sum doubled. Every i gives another question."""
    a, b = 1 + i % 4, 1 + i // 4 % 4
    steps = (Step(f"{a}+{b}", str(a + b)), Step(f"{a + b}*2", str((a + b) * 2)))
    return Problem(f"Box {'abcdefghij'[i % 10]}{words} holds {a} and {b} pens, twice, no {i}.", steps, str((a + b) * 2))


def problems(n: int) -> list[Problem]:
    return [problem(i) for i in range(n)]


assert read_chain(write_chain(problem(0).steps)) == problem(0).steps
