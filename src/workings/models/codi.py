"""CODI: question → six continuous thoughts → answer; each thought is the projected state of the one before.

Source: "CODI: Compressing Chain-of-Thought into Continuous Space via Self-Distillation" (2025). The token layout, the projection
and the rows added to the embedding follow the released checkpoints; where the official code depends on the batch (no mask on
thoughts and answer), the right behaviour is the default and `official_compat=True` gives theirs.

`recurrence="constant"` makes the matched control: the same model with one learned vector fed at every step, so that nothing is
carried from thought to thought. `answer_sees="thoughts"` hides the question from the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from workings import seeds
from workings.arithmetic.chain import write_chain
from workings.arithmetic.problems import Problem
from workings.errors import BadInput
from workings.models.anatomy import anatomy_of
from workings.models.causal import PaddedRows, left_padded
from workings.models.checkpoint import CodiParts, is_plain, load_base, read_codi, resolve, save_codi
from workings.models.configs import CodiConfig
from workings.models.thinking import Mode, ThoughtModel
from workings.models.weights import fill, fingerprint_of

ANSWER_PROMPT = "The answer is:"


class Projection(nn.Sequential):
    """The projection of a state to the next fed vector, H_k [n, d] → z_{k+1} [n, d].

    Dropout, linear, GELU (erf), linear, layer norm; keys `1.*`, `3.*`, `ln.*` as in the released files.
    """

    def __init__(self, width: int, inner: int, dropout: float = 0.0, norm: bool = True):
        super().__init__(nn.Dropout(dropout), nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        if norm:
            self.add_module("ln", nn.LayerNorm(width))


class CODI(ThoughtModel):
    """A causal language model that thinks by CODI's recurrence. `load` reads any layout, `wrap` makes an untrained one.

    Example:
        >>> model = CODI.load("bundled")
        >>> question = "Ann has 14 cards. She gives away 4. How many cards does she have now?"
        >>> thoughts = model.think([question])
        >>> thoughts.hidden.shape == (1, 1 + model.n_thoughts, len(model.layers), model.width)
        True
        >>> model.answer([question])[0].text
        'The answer is : 10'
    """

    def __init__(self, base: Any, tokenizer: Any, config: CodiConfig, fingerprint: str = "untrained"):
        super().__init__()
        self.base, self.tokenizer, self.config, self.fingerprint = base, tokenizer, config, fingerprint
        rows = base.get_input_embeddings().weight.shape[0]
        if rows < config.vocabulary + 3:
            raise BadInput(
                f"the embedding has {rows} rows; CODI needs {config.vocabulary + 3} (vocabulary + pad, bot, eot)"
            )
        width, dtype = base.config.hidden_size, base.dtype
        self.prj: nn.Module = nn.Identity()
        if config.recurrence == "constant":
            self.constant = nn.Parameter(torch.randn(width, dtype=dtype) * base.config.initializer_range)
        elif config.projection:
            inner = config.projection_width
            self.prj = Projection(width, inner, config.projection_dropout, config.projection_norm).to(dtype)
        self.n_thoughts, self.answer_sees, self.pad_id = config.n_thoughts, config.answer_sees, config.pad_id
        self.eos_id = tokenizer.eos_token_id
        if self.eos_id is None:
            raise BadInput("the tokenizer names no end-of-text token; an answer could never end. Set its eos_token.")

    # What CODI alone knows -------------------------------------------------------------------------------------------

    def question_ids(self, questions: Sequence[str]) -> list[list[int]]:
        """Questions as the encoder sees them, opening token included."""
        if not questions:
            return []
        normal = self.config.normalise_question
        texts = [q.strip().replace("  ", " ") if normal else q for q in questions]
        # Special tokens as the tokenizer adds them: a BOS for Llama, none for GPT-2; an EOS is ours to add.
        # What a question merely spells is text: it does not end the question.
        rows = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        rows = [row[:-1] if row and row[-1] == self.eos_id else row for row in rows]
        ends = [] if self.config.remove_eos else [self.eos_id]
        return [[*row, *ends, self.config.bot_id] for row in rows]

    def prompt(self, questions: Sequence[str], mode: Mode = "latent") -> PaddedRows:
        rows = self.question_ids(questions)
        return left_padded(rows if mode == "latent" else [r[:-1] for r in rows], self.pad_id, self.device)

    def feed(self, final: Tensor, k: int) -> Tensor:
        if self.config.recurrence == "constant":
            return self.constant.expand(final.shape)
        return self.prj(final)

    def closing(self) -> list[int]:
        return [self.config.eot_id] + ([] if self.config.remove_eos else [self.eos_id])

    def answer_opening(self) -> int:
        return self.tokenizer.encode(ANSWER_PROMPT, add_special_tokens=False)[0]

    def forbidden(self) -> list[int]:
        rows = self.base.get_output_embeddings().weight.shape[0]
        return list(range(self.config.vocabulary, rows))

    def chain_text(self, problem: Problem) -> str:
        """The written chain, with or without its last step, in the style the teacher saw."""
        steps = problem.steps if self.config.keep_last_step else problem.steps[:-1]
        return write_chain(steps, style=self.config.chain_style)

    def chain_ids(self, problem: Problem) -> list[int]:
        return self.tokenizer.encode(self.chain_text(problem), add_special_tokens=False)

    def answer_ids(self, problems: Sequence[Problem]) -> list[tuple[list[int], int]]:
        """For each problem the ids of `The answer is: X` with the closing eos, and the index of the token before X's first.

        That token is where student and teacher are compared. It is found from the text, not from the name of the model: GPT-2
        writes `: 42` as `:`, ` 42`; Llama-3 as `:`, ` `, `42`.
        """
        texts = [f"{ANSWER_PROMPT} {p.answer}" for p in problems]
        encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        start = len(ANSWER_PROMPT) + 1
        first = [next(i for i, (_, end) in enumerate(spans) if end > start) for spans in encoded["offset_mapping"]]
        return [([*ids, self.eos_id], i - 1) for ids, i in zip(encoded["input_ids"], first, strict=True)]

    # Loading and saving ----------------------------------------------------------------------------------------------

    @classmethod
    def wrap(cls, base: Any, tokenizer: Any, *, seed: int = 0, fingerprint: str = "untrained", **fields: Any) -> CODI:
        """An untrained CODI round a causal language model: three embedding rows and a projection are added, both random.

        Args:
            base: A model of transformers; it is changed in place (its embedding grows by three rows).
            tokenizer: Its tokenizer.
            seed: Decides the new rows and the projection.
            fingerprint: What stored thoughts will name as their model.
            fields: Those of `CodiConfig`.
        """
        vocabulary = max(len(tokenizer), base.config.vocab_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive("init", seed))
            _grow(base, vocabulary + 3)
            fields = {"projection_width": base.config.hidden_size} | fields
            return cls(base, tokenizer, CodiConfig(vocabulary=vocabulary, **fields), fingerprint)

    def untrained(self, seed: int = 0) -> CODI:
        """The same architecture with fresh random weights: the control for everything that is read from this model."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive("untrained", seed))
            base = AutoModelForCausalLM.from_config(self.base.config, dtype=self.dtype)
            fresh = CODI(base, self.tokenizer, self.config, f"untrained (seed {seed}) like {self.fingerprint}")
        return fresh.to(self.device).eval()

    @classmethod
    def load(
        cls,
        checkpoint: str | Path,
        base: str | Path | None = None,
        lora_alpha: float | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        official_compat: bool = False,
    ) -> CODI:
        """Load a trained CODI of any layout, in evaluation mode.

        Args:
            checkpoint: `bundled`, `bundled-control`, our own folder, or a released checkpoint (folder, file or hub id).
            base: Path or hub id of the base model, for a released checkpoint: it has no config or tokenizer inside.
            lora_alpha: For a released checkpoint, which does not say it; without it 32 is used, with a warning.
            device: Where to compute.
            dtype: The number format to compute in.
            official_compat: Attend to padding as the official code does; answers then depend on the batch.

        Raises:
            BadInput: A file or tensor is missing, damaged, changed, or does not fit; the message names it.
        """
        parts = read_codi(checkpoint, base, lora_alpha)
        anatomy_of(parts.base)
        inner = AutoModelForCausalLM.from_config(parts.base, dtype=dtype)
        model = cls(inner, parts.tokenizer, parts.config, parts.fingerprint)
        fill(model, parts.tensors, parts.source, tied=model._tied)
        inner.tie_weights()
        model.official_compat = official_compat
        return model.to(device).eval()

    def save(self, folder: str | Path, card: str | None = None) -> Path:
        """Write weights, config, tokenizer and thought count into one folder: all that is needed to run the model.

        Args:
            folder: A new one; it appears whole or not at all.
            card: Becomes its README.md.

        Raises:
            BadInput: The folder already holds something.
            Failed: The disk is full.
        """
        tensors = {name: value for name, value in self.state_dict().items() if name not in self._tied}
        parts = CodiParts(self.base.config, self.tokenizer, self.config, tensors, Path(folder), self.fingerprint)
        return save_codi(parts, folder, card)

    @property
    def _tied(self) -> tuple[str, ...]:
        """Names in the state dict that are another parameter's and not stored."""
        return ("base.lm_head.weight",) if self.base.config.tie_word_embeddings else ()


