"""Planted machines as states: problems → what a model, its matched control and an untrained model hold, with the truth known.

A machine is a few lines that write into `Canvas`: the background of every state (a mean for each layer and position, noise that is
far stronger in some directions than in others) and, on top of it, whatever the machine holds. It says what is true of each of
the five answers; "either" where the truth lies at the margin. Strengths are in centred standard deviations at that place.
Shapes: n problems, L layers, P positions, d width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from workings import seeds
from workings.arithmetic.problems import Problem
from workings.reading.store import StatesInMemory

LAYERS = ("block1", "block2", "final_norm")
THOUGHTS = ("t1", "t2", "t3", "t4", "t5", "t6")
BEFORE = ("question", "bot")
POSITIONS = BEFORE + THOUGHTS
WIDTH = 64
NUMBERS = 21  # values of the bundled preset: 0 to 20

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


# ---- what a question or its chain is, as numbers -----------------------------------------------------------------


def results(problems: Sequence[Problem], k: int) -> Ints:
    """The result of step k of each problem [n]; the answer where the chain is over before."""
    return np.array([int(p.steps[min(k, p.n_steps) - 1].result) for p in problems])


def bag(problems: Sequence[Problem]) -> Floats:
    """How often each word or number stands in each question, [n, words]."""
    pieces = [re.findall(r"\w+", p.question) for p in problems]
    column = {word: i for i, word in enumerate(sorted({word for some in pieces for word in some}))}
    counts = np.zeros((len(problems), len(column)), np.float32)
    for row, some in enumerate(pieces):
        for word in some:
            counts[row, column[word]] += 1
    return counts


def parse(problems: Sequence[Problem]) -> Floats:
    """The question as one-hot numbers and operators by place, [n, places]: all that it says, and nothing computed from it."""
    parsed = np.zeros((len(problems), 6, NUMBERS + 4), np.float32)
    for row, problem in enumerate(problems):
        start, *_ = re.split(r"\D", problem.steps[0].expression)
        parsed[row, 0, int(start)] = 1
        for place, step in enumerate(problem.steps[:5], start=1):
            _, operator, operand = re.split(r"(\D)", step.expression)
            parsed[row, place, int(operand)] = 1
            parsed[row, place, NUMBERS + "+-*/".index(operator)] = 1
    return parsed.reshape(len(problems), -1)


# ---- the canvas --------------------------------------------------------------------------------------------------


class Canvas:
    """States [n, L, P, d] of one model. `random` decides the model (directions, means) and its noise."""

    def __init__(self, problems: Sequence[Problem], random: np.random.Generator) -> None:
        self.problems, self.random = problems, random
        self.means = 3 * random.normal(size=(len(LAYERS), len(POSITIONS), WIDTH)).astype(np.float32)
        self.states = np.stack([self._noise() for _ in LAYERS], 1) + self.means

    def _noise(self) -> Floats:
        """[n, P, d]: its strongest direction is sixteen times its weakest; of unit variance on average."""
        deviations = np.geomspace(1, 1 / 16, WIDTH)
        deviations /= np.sqrt((deviations**2).mean())
        turned = np.linalg.qr(self.random.normal(size=(WIDTH, WIDTH)))[0]
        noise = self.random.normal(size=(len(self.problems), len(POSITIONS), WIDTH)) * deviations @ turned
        return noise.astype(np.float32)

    def directions(self, n: int) -> Floats:
        """n random unit directions, [n, d]."""
        drawn = self.random.normal(size=(n, WIDTH)).astype(np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    def plant(
        self, values: Ints, strength: float, positions: Sequence[str], layers: Sequence[str] = ("block2", "final_norm")
    ) -> None:
        """Add to each problem's states the direction of its value [n]; nothing where it is −1."""
        table = np.concatenate([self.directions(NUMBERS), np.zeros((1, WIDTH), np.float32)])
        for layer in layers:
            for position in positions:
                self.at(layer, position)[...] += strength * np.sqrt(WIDTH) * table[values]

    def spread(self, features: Floats, strength: float, positions: Sequence[str] = POSITIONS) -> None:
        """Add random linear images of features [n, f], of `strength` standard deviations, to every layer."""
        image = (features - features.mean(0)) @ self.directions(features.shape[1])
        image *= strength / image.std()
        for layer in LAYERS:
            for position in positions:
                self.at(layer, position)[...] += image

    def copy(self, source: str, positions: Sequence[str], noise: float) -> None:
        """States at `positions` become the state at `source`, rotated, with their own means and a little noise of their own."""
        for i, layer in enumerate(LAYERS):
            turned = np.linalg.qr(self.random.normal(size=(WIDTH, WIDTH)))[0].astype(np.float32)
            image = (self.at(layer, source) - self.means[i, POSITIONS.index(source)]) @ turned
            for position in positions:
                own = noise * self.random.normal(size=image.shape).astype(np.float32)
                self.at(layer, position)[...] = self.means[i, POSITIONS.index(position)] + image + own

    def at(self, layer: str, position: str) -> Floats:
        """The states [n, d] of one place, as a view."""
        return self.states[:, LAYERS.index(layer), POSITIONS.index(position)]

    def stored(self, name: str) -> StatesInMemory:
        states = {layer: torch.from_numpy(np.ascontiguousarray(self.states[:, i])) for i, layer in enumerate(LAYERS)}
        return StatesInMemory(states, POSITIONS, [p.id for p in self.problems], name)


