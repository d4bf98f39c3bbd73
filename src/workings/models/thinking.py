"""The thinking engine: question → K fed vectors → closing token → answer, written once for every family.

A family (CODI, later Coconut and others) supplies what it alone knows: `prompt`, `feed`, `closing`. The engine owns what peers get
wrong: masks, position ids, the cache, and the number of thoughts as data. A `State` is immutable; `step` returns a new one, so
runs can be forked. Everything else (`think`, `answer`, edits, sweeps) is built on `begin`, `step`, `close`, `unembed`, `fork`.

Shapes: n questions, T cached positions, K thoughts, L blocks, d width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from workings.arithmetic.answers import answer_in
from workings.errors import BadInput
from workings.models.anatomy import (
    Unembedding,
    anatomy_of,
    causal_mask,
    layer_names,
    part,
    position_names,
    unembedding_of,
)
from workings.models.configs import AnswerSees

Cache = tuple[tuple[Tensor, Tensor], ...]
Mode = Literal["latent", "chain"]


@dataclass(frozen=True)
class Batch:
    """Left-padded prompts. `ids` Long [n, T]; `mask` Bool [n, T], False on padding."""

    ids: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Edit:
    """Replace the state after one block (or the final norm) at the position being computed.

    `layer` is `block1` … `blockL` or `final_norm`; `value` maps the state [n, d] to its replacement [n, d]. An edit of a block
    also changes everything above it; to change what is fed, pass `z` to `step` instead.
    """

    layer: str
    value: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class State:
    """A run of n questions, stopped after some position. Never changed in place."""

    cache: Cache
    visible: Tensor  # Bool [n, T]: not padding
    question: (
        Tensor  # Bool [n, T]: up to and including the opening token; hidden from the answer if it sees only thoughts
    )
    next_position: Tensor  # Long [n]
    hidden: Tensor  # [n, L+1, d] at the last position
    k: int  # thoughts fed so far

    @property
    def final(self) -> Tensor:
        """H [n, d]: the final-normed state at the last position, from which the next fed vector is made."""
        return self.hidden[:, -1]


@dataclass(frozen=True)
class Thoughts:
    """`hidden` [n, 1+K, L+1, d] at bot, t1 … tK; `projected` [n, 1+K, d], what each state is turned into to be fed next.

    `projected[:, -1]` is computed and fed to nothing.
    """

    hidden: Tensor
    projected: Tensor


@dataclass(frozen=True)
class Answer:
    """What the model said after its thoughts; `value` by `answer_in`, None where the text holds no number."""

    text: str
    token_ids: list[int]
    value: Fraction | None


class ThoughtModel(nn.Module, ABC):
    """A causal language model that thinks in K continuous vectors before it answers. Abstract: families are final."""

    base: Any  # Hugging Face causal language model
    tokenizer: Any
    n_thoughts: int
    answer_sees: AnswerSees
    fingerprint: str
    pad_id: int
    eos_id: int
    official_compat: bool = False

    # 1. What only a family knows -------------------------------------------------------------------------------------

    @abstractmethod
    def prompt(self, questions: Sequence[str], mode: Mode = "latent") -> Batch:
        """Left-padded questions, with whatever opens the thoughts (`latent`) or the written chain (`chain`)."""

    @abstractmethod
    def feed(self, final: Tensor, k: int) -> Tensor:
        """H_k [n, d] → the vector [n, d] fed at thought k + 1."""

    @abstractmethod
    def closing(self) -> list[int]:
        """Token ids that end the thoughts and open the answer."""

    @abstractmethod
    def answer_opening(self) -> int:
        """The token id with which an answer after a written chain begins."""

    @abstractmethod
    def forbidden(self) -> list[int]:
        """Token ids that must never be generated in an answer."""

    @abstractmethod
    def chain_ids(self, problem: Any) -> list[int]:
        """Token ids of the written chain as the family's teacher saw it; what a lens is asked to find in the thoughts."""

    # 2. What is shared -----------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.base.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.get_input_embeddings().weight.dtype

    @property
    def n_layers(self) -> int:
        return self.base.config.num_hidden_layers

    @property
    def width(self) -> int:
        return self.base.config.hidden_size

    @property
    def context_length(self) -> int:
        return self.base.config.max_position_embeddings

    @property
    def layers(self) -> tuple[str, ...]:
        return layer_names(self.n_layers)

    def positions(self, n_thoughts: int | None = None) -> tuple[str, ...]:
        return position_names(self.n_thoughts if n_thoughts is None else n_thoughts)

    @property
    def unembedding(self) -> Unembedding:
        """The final norm and head, frozen: for lenses. What is trained or generated goes through `unembed`."""
        return unembedding_of(self.base)

    def unembed(self, h: Tensor, layer: str) -> Tensor:
        """Logits [..., V] of a state [..., d] at a named layer; the final norm is applied exactly once."""
        h = h if layer == "final_norm" else part(self.base, anatomy_of(self.base.config).final_norm)(h)
        return self.base.get_output_embeddings()(h)

    def embed(self, ids: Tensor) -> Tensor:
        return self.base.get_input_embeddings()(ids)

    # 3. Primitives ---------------------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> State:
        """Run the prompt; the state stands at the opening token (`bot`), no thought fed yet."""
        n, length = batch.ids.shape
        if length + self.n_thoughts + len(self.closing()) > self.context_length:
            raise BadInput(
                f"a prompt of {length} tokens with {self.n_thoughts} thoughts does not fit the context of {self.context_length}; "
                "leave the question out or use a model with a longer context"
            )
        if self.official_compat:
            positions = torch.arange(length, device=batch.ids.device).expand(n, length)
        else:
            positions = (batch.mask.long().cumsum(1) - 1).clamp(min=0)
        causal = torch.ones(length, length, dtype=torch.bool, device=batch.ids.device).tril()
        hidden, cache = self._forward(self.embed(batch.ids), positions, causal & batch.mask[:, None, :], ())
        # The official code gives no mask after the prompt, so every later position also attends to the padding.
        visible = torch.ones_like(batch.mask) if self.official_compat else batch.mask
        last = torch.stack([h[:, -1] for h in hidden], 1)
        return State(cache, visible, torch.ones_like(batch.mask), positions[:, -1] + 1, last, 0)

    def step(self, state: State, z: Tensor | None = None, edits: Sequence[Edit] = ()) -> State:
        """Feed one vector z [n, d] (default: what the family makes of the last state) and return the state after it."""
        z = self.feed(state.final, state.k) if z is None else z
        hidden, grown = self._extend(state, z[:, None].to(self.dtype), edits=edits)
        return replace(grown, hidden=torch.stack([h[:, -1] for h in hidden], 1), k=state.k + 1)

    def feed_all(self, state: State) -> State:
        """All K thoughts in one pass; only right where what is fed does not depend on the states (`recurrence: constant`)."""
        n = len(state.visible)
        z = torch.stack([self.feed(state.final, k) for k in range(self.n_thoughts)], 1)
        hidden, grown = self._extend(state, z.to(self.dtype).expand(n, -1, -1))
        return replace(grown, hidden=torch.stack([h[:, -1] for h in hidden], 1), k=state.k + self.n_thoughts)

    def close(self, state: State, answers: Tensor) -> tuple[list[Tensor], State]:
        """Feed closing token and answer tokens (Long [n, A], right-padded) at once.

        Returns the L + 1 hidden states [n, C + A, d] (C closing tokens) and the state after them.
        """
        closing = torch.tensor(self.closing(), device=self.device).expand(len(answers), -1)
        return self._extend(state, self.embed(torch.cat([closing, answers], 1)), torch.ones_like(state.visible[:, 0]))

    @torch.no_grad()
    def score(self, state: State, answers: Tensor, mask: Tensor) -> Tensor:
        """log p of each answer token given the thoughts, [n, A], 0 where `mask` [n, A] is False."""
        n_closing = len(self.closing())
        hidden, _ = self.close(state, answers)
        logits = self.unembed(hidden[-1][:, n_closing - 1 : -1], "final_norm").float()
        picked = logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]
        return picked * mask

    @torch.no_grad()
    def generate(self, state: State, max_new_tokens: int) -> list[list[int]]:
        """Greedy answers after the closing token, each ended by `eos` (not included) or by `max_new_tokens`."""
        none = torch.empty(len(state.visible), 0, dtype=torch.long, device=self.device)
        hidden, state = self.close(state, none)
        return self._greedy(hidden[-1][:, -1], state, torch.ones_like(state.visible[:, 0]), max_new_tokens)

    @torch.no_grad()
    def write(self, state: State, max_new_tokens: int) -> list[list[int]]:
        """Greedy written chain and answer after a `chain` prompt: the model's own reasoning in words, the positive control."""
        return self._greedy(state.final, state, torch.zeros_like(state.visible[:, 0]), max_new_tokens)

    def _greedy(self, last: Tensor, state: State, answering: Tensor, max_new_tokens: int) -> list[list[int]]:
        said: list[list[int]] = [[] for _ in range(len(last))]
        rows = list(range(len(said)))
        never = torch.tensor(self.forbidden(), device=self.device)
        room = self.context_length - int(state.next_position.max())
        for _ in range(min(max_new_tokens, room)):
            tokens = self.unembed(last, "final_norm").index_fill(-1, never, -torch.inf).argmax(-1)
            going = [i for i, t in enumerate(tokens.tolist()) if t != self.eos_id]
            if not going:
                break
            if len(going) < len(rows):  # finished rows leave the batch: the rest need not carry them
                rows, tokens, answering = [rows[i] for i in going], tokens[going], answering[going]
                state = self.fork(state, going)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                said[row].append(token)
            answering = answering | (tokens == self.answer_opening())
            hidden, state = self._extend(state, self.embed(tokens[:, None]), answering)
            last = hidden[-1][:, -1]
        return said

    def fork(self, state: State, rows: Sequence[int] | Tensor) -> State:
        """The same run for some of its rows (repeats allowed): the way to branch a run or to drop questions."""
        rows = torch.as_tensor(rows, device=state.visible.device)
        cache = tuple((k[rows], v[rows]) for k, v in state.cache)
        return State(
            cache, state.visible[rows], state.question[rows], state.next_position[rows], state.hidden[rows], state.k
        )

    # 4. What is built on them ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def think_and_answer(
        self,
        questions: Sequence[str],
        *,
        n_thoughts: int | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 64,
        fed: Callable[[int, Tensor, Tensor], Tensor] | None = None,
        keep: bool = True,
    ) -> tuple[Thoughts | None, list[Answer]]:
        """Thoughts and greedy answers in one pass, in the order given.

        `fed(k, z, rows)` may replace what is fed at thought k (1-based) for the questions `rows` (Long [b]): zero, mean, swapped
        or frozen thoughts. `keep=False` returns no thoughts. Batches are cut by length, results do not depend on them.
        """
        thoughts: list[Thoughts | None] = [None] * len(questions)
        answers: list[Answer] = [Answer("", [], None)] * len(questions)
        for rows in by_length([len(q) for q in questions], batch_size):
            states, state = self._think([questions[i] for i in rows], n_thoughts, fed, rows)
            if keep:
                hidden = torch.stack([s.hidden for s in states], 1).cpu()
                projected = torch.stack([self.feed(s.final, s.k) for s in states], 1).cpu()
                for at, i in enumerate(rows):
                    thoughts[i] = Thoughts(hidden[at], projected[at])
            if max_new_tokens:
                for i, ids in zip(rows, self.generate(state, max_new_tokens), strict=True):
                    text = self.decode(ids)
                    answers[i] = Answer(text, ids, answer_in(text))
        kept = [t for t in thoughts if t is not None]
        if not kept:
            return None, answers
        return Thoughts(torch.stack([t.hidden for t in kept]), torch.stack([t.projected for t in kept])), answers

    def think(self, questions: Sequence[str], n_thoughts: int | None = None, batch_size: int = 64) -> Thoughts:
        """Hidden states [n, 1+K, L+1, d] and fed vectors [n, 1+K, d] for each question, on the CPU."""
        if not questions:
            raise BadInput("no question to think about: the list is empty")
        thoughts, _ = self.think_and_answer(questions, n_thoughts=n_thoughts, max_new_tokens=0, batch_size=batch_size)
        assert thoughts is not None
        return thoughts

    def answer(
        self, questions: Sequence[str], n_thoughts: int | None = None, max_new_tokens: int = 32, batch_size: int = 64
    ) -> list[Answer]:
        """Greedy answers after thinking."""
        return self.think_and_answer(
            questions, n_thoughts=n_thoughts, max_new_tokens=max_new_tokens, batch_size=batch_size, keep=False
        )[1]

    @torch.no_grad()
    def write_and_answer(
        self, questions: Sequence[str], max_new_tokens: int = 64, batch_size: int = 64
    ) -> list[Answer]:
        """The written chain instead of thoughts: text and answer in words, in the order given."""
        answers: list[Answer] = [Answer("", [], None)] * len(questions)
        for rows in by_length([len(q) for q in questions], batch_size):
            state = self.begin(self.prompt([questions[i] for i in rows], "chain"))
            for i, ids in zip(rows, self.write(state, max_new_tokens), strict=True):
                text = self.decode(ids)
                answers[i] = Answer(text, ids, answer_in(text))
        return answers

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids; ids beyond the tokenizer (the family's own rows) are left out."""
        return self.tokenizer.decode([i for i in ids if i < len(self.tokenizer)], skip_special_tokens=True).strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One readable string per id, for tables; `[id]` for rows that the tokenizer does not name."""
        return [self.tokenizer.decode([i]) if i < len(self.tokenizer) else f"[{i}]" for i in ids]

    def _think(
        self, questions: list[str], n_thoughts: int | None, fed: Callable | None, rows: list[int]
    ) -> tuple[list[State], State]:
        state = self.begin(self.prompt(questions))
        states = [state]
        at = torch.tensor(rows)
        for k in range(1, (self.n_thoughts if n_thoughts is None else n_thoughts) + 1):
            z = self.feed(state.final, state.k)
            state = self.step(state, z if fed is None else fed(k, z, at))
            states.append(state)
        return states, state

    # 5. The one place that touches the network -----------------------------------------------------------------------

    def _extend(
        self, state: State, embeds: Tensor, answering: Tensor | None = None, edits: Sequence[Edit] = ()
    ) -> tuple[list[Tensor], State]:
        """Append q positions (`embeds` [n, q, d]) to a run; each sees what came before it, within what it may see.

        `answering` Bool [n]: the rows whose new positions belong to an answer.
        """
        n, q = embeds.shape[:2]
        if state.visible.shape[1] + q > self.context_length < int(state.next_position.max()) + q:
            raise BadInput(
                f"position {int(state.next_position.max()) + q} is beyond the model's context of {self.context_length}; "
                "use fewer thoughts or a shorter question or answer"
            )
        positions = state.next_position[:, None] + torch.arange(q, device=embeds.device)
        before = state.visible
        if answering is not None and self.answer_sees == "thoughts":
            before = before & ~(state.question & answering[:, None])
        causal = torch.ones(q, q, dtype=torch.bool, device=embeds.device).tril().expand(n, q, q)
        allowed = torch.cat([before[:, None, :].expand(n, q, -1), causal], 2)
        hidden, cache = self._forward(embeds, positions, allowed, state.cache, edits)
        new = torch.ones(n, q, dtype=torch.bool, device=embeds.device)
        visible, question = torch.cat([state.visible, new], 1), torch.cat([state.question, ~new], 1)
        return hidden, State(cache, visible, question, state.next_position + q, state.hidden, state.k)

    def _forward(
        self, embeds: Tensor, positions: Tensor, allowed: Tensor, cache: Cache, edits: Sequence[Edit] = ()
    ) -> tuple[list[Tensor], Cache]:
        """One pass of the backbone → L + 1 hidden states [n, q, d] and the grown cache. No cache is changed in place."""
        past = DynamicCache(cache or None)
        backbone = part(self.base, anatomy_of(self.base.config).backbone)
        with self._edited(edits):
            out = backbone(
                inputs_embeds=embeds,
                position_ids=positions,
                attention_mask=causal_mask(allowed, embeds.dtype),
                past_key_values=past,
                use_cache=True,
                output_hidden_states=True,
            )
        layers: list[Any] = past.layers
        return list(out.hidden_states), tuple((layer.keys, layer.values) for layer in layers)

    @contextmanager
    def _edited(self, edits: Sequence[Edit]) -> Generator[None]:
        """Hooks for the edits, removed again whatever happens; before any other hook, so that what is recorded is the edited."""
        handles = []
        try:
            for edit in edits:
                handles.append(self._site(edit.layer).register_forward_hook(_replacing_last(edit.value), prepend=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _site(self, layer: str) -> nn.Module:
        anatomy = anatomy_of(self.base.config)
        blocks = {f"block{i + 1}": block for i, block in enumerate(part(self.base, anatomy.blocks).children())}
        sites = blocks | {"final_norm": part(self.base, anatomy.final_norm)}
        if layer not in sites:
            raise BadInput(f"no layer '{layer}' to edit; there are {', '.join(sites)}")
        return sites[layer]


def _replacing_last(value: Callable[[Tensor], Tensor]) -> Callable:
    def hook(_module: nn.Module, _args: object, out: Tensor) -> Tensor:
        return torch.cat([out[:, :-1], value(out[:, -1])[:, None]], 1)

    return hook


def by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, longest first, so that little is padding and memory is known at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def left_padded(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> Batch:
    """Token rows of different length → a left-padded batch."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad_id] * (width - len(r)) + list(r) for r in rows], device=device)
    mask = torch.tensor([[False] * (width - len(r)) + [True] * len(r) for r in rows], device=device)
    return Batch(ids, mask)