def open_model(
    reference: str | Path,
    *,
    base: str | Path | None = None,
    lora_alpha: float | None = None,
    n_thoughts: int = 6,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CODI:
    """Like `CODI.load`, and a plain causal language model (folder, GGUF file, hub id) is wrapped as an untrained CODI."""
    path = resolve(reference)
    if not is_plain(path):
        return CODI.load(path, base, lora_alpha, device, dtype)
    model, tokenizer = load_base(path, dtype)
    name = "untrained CODI round " + fingerprint_of(path)
    return CODI.wrap(model, tokenizer, seed=seed, n_thoughts=n_thoughts, fingerprint=name).to(device).eval()


def _grow(base: Any, rows: int) -> None:
    """Give embedding and head so many rows. A new row is the mean row plus a little noise.

    That is what Hugging Face draws too, but from a covariance that takes minutes for 49k rows.
    """
    old = base.get_input_embeddings().weight.shape[0]
    if rows <= old:
        return
    base.resize_token_embeddings(rows, mean_resizing=False)
    tables = {id(w): w for w in (base.get_input_embeddings().weight, base.get_output_embeddings().weight)}
    for weight in tables.values():  # once for a tied pair
        mean, spread = weight.data[:old].mean(0), weight.data[:old].std() * 0.02
        weight.data[old:] = mean + torch.randn(rows - old, weight.shape[1], dtype=weight.dtype) * spread