# ---- what the machines hold --------------------------------------------------------------------------------------

Holding = Callable[[Canvas], None]


def noise(canvas: Canvas) -> None:
    """Nothing."""


def bag_of_words(canvas: Canvas) -> None:
    canvas.spread(bag(canvas.problems), 2)


def bag_through_mlp(canvas: Canvas) -> None:
    """What a position-blind network may make of the words."""
    canvas.spread(_hidden_units(bag(canvas.problems), canvas.random), 2)


def question_parsed(canvas: Canvas, at: Sequence[str] = POSITIONS) -> None:
    """Other features at each thought, so that all of them together give the parse away."""
    for position in at:
        canvas.spread(parse(canvas.problems), 2, [position])


def random_network(canvas: Canvas) -> None:
    """What an untrained network makes of the parsed question: numbers do meet, by accident."""
    for position in POSITIONS:
        canvas.spread(_hidden_units(parse(canvas.problems), canvas.random), 2, [position])


def chain(canvas: Canvas, strength: float) -> None:
    """The result of step k at thought k."""
    for k, position in enumerate(THOUGHTS, start=1):
        canvas.plant(results(canvas.problems, k), strength, [position])


def one_step(canvas: Canvas, strength: float, k: int) -> None:
    """The result of step k, whichever step is asked for, at every thought."""
    canvas.plant(results(canvas.problems, k), strength, THOUGHTS)


def chain_for_half(canvas: Canvas, strength: float) -> None:
    """The result of step k at thought k in half of the problems, whichever these are, and nothing in the others."""
    there = canvas.random.random(len(canvas.problems)) < 0.5
    for k, position in enumerate(THOUGHTS, start=1):
        canvas.plant(np.where(there, results(canvas.problems, k), -1), strength, [position])


def chain_beside_a_parse(canvas: Canvas, strength: float) -> None:
    """The question parsed, clean, where a reader looks first; the results of steps one thought late and far weaker."""
    question_parsed(canvas, ["t1"])
    for k, position in enumerate(THOUGHTS[1:], start=1):
        canvas.plant(results(canvas.problems, k), strength, [position])


def results_before(canvas: Canvas, strength: float) -> None:
    """Every step's result where the question is read and at the opening token; the thoughts hold nothing."""
    for k in range(1, 6):
        for position in BEFORE:
            canvas.plant(results(canvas.problems, k), strength, [position])


def results_copied(canvas: Canvas, strength: float) -> None:
    """The same, and each thought is a copy of the state at the opening token."""
    results_before(canvas, strength)
    canvas.copy("bot", THOUGHTS, 0.05)


def constant(canvas: Canvas) -> None:
    """At each place the same state for every problem, to the bit."""
    canvas.states[...] = canvas.means


