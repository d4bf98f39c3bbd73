"""Planted machines as thinking models: arithmetic is done outright, inside the engine of every other model, so that all is known.

The network is two blocks. The first averages the words that a position sees (a bag of words) and then writes values into *slots*
of one-hot coordinates: what it writes is the machine. The second carries slot 0 of the last thought to the closing token, unless
an answer is written there already. What a thought knows of the one before it is in the vector that it is fed, so ablations,
transplants and edits act here as they do on a trained model.
Shapes: n questions, T positions seen, q new positions, d width.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import final

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config

from workings import seeds
from workings.arithmetic.chain import write_chain
from workings.arithmetic.generator import PRESETS, split_pieces, vocabulary
from workings.arithmetic.problems import Problem
from workings.arithmetic.stories import FORMS, RUNNING, THEMES
from workings.models.causal import PaddedRows, left_padded
from workings.models.thinking import Mode, ThoughtModel
from workings.text.tokenizer import word_tokenizer

WORDS = 32  # coordinates of the words' embeddings
NUMBERS = 21  # values 0 to 20, one coordinate each in a slot
N_SLOTS = 6  # slot 0 is what the head names; slots 1 to 5 are for the results of steps
STOP, BOT, EOT = (WORDS + N_SLOTS * NUMBERS + i for i in range(3))  # coordinates with which nothing can be confused
WIDTH = EOT + 1
MARK = 100.0  # far beyond what a normed state can hold: no fed vector passes for an opening or closing token

Plan = tuple[int, tuple[tuple[str, int], ...]]
"""A question as read: the number it starts with, and each step's operator and operand."""
Written = dict[int, int]
"""Slot → the value written into it."""


# ---- the question, read --------------------------------------------------------------------------------------------


def read_question(text: str) -> Plan:
    """Read a running-value story without looking at its chain.

    >>> read_question("Iris finds 8 shells. The pile is doubled. She loses 3 of them. How many shells does Iris have now?")
    (8, (('*', 2), ('-', 3)))
    """
    opening, *acts, _ = [split_pieces(sentence) for sentence in re.split(r"\.", text)]
    steps = []
    for pieces in acts:
        # a matched donor retells "twice" as "3 times", which no theme says in all the same words
        operator, operand = ("*", 0) if "times" in pieces else _acts()[_signature(pieces)]
        steps.append((operator, operand or next(int(piece) for piece in pieces if piece.isdigit())))
    return next(int(piece) for piece in opening if piece.isdigit()), tuple(steps)


@cache
def _acts() -> dict[tuple[str, ...], tuple[str, int]]:
    """Signature of a sentence → operator, and the operand that it says in a word (0 where it is a number)."""
    found = {}
    for theme in (THEMES[name] for name in (*RUNNING, "plain")):
        for key, sentences in (theme.acts | theme.words).items():
            found |= {
                _signature(split_pieces(re.sub(r"%\(\w+\)s", " ", s))): (key[0], int(key[1:] or 0)) for s in sentences
            }
    return found


def _signature(pieces: Sequence[str]) -> tuple[str, ...]:
    pronouns = {word for forms in FORMS.values() for word in forms.values()}
    return tuple(piece for piece in pieces if piece not in pronouns | {"."} and not piece.isdigit())


