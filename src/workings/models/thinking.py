"""The thinking engine: question → K fed vectors → closing token → answer, written once for every family.

A family (CODI, later Coconut and others) supplies what it alone knows: `prompt`, `feed`, `closing`. The engine owns what peers get
wrong: masks, position ids, the cache, and the number of thoughts as data. A `ThoughtState` is immutable; `step` returns a new one,
so runs can be forked. Everything else (`think`, `answer`, edits, sweeps) is built on `begin`, `step`, `close`, `unembed`, `fork`.

Shapes: n questions, T cached positions, q new positions, K thoughts, L blocks, d width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from workings.arithmetic.answers import answer_in
from workings.arithmetic.problems import Problem
from workings.config import several
from workings.errors import BadInput
from workings.models.anatomy import Edit, Unembedding, anatomy_of, edited, layer_names, position_names, soft_capped
from workings.models.attention import cache_name, context_of, masks_of
from workings.models.causal import PaddedRows, by_length, greedy, in_order
from workings.models.configs import AnswerSees

KeyValues = tuple[tuple[Tensor, Tensor], ...]  # of each block: keys and values, [n, heads, T, d_head]
Mode = Literal["latent", "chain"]
Questions = str | Sequence[str]  # one string is one question
PaddingSees = Literal["nothing", "everything"]


@dataclass(frozen=True)
class ThoughtState:
    """A run of n questions, stopped after some position. Never changed in place."""

    cache: KeyValues
    visible: Tensor  # Bool [n, T]: not padding
    question: (
        Tensor  # Bool [n, T]: up to and including the opening token; hidden from an answer that sees only thoughts
    )
    next_position: Tensor  # Long [n]
    hidden: Tensor  # [n, L+1, d] at the last position
    n_fed: int  # thoughts so far

    @property
    def final(self) -> Tensor:
        """H [n, d]: the final-normed state at the last position, from which the next fed vector is made."""
        return self.hidden[:, -1]


@dataclass(frozen=True)
class Thoughts:
    """`hidden` [n, 1+K, L+1, d] at bot, t1 … tK; `projected` [n, 1+K, d], what each state is turned into to be fed next.

    `projected[:, -1]` is computed and fed to nothing. `question` [n, L+1, d] is the mean state over the question's own tokens.
    """

    hidden: Tensor
    projected: Tensor
    question: Tensor


@dataclass(frozen=True)
class Answer:
    """A generated answer; `value` is the number in it by `answer_in`, None where the text holds none."""

    text: str
    token_ids: list[int]
    value: Fraction | None


class ThoughtModel(nn.Module, ABC):
    """A causal language model that thinks in K continuous vectors before it answers. Abstract: families are final.

    With `official_compat` it gives the numbers of its authors' code, which depend on the batch. There only the question has a mask,
    and what follows it attends to the padding before it too; position ids count the padding, and batches stay in the order given.
    What the padding itself attends to was decided by their version of transformers, and `padding_sees` says it: nothing (its
    attention is zero, since 4.53), or everything, the question after it included (before 4.53, on a GPU).
    """

    base: Any  # a causal language model of transformers
    tokenizer: Any  # its tokenizer
    n_thoughts: int
    answer_sees: AnswerSees
    fingerprint: str
    pad_id: int
    eos_id: int
    official_compat: bool = False
    padding_sees: PaddingSees = "nothing"

    # 1. What only a family knows -------------------------------------------------------------------------------------

    @abstractmethod
    def prompt(self, questions: Questions, mode: Mode = "latent") -> PaddedRows:
        """Left-padded questions, or one, with whatever opens the thoughts (`latent`) or the written chain (`chain`)."""

    @abstractmethod
    def feed(self, final: Tensor, k: int) -> Tensor:
        """The vector [n, d] that is fed at thought k + 1, made of H_k [n, d]."""

    @abstractmethod
    def closing(self) -> list[int]:
        """Token ids that end the thoughts and open the answer."""

    @abstractmethod
    def answer_opening(self) -> int:
        """The token id with which an answer after a written chain begins."""

    def answer_prefix(self) -> list[int]:
        """Token ids that every answer begins with, before what it gives; none, unless a family was trained to say some."""
        return []

    @abstractmethod
    def forbidden(self) -> list[int]:
        """Token ids that must never be generated in an answer."""

    def value_in(self, text: str) -> Fraction | None:
        """The number that an answer gives, None where it holds none."""
        return answer_in(text)

    @abstractmethod
    def chain_ids(self, problem: Problem) -> list[int]:
        """Token ids of the written chain as the family's teacher saw it: the targets that a lens should find in the thoughts."""

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
        """d, the length of a state."""
        return self.base.config.hidden_size

    @property
    def context_length(self) -> int:
        """How many positions a prompt, its thoughts and an answer may have together."""
        return context_of(self.base.config)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the L + 1 states at a position."""
        return layer_names(self.n_layers)

    def positions(self, n_thoughts: int | None = None) -> tuple[str, ...]:
        """Names of the 1 + K positions at which there are states."""
        return position_names(self.n_thoughts if n_thoughts is None else n_thoughts)

    @property
    def unembedding(self) -> Unembedding:
        """The final norm and head, frozen: for lenses. What is trained or generated goes through `unembed`."""
        head, scale = self.base.get_output_embeddings().weight, self._logits_scaling
        return Unembedding(self.final_norm, head if scale == 1 else head / scale, self._logit_cap)

    @property
    def final_norm(self) -> nn.Module:
        return self.base.get_submodule(anatomy_of(self.base.config).final_norm)

    def unembed(self, h: Tensor, layer: str) -> Tensor:
        """Logits [..., V] of a state [..., d] at a named layer; the final norm is applied exactly once."""
        logits = self.base.get_output_embeddings()(h if layer == "final_norm" else self.final_norm(h))
        return soft_capped(logits if self._logits_scaling == 1 else logits / self._logits_scaling, self._logit_cap)

    @property
    def _logits_scaling(self) -> float:
        return getattr(self.base.config, "logits_scaling", 1.0)

    @property
    def _logit_cap(self) -> float | None:
        return getattr(self.base.config, "final_logit_softcapping", None)

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings [..., d] of token ids [...]."""
        return self.base.get_input_embeddings()(ids)

    # 3. Primitives ---------------------------------------------------------------------------------------------------

    def begin(self, rows: PaddedRows) -> ThoughtState:
        """Run the prompt; the state stands at the opening token (`bot`), no thought fed yet.

        Raises:
            BadInput: The prompt and the thoughts do not fit the context.
        """
        return self._begun(rows)[1]

    def _begun(self, rows: PaddedRows) -> tuple[list[Tensor], ThoughtState]:
        """`begin`, with the L + 1 states [n, T, d] of the whole prompt."""
        n, length = rows.ids.shape
        if length + self.n_thoughts + len(self.closing()) > self.context_length:
            raise BadInput(
                f"a prompt of {length} tokens with {self.n_thoughts} thoughts does not fit the context of {self.context_length}; "
                "leave the question out or use a model with a longer context"
            )
        causal = torch.ones(length, length, dtype=torch.bool, device=rows.ids.device).tril()
        allowed, visible = causal & rows.mask[:, None, :], rows.mask
        positions = (rows.mask.long().cumsum(1) - 1).clamp(min=0)
        if self.official_compat:
            self._refuse_other_attention()
            positions = torch.arange(length, device=rows.ids.device).expand(n, length)
            visible = torch.ones_like(rows.mask)  # there is no mask after the prompt
        hidden, cache = self._forward(self.embed(rows.ids), positions, allowed, ())
        last = torch.stack([h[:, -1] for h in hidden], 1)
        return hidden, ThoughtState(cache, visible, torch.ones_like(rows.mask), positions[:, -1] + 1, last, 0)

    def _question_mean(self, rows: PaddedRows, hidden: Sequence[Tensor]) -> Tensor:
        """Mean state [n, L+1, d] over the question's own tokens: no padding, opening token, BOS or EOS. NaN without any."""
        around = [i for i in (self.tokenizer.bos_token_id, self.eos_id) if i is not None]
        own = rows.mask & ~torch.isin(rows.ids, torch.tensor(around, device=rows.ids.device))
        own[:, -1] = False
        # The states of padding are never multiplied, only left out: they may be anything.
        sums = torch.stack([h.float().masked_fill(~own[..., None], 0).sum(1) for h in hidden], 1)
        return (sums / own.sum(1)[:, None, None]).to(hidden[0].dtype)

    def step(self, state: ThoughtState, z: Tensor | None = None, edits: Sequence[Edit] = ()) -> ThoughtState:
        """Feed one vector z [n, d] (default: what the family makes of the last state) and return the state after it."""
        z = self.feed(state.final, state.n_fed) if z is None else z
        return self._fed(state, z[:, None], edits)

    def feed_all(self, state: ThoughtState) -> ThoughtState:
        """All K thoughts in one pass; only right where what is fed does not depend on the states (`recurrence: constant`)."""
        return self._fed(state, torch.stack([self.feed(state.final, k) for k in range(self.n_thoughts)], 1))

    def _fed(self, state: ThoughtState, z: Tensor, edits: Sequence[Edit] = ()) -> ThoughtState:
        hidden, grown = self._extend(state, z.to(self.dtype), edits=edits)
        return replace(grown, hidden=torch.stack([h[:, -1] for h in hidden], 1), n_fed=state.n_fed + z.shape[1])

    def close(self, state: ThoughtState, answers: Tensor) -> tuple[list[Tensor], ThoughtState]:
        """Feed closing token and answer tokens (Long [n, A], right-padded) at once.

        Returns:
            The L + 1 hidden states [n, C + A, d] (C closing tokens) and the state after them.
        """
        closing = torch.tensor(self.closing(), device=self.device).expand(len(answers), -1)
        return self._extend(state, self.embed(torch.cat([closing, answers], 1)), torch.ones_like(state.visible[:, 0]))

    @torch.no_grad()
    def score(self, state: ThoughtState, answers: Tensor, mask: Tensor) -> Tensor:
        """log p of each answer token given the thoughts, [n, A], 0 where `mask` [n, A] is False."""
        n_closing = len(self.closing())
        hidden, _ = self.close(state, answers)
        logits = self.unembed(hidden[-1][:, n_closing - 1 : -1], "final_norm").float()
        picked = logits.log_softmax(-1).gather(-1, answers[..., None])[..., 0]
        return picked * mask

    @torch.no_grad()
    def greedy_answer(self, state: ThoughtState, max_new_tokens: int) -> list[list[int]]:
        """Greedy answers after the closing token, each ended by `eos` (not included) or by `max_new_tokens`."""
        none = torch.empty(len(state.visible), 0, dtype=torch.long, device=self.device)
        hidden, state = self.close(state, none)
        return self._greedy(
            _Writing(self, hidden[-1][:, -1], state, torch.ones_like(state.visible[:, 0])), max_new_tokens
        )

    @torch.no_grad()
    def log_p_of_answer(self, state: ThoughtState) -> Tensor:
        """Log-probabilities [n, V] of the first token of what the answer gives, behind `answer_prefix`."""
        prefix = torch.tensor(self.answer_prefix(), dtype=torch.long, device=self.device)
        hidden, _ = self.close(state, prefix.expand(len(state.visible), -1))
        return self.log_p(hidden[-1][:, -1])

    @torch.no_grad()
    def log_p(self, final: Tensor) -> Tensor:
        """Log-probabilities [n, V], float32, of what may be said next from a final-normed state [n, d]."""
        never = torch.tensor(self.forbidden(), device=final.device)
        return self.unembed(final, "final_norm").float().index_fill(-1, never, -torch.inf).log_softmax(-1)

    @torch.no_grad()
    def greedy_chain(self, state: ThoughtState, max_new_tokens: int) -> list[list[int]]:
        """Greedy written chain and answer after a `chain` prompt: the model's own reasoning in words, the positive control."""
        return self._greedy(_Writing(self, state.final, state, torch.zeros_like(state.visible[:, 0])), max_new_tokens)

    def _greedy(self, writing: _Writing, max_new_tokens: int) -> list[list[int]]:
        written: list[list[int]] = [[] for _ in range(len(writing.final))]

        def take(row: int, token: int) -> bool:
            if token != self.eos_id:
                written[row].append(token)
            return token != self.eos_id

        n_free = self.context_length - int(writing.state.next_position.max())
        greedy(writing, range(len(written)), min(max_new_tokens, n_free), take)
        return written

    def fork(self, state: ThoughtState, rows: Sequence[int] | Tensor) -> ThoughtState:
        """The same run for some of its rows (repeats allowed): the way to branch a run or to drop questions."""
        rows = torch.as_tensor(rows, device=state.visible.device)
        cache = tuple((k[rows], v[rows]) for k, v in state.cache)
        return ThoughtState(
            cache, state.visible[rows], state.question[rows], state.next_position[rows], state.hidden[rows], state.n_fed
        )

    # 4. What is built on them ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def think_and_answer(
        self,
        questions: Questions,
        *,
        n_thoughts: int | None = None,
        max_new_tokens: int = 32,
        batch_size: int = 64,
        keep: bool = True,
    ) -> tuple[Thoughts | None, list[Answer]]:
        """Thoughts and greedy answers in one pass, in the order given; batches change neither (but with `official_compat`).

        Args:
            questions: As text; one string is one question.
            n_thoughts: K, by default as many as the model was trained with.
            max_new_tokens: Of each answer; 0 for no answers.
            batch_size: The most questions in a batch.
            keep: Return thoughts; without it, None in their place.
        """
        questions = several(questions)
        k_last = self.n_thoughts if n_thoughts is None else n_thoughts
        thoughts: list[Thoughts | None] = [None] * len(questions)
        answers: list[Answer] = [Answer("", [], None)] * len(questions)
        for rows in self.batches(questions, batch_size):
            prompt = self.prompt([questions[i] for i in rows])
            prompt_states, state = self._begun(prompt)
            question = self._question_mean(prompt, prompt_states).cpu() if keep else None
            del prompt_states
            states = [state]
            for _ in range(k_last):
                state = self.step(state)
                states.append(state)
            if question is not None:
                hidden = torch.stack([s.hidden for s in states], 1).cpu()
                projected = torch.stack([self.feed(s.final, s.n_fed) for s in states], 1).cpu()
                for i, one in zip(rows, map(Thoughts, hidden, projected, question), strict=True):
                    thoughts[i] = one
            if max_new_tokens:
                for i, ids in zip(rows, self.greedy_answer(state, max_new_tokens), strict=True):
                    answers[i] = self.answer_of(ids)
        kept = [t for t in thoughts if t is not None]
        if not kept:
            return None, answers
        joined = (torch.stack([getattr(t, name) for t in kept]) for name in ("hidden", "projected", "question"))
        return Thoughts(*joined), answers

    def think(self, questions: Questions, n_thoughts: int | None = None, batch_size: int = 64) -> Thoughts:
        """Hidden states [n, 1+K, L+1, d] and fed vectors [n, 1+K, d] for each question, on the CPU."""
        if not questions:
            raise BadInput("no question to think about: the list is empty")
        thoughts, _ = self.think_and_answer(questions, n_thoughts=n_thoughts, max_new_tokens=0, batch_size=batch_size)
        assert thoughts is not None
        return thoughts

    def answer(
        self, questions: Questions, n_thoughts: int | None = None, max_new_tokens: int = 32, batch_size: int = 64
    ) -> list[Answer]:
        """Greedy answers after thinking, in the order given."""
        return self.think_and_answer(
            questions, n_thoughts=n_thoughts, max_new_tokens=max_new_tokens, batch_size=batch_size, keep=False
        )[1]

    @torch.no_grad()
    def write_and_answer(self, questions: Questions, max_new_tokens: int = 64, batch_size: int = 64) -> list[Answer]:
        """The written chain instead of thoughts: text and answer in words, in the order given."""
        questions = several(questions)
        answers: list[Answer] = [Answer("", [], None)] * len(questions)
        for rows in self.batches(questions, batch_size):
            state = self.begin(self.prompt([questions[i] for i in rows], "chain"))
            for i, ids in zip(rows, self.greedy_chain(state, max_new_tokens), strict=True):
                answers[i] = self.answer_of(ids)
        return answers

    def batches(self, questions: Sequence[str], batch_size: int) -> Iterator[list[int]]:
        if self.official_compat:
            return in_order(len(questions), batch_size)
        return by_length([len(q) for q in questions], batch_size)

    def answer_of(self, ids: list[int]) -> Answer:
        """What generated ids say."""
        text = self.decode(ids)
        return Answer(text, ids, self.value_in(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids; ids beyond the tokenizer (the family's own rows) are left out."""
        return self.tokenizer.decode([i for i in ids if i < len(self.tokenizer)], skip_special_tokens=True).strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """One readable string per id, for tables; `[id]` for rows that the tokenizer does not name."""
        return [self.tokenizer.decode([i]) if i < len(self.tokenizer) else f"[{i}]" for i in ids]

    # 5. The one place that touches the network -----------------------------------------------------------------------

    def _extend(
        self, state: ThoughtState, embeds: Tensor, answering: Tensor | None = None, edits: Sequence[Edit] = ()
    ) -> tuple[list[Tensor], ThoughtState]:
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
        return hidden, ThoughtState(cache, visible, question, state.next_position + q, state.hidden, state.n_fed)

    def _forward(
        self, embeds: Tensor, positions: Tensor, allowed: Tensor, cache: KeyValues, edits: Sequence[Edit] = ()
    ) -> tuple[list[Tensor], KeyValues]:
        """One pass of the backbone → L + 1 hidden states [n, q, d] and the grown cache. No cache is changed in place."""
        past = DynamicCache()
        for block, (keys, values) in enumerate(cache):
            past.update(keys, values, block)
        backbone = self.base.get_submodule(anatomy_of(self.base.config).backbone)
        with edited(self.base, edits):
            out = backbone(
                inputs_embeds=embeds,
                position_ids=positions,
                attention_mask=masks_of(self.base.config, allowed, lambda seen: self._mask(seen, embeds.dtype)),
                use_cache=True,
                output_hidden_states=True,
                **{cache_name(backbone): past},
            )
        layers: list[Any] = past.layers
        return list(out.hidden_states), tuple((layer.keys, layer.values) for layer in layers)

    def _mask(self, allowed: Tensor, dtype: torch.dtype) -> Tensor:
        """What an attention kernel takes, [n, 1, q, T], for what may be attended to, Bool [n, q, T]."""
        if not self.official_compat:  # every kernel accepts an additive mask
            mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
            return mask.masked_fill_(~allowed, torch.finfo(dtype).min).unsqueeze(1)
        if self.padding_sees == "everything":  # only padding sees nothing
            allowed = allowed | ~allowed.any(-1, keepdim=True)
        return allowed[:, None]  # of a row that may attend to nothing, sdpa makes zero

    def _refuse_other_attention(self) -> None:
        kernel = self.base.config._attn_implementation
        if kernel != "sdpa":
            raise BadInput(
                f"official_compat is defined for sdpa attention, and this model computes with {kernel}: "
                "call model.base.set_attn_implementation('sdpa') first"
            )


@dataclass
class _Writing:
    """One batch that writes words, for `greedy`: `final` [n, d] is each row's last state, `answering` Bool [n]."""

    model: ThoughtModel
    final: Tensor
    state: ThoughtState
    answering: Tensor  # rows whose answer has begun: in a written chain, at its opening token

    def __post_init__(self) -> None:
        self.never = torch.tensor(self.model.forbidden(), device=self.final.device)

    def choose(self) -> Tensor:
        return self.model.unembed(self.final, "final_norm").index_fill(-1, self.never, -torch.inf).argmax(-1)

    def keep(self, rows: list[int]) -> list[int]:
        # States are never changed in place, so every row that goes on is copied anyway and the order may stay.
        self.state, self.answering = self.model.fork(self.state, rows), self.answering[rows]
        return rows

    def extend(self, tokens: Tensor) -> None:
        self.answering = self.answering | (tokens == self.model.answer_opening())
        hidden, self.state = self.model._extend(self.state, self.model.embed(tokens[:, None]), self.answering)
        self.final = hidden[-1][:, -1]