def _hidden_units(features: Floats, random: np.random.Generator, n_units: int = 128) -> Floats:
    drawn = random.normal(size=(features.shape[1], n_units)).astype(np.float32)
    before = (features - features.mean(0)) @ drawn
    return np.maximum(before / before.std(), 0)


# ---- the machines ------------------------------------------------------------------------------------------------

Fact = Literal["yes", "no", "either"]


@dataclass(frozen=True)
class Truth:
    """What is true of a machine, for each of the five answers about step 2."""

    before: Fact = "no"
    read: Fact = "no"
    of_this_step: Fact = "no"
    in_the_thoughts: Fact = "no"
    needs_the_recurrence: Fact = "no"

    @property
    def answers(self) -> dict[str, Fact]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


NOTHING = Truth()
HELD = Truth("no", "yes", "yes", "yes", "yes")


@dataclass(frozen=True)
class Machine:
    """What the model holds, what its matched control holds, and the truth about the model."""

    model: Holding
    control: Holding
    truth: Truth

    @property
    def is_null(self) -> bool:
        """Nothing is true of it: no answer may be yes."""
        return set(self.truth.answers.values()) == {"no"}


# Gains beyond every question reader at step 2, 2,000 problems: chain +16 points, weaker chain +10, weak chain +5.
MACHINES = {
    "chain": Machine(partial(chain, strength=0.1), question_parsed, HELD),
    "weaker chain": Machine(partial(chain, strength=0.08), question_parsed, Truth("no", "yes", "either", "yes", "yes")),
    "weak chain": Machine(
        partial(chain, strength=0.065), question_parsed, Truth("no", "either", "either", "either", "either")
    ),
    "complement": Machine(partial(chain_for_half, strength=0.35), question_parsed, HELD),
    "decoy": Machine(partial(chain_beside_a_parse, strength=0.1), question_parsed, HELD),
    "echo": Machine(partial(chain, strength=0.1), partial(chain, strength=0.1), Truth("no", "yes", "yes", "yes", "no")),
    "previous step": Machine(
        partial(one_step, strength=0.3, k=1), question_parsed, Truth("no", "either", "no", "either", "either")
    ),
    "question echo": Machine(
        partial(results_before, strength=0.06), partial(results_before, strength=0.06), Truth(before="yes")
    ),
    "question echo, copied": Machine(
        partial(results_copied, strength=0.08),
        partial(results_copied, strength=0.08),
        Truth("yes", "yes", "either", "no", "no"),
    ),
    "answer only": Machine(partial(one_step, strength=0.2, k=99), question_parsed, NOTHING),
    "bag of words": Machine(bag_of_words, bag_of_words, NOTHING),
    "bag of words through an MLP": Machine(bag_through_mlp, bag_through_mlp, NOTHING),
    "parse": Machine(question_parsed, question_parsed, NOTHING),
    "random network": Machine(random_network, random_network, NOTHING),
    "noise": Machine(noise, noise, NOTHING),
    "constant": Machine(constant, constant, NOTHING),
}

NULLS = tuple(name for name, machine in MACHINES.items() if machine.is_null)
"""Machines of which every answer about step 2 is no."""
EMPTY = tuple(name for name in NULLS if name != "answer only")
"""Machines that hold no result at all, whatever the target: the answer is one."""


@dataclass(frozen=True)
class Planted:
    """One draw of a machine: three models' states of the same problems."""

    model: StatesInMemory
    control: StatesInMemory
    untrained: StatesInMemory


def planted(name: str, problems: Sequence[Problem], seed: int = 0) -> Planted:
    """Draw a machine. Another seed is another model: other directions, means and noise.

    >>> from workings.arithmetic.generator import PRESETS, generate
    >>> problems = list(generate(10, PRESETS["bundled"], seed=0))
    >>> planted("chain", problems).model.hidden("block2").shape
    torch.Size([10, 8, 64])
    """
    machine = MACHINES[name]

    def drawn(role: str, holding: Holding) -> StatesInMemory:
        canvas = Canvas(problems, seeds.numpy(f"planted {name} {role}", seed))
        holding(canvas)
        return canvas.stored(f"{name}, {role}, {seed}")

    return Planted(drawn("model", machine.model), drawn("control", machine.control), drawn("untrained", random_network))