def carried(value: int, step: tuple[str, int]) -> int:
    """One step of arithmetic, kept within 0 to 20 and whole."""
    operator, operand = step
    result = {"+": value + operand, "-": value - operand, "*": value * operand, "/": value // max(operand, 1)}[operator]
    return min(max(result, 0), NUMBERS - 1)


def results_of(plan: Plan) -> list[int]:
    """The start, then the result of each step."""
    values = [plan[0]]
    for step in plan[1]:
        values.append(carried(values[-1], step))
    return values


# ---- the network -------------------------------------------------------------------------------------------------


def slot(state: Tensor, number: int) -> Tensor:
    """The coordinates [..., 21] of one slot, as a view."""
    return state[..., _coordinate(number, 0) : _coordinate(number + 1, 0)]


def _coordinate(number: int, value: int) -> int:
    return WORDS + number * NUMBERS + value


class _Writes(nn.Module):
    """Block 1: the average of the words that a position sees, and what the machine writes."""

    def __init__(self, machine: PlantedThinker) -> None:
        super().__init__()
        self._machine = [machine]  # in a list: a module may not be a child of its own child

    def forward(self, x: Tensor, seen: Tensor, allowed: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[..., :WORDS] = allowed.to(x.dtype) @ seen[..., :WORDS] / allowed.sum(-1, keepdim=True)
        out[..., STOP:] = x[..., STOP:]
        [machine], first = self._machine, seen.shape[1] - x.shape[1]
        fed, words = slot(x, 0).argmax(-1).tolist(), machine.words(seen)
        closed = dict((seen[..., EOT] == MARK).nonzero().tolist())
        written, blank = (
            [],
            [],
        )  # (row, position, coordinate) of every 1, (row, position) of the states that are constant
        for row, bot in (seen[..., BOT] == MARK).nonzero().tolist():
            plan, close = machine.plan(tuple(words[row][:bot])), closed.get(row, seen.shape[1])
            for at in range(max(bot, first), seen.shape[1]):
                here = row, at - first
                if at > close:  # the answer has been named
                    written.append((*here, STOP))
                elif at < close and (values := machine.thought(plan, at - bot, fed[row][at - first])) is None:
                    blank.append(here)
                else:
                    values = {0: machine.answer_to(plan)} if at == close else values
                    written += [(*here, _coordinate(*value)) for value in values.items() if value[1] is not None]
        if written:
            out[tuple(torch.tensor(written).T)] = 1
        if blank:
            out[tuple(torch.tensor(blank).T)] = 0
        return out


class _Carries(nn.Module):
    """Block 2: slot 0 of the last thought, carried to the closing token where that has no answer yet."""

    def forward(self, x: Tensor, seen: Tensor, allowed: Tensor) -> Tensor:
        out, first = x.clone(), seen.shape[1] - x.shape[1]
        for row, at in (x[..., EOT] == MARK).nonzero().tolist():
            if not slot(x[row, at], 0).any():
                slot(out[row, at], 0)[...] = slot(seen[row, first + at - 1], 0)
        out[..., BOT:] = 0
        return out


class _Backbone(nn.Module):
    """What the engine asks of a backbone of transformers. A block's cache holds its inputs."""

    def __init__(self, machine: PlantedThinker, words: Tensor) -> None:
        super().__init__()
        self.wte = nn.Embedding.from_pretrained(words)
        self.h, self.ln_f = nn.ModuleList([_Writes(machine), _Carries()]), nn.LayerNorm(WIDTH)

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, past_key_values: DynamicCache, **_: object
    ) -> SimpleNamespace:
        mask = attention_mask[:, 0]
        allowed = mask if mask.dtype == torch.bool else mask == 0
        states = [inputs_embeds]
        for i, block in enumerate(self.h):
            seen = past_key_values.update(states[-1][:, None], states[-1][:, None], i)[0][:, 0]
            states.append(block(states[-1], seen, allowed))
        return SimpleNamespace(hidden_states=(*states[:-1], self.ln_f(states[-1])), past_key_values=past_key_values)


class _Base(nn.Module):
    def __init__(self, machine: PlantedThinker, words: Tensor, head: Tensor) -> None:
        super().__init__()
        self.config = GPT2Config(
            vocab_size=len(words), n_embd=WIDTH, n_layer=2, n_positions=128, bos_token_id=None, eos_token_id=None
        )
        self.transformer, self.lm_head = _Backbone(machine, words), nn.Linear(*head.T.shape, bias=False)
        self.lm_head.weight.data = head

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.wte

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


class PlantedThinker(ThoughtModel):
    """A machine that reads stories of the bundled preset. Abstract: a machine says what it writes.

    Args:
        recurrent: Feed each state to the next thought; a matched control is fed the same vector at every thought.
        seed: Decides the embeddings of the words.
    """

    n_thoughts = 6
    answer_sees = "everything"

    def __init__(self, recurrent: bool = True, seed: int = 0) -> None:
        super().__init__()
        self.recurrent, self.fingerprint = recurrent, f"{type(self).__name__} {'' if recurrent else 'control '}{seed}"
        self.tokenizer = word_tokenizer(vocabulary(PRESETS["bundled"]))
        n, self.eos_id = len(self.tokenizer), self.tokenizer.eos_token_id
        self.pad_id, self.bot_id, self.eot_id = range(n, n + 3)
        words, head = torch.zeros(n + 3, WIDTH), torch.zeros(n + 3, WIDTH)
        drawn = torch.randn(n, WORDS, generator=seeds.torch("planted words", seed))
        words[:n, :WORDS] = drawn / drawn.norm(dim=1, keepdim=True)
        words[self.bot_id, BOT] = words[self.eot_id, EOT] = MARK
        head[self.eos_id, STOP] = 1
        for value in range(NUMBERS):
            slot(head[self.tokenizer.convert_tokens_to_ids(str(value))], 0)[value] = 1
        self.base = _Base(self, words, head)
        self._plans: dict[tuple[int, ...], Plan] = {}  # a question is read again at every thought
        self.eval()

    # What a machine says

    @abstractmethod
    def thought(self, plan: Plan, k: int, fed: int) -> Written | None:
        """What is written at thought k (0: the opening token), into which slots; None: the state is the same for every question.

        `fed` is the value in slot 0 of the vector that is fed there.
        """

    @abstractmethod
    def answer_to(self, plan: Plan) -> int | None:
        """The answer that is computed from the question alone; None: it is what the last thought holds."""

    # What every machine shares

    def words(self, inputs: Tensor) -> list[list[int]]:
        """The word that each input [n, T, d] is, −1 for padding and whatever is no word."""
        words = inputs[..., :WORDS]
        nearest = (words @ self.base.transformer.wte.weight[: len(self.tokenizer), :WORDS].T).argmax(-1)
        return torch.where(words.any(-1), nearest, -1).tolist()

    def plan(self, words: tuple[int, ...]) -> Plan:
        """Read the question from the words before the opening token."""
        if words not in self._plans:
            self._plans[words] = read_question(self.tokenizer.decode([word for word in words if word >= 0]))
        return self._plans[words]

    def prompt(self, questions: Sequence[str], mode: Mode = "latent") -> PaddedRows:
        opening = [self.bot_id] if mode == "latent" else []
        return left_padded([[*self.tokenizer.encode(q), *opening] for q in questions], self.pad_id, self.device)

    def feed(self, final: Tensor, k: int) -> Tensor:
        return final if self.recurrent else torch.zeros_like(final)

    def closing(self) -> list[int]:
        return [self.eot_id]

    def answer_opening(self) -> int:
        return self.eot_id

    def forbidden(self) -> list[int]:
        return [self.pad_id, self.bot_id, self.eot_id]

    def chain_ids(self, problem: Problem) -> list[int]:
        return self.tokenizer.encode(write_chain(problem.steps))


# ---- the machines ------------------------------------------------------------------------------------------------


@final
class Chain(PlantedThinker):
    """Each thought computes the next result from the one that it is fed; the answer is the last."""

    def thought(self, plan: Plan, k: int, fed: int) -> Written:
        start, steps = plan
        if k == 0:
            return {0: start}
        return {0: carried(fed, steps[k - 1]) if k <= len(steps) else fed}

    def answer_to(self, plan: Plan) -> None:
        return None


@final
class Echo(PlantedThinker):
    """The results stand in the thoughts, whatever these are fed; the answer is computed from the question alone."""

    def thought(self, plan: Plan, k: int, fed: int) -> Written:
        results = results_of(plan)
        return {0: results[min(k, len(results) - 1)]}

    def answer_to(self, plan: Plan) -> int:
        return results_of(plan)[-1]


@final
class QuestionEcho(PlantedThinker):
    """Every step's result stands at the opening token, each in a slot of its own; the thoughts are constant.

    What is fed is a constant too: a thought that is fed the opening token's state holds what that held.
    """

    def thought(self, plan: Plan, k: int, fed: int) -> Written | None:
        return dict(enumerate(results_of(plan)[1:], start=1)) if k == 0 else None

    def answer_to(self, plan: Plan) -> int:
        return results_of(plan)[-1]


@final
class BagOfWords(PlantedThinker):
    """Nothing is computed: every state is the average of the words that it sees."""

    def thought(self, plan: Plan, k: int, fed: int) -> Written:
        return {}

    def answer_to(self, plan: Plan) -> None:
        return None
