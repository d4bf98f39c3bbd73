"""CODI's loss: one batch of problems → student CE + teacher CE + distance between their states at the token before the answer.

The student thinks (prompt, K thoughts, closing token) and answers; the teacher reads question, written chain and answer in one
pass. Both are the same weights. Source: reference implementation of CODI as described in docs/decisions/0003-codi-training.md.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workings.arithmetic.problems import Problem
from workings.models.causal import PaddedRows, left_padded, right_padded
from workings.models.codi import CODI
from workings.models.thinking import ThoughtState
from workings.training.recipes import DistilConfig

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One problem in token ids (arrays: a million examples must fit). `before` is the token before the answer, in `answer`."""

    question: array[int]  # ends in bot
    chain: array[int]
    answer: array[int]  # ends in eos
    before: int

    @property
    def n_tokens(self) -> int:
        return len(self.question) + len(self.chain) + len(self.answer)


def examples_of(problems: Iterable[Problem], model: CODI, *, raw_questions: bool = False) -> Iterator[Example]:
    """Problems → token ids, some thousands at a time, so that the tokenizer can work in parallel.

    With `raw_questions` questions stay as written, also where the model normalises those that it is asked.
    """
    source = iter(problems)
    while some := list(islice(source, 4096)):
        chains = model.tokenizer([model.chain_text(p) for p in some], add_special_tokens=False)["input_ids"]
        questions = model.question_ids([p.question for p in some], raw=raw_questions)
        for question, chain, (answer, before) in zip(questions, chains, model.answer_ids(some), strict=True):
            yield Example(array("i", question), array("i", chain), array("i", answer), before)


@dataclass(frozen=True)
class Padded:
    """A batch for both passes. n problems, A answer tokens, T teacher tokens."""

    prompt: PaddedRows
    answer: Tensor  # Long [n, A], right-padded
    answer_labels: Tensor  # Long [n, A], IGNORED on padding
    before: Tensor  # Long [n]
    teacher: Tensor  # Long [n, T], right-padded
    teacher_labels: Tensor  # Long [n, T]: what each position must predict
    question_length: Tensor  # Long [n]
    answer_start: Tensor  # Long [n], in the teacher's tokens


def pad(examples: Sequence[Example], model: CODI) -> Padded:
    """Examples → tensors. The teacher sees question, chain, answer (with an eos after the first two unless `remove_eos`)."""
    device, ends = model.device, [] if model.config.remove_eos else [model.eos_id]
    questions = [e.question[:-1] for e in examples]  # without bot
    heads = [[*q, *e.chain, *(ends if e.chain else [])] for q, e in zip(questions, examples, strict=True)]
    whole = [[*h, *e.answer] for h, e in zip(heads, examples, strict=True)]
    labels = [[IGNORED] * (len(q) - 1) + w[len(q) :] + [IGNORED] for q, w in zip(questions, whole, strict=True)]
    return Padded(
        prompt=left_padded([e.question for e in examples], model.pad_id, device),
        answer=right_padded([e.answer for e in examples], model.pad_id, device),
        answer_labels=right_padded([e.answer for e in examples], IGNORED, device),
        before=torch.tensor([e.before for e in examples], device=device),
        teacher=right_padded(whole, model.pad_id, device),
        teacher_labels=right_padded(labels, IGNORED, device),
        question_length=torch.tensor([len(q) for q in questions], device=device),
        answer_start=torch.tensor([len(h) for h in heads], device=device),
    )


class SelfDistillation(nn.Module):
    """CODI's loss of a batch, weighted by the recipe; gradients flow through every thought.

    The three terms are means: "student" and "teacher" in nats, "distil" in standard deviations of the teacher. "loss" is their
    weighted sum.
    """

    def __init__(self, model: CODI, config: DistilConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Padded) -> dict[str, Tensor]:
        """Map a batch to its losses by name."""
        config = self.config
        student, student_H = student_pass(self.model, batch)
        teacher, teacher_H = teacher_pass(self.model, batch)
        constant = [h.detach() for h in teacher_H]
        distil = distance(student_H, constant, config.distil_loss, config.distil_normalise)
        loss = student + config.teacher_weight * teacher + config.distil_weight * distil
        return {"loss": loss, "student": student, "teacher": teacher, "distil": distil}


def student_pass(model: CODI, batch: Padded) -> tuple[Tensor, list[Tensor]]:
    """Think, then predict the answer. Returns CE and the L + 1 states [n, d] at the token before the answer."""
    state = think(model, batch.prompt)
    hidden, _ = model.close(state, batch.answer)
    closing = len(model.closing())
    # Position j predicts the token after it; the last closing token predicts the answer's first; eot is never predicted.
    ce = _cross_entropy(model, hidden[-1][:, closing - 1 : -1], batch.answer_labels)
    return ce, [_at(h, batch.before + closing) for h in hidden]


def think(model: CODI, prompt: PaddedRows) -> ThoughtState:
    """Prompt and K thoughts. A constant recurrence carries nothing from step to step, so its thoughts are one pass."""
    state = model.begin(prompt)
    if model.config.recurrence == "constant":
        return model.feed_all(state)
    for _ in range(model.n_thoughts):
        state = model.step(state)
    return state


def teacher_pass(model: CODI, batch: Padded) -> tuple[Tensor, list[Tensor]]:
    """Question, chain and answer in one pass. Returns CE over chain and answer, and the states [n, d] before the answer."""
    n, length = batch.teacher.shape
    at = torch.arange(length, device=batch.teacher.device)
    allowed = (at[:, None] >= at).expand(n, length, length)
    if model.answer_sees == "thoughts":
        answering = at >= batch.answer_start[:, None]
        question = at < batch.question_length[:, None]
        allowed = allowed & ~(answering[:, :, None] & question[:, None, :])
    hidden, _ = model._forward(model.embed(batch.teacher), at.expand(n, length), allowed, ())
    ce = _cross_entropy(model, hidden[-1], batch.teacher_labels)
    return ce, [_at(h, batch.answer_start + batch.before) for h in hidden]


def distance(student: Sequence[Tensor], teacher: Sequence[Tensor], kind: str, normalise: bool) -> Tensor:
    """Mean over the L + 1 states of SmoothL1 (beta 1), each divided by the teacher's standard deviation over batch × width."""
    parts = []
    for s, t in zip(student, teacher, strict=True):
        s, t = s.float(), t.float()
        gap = F.smooth_l1_loss(s, t) if kind == "smooth_l1" else F.mse_loss(s, t)
        spread = t.std().clamp(min=1e-6) if normalise else 1.0
        parts.append(gap / (spread if kind == "smooth_l1" else spread**2))
    return torch.stack(parts).mean()


def _at(hidden: Tensor, index: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def _cross_entropy(model: CODI, states: Tensor, labels: Tensor) -> Tensor:
    """CE over the supervised positions only: logits are made for nothing else."""
    kept = labels != IGNORED
    return F.cross_entropy(model.unembed(states[kept], "final_norm").float(), labels[kept])
