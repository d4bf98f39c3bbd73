"""CODI: question → six continuous thoughts → answer; each thought is the projected state of the one before.

Source: "CODI: Compressing Chain-of-Thought into Continuous Space via Self-Distillation" (2025). The token layout, the projection
and the rows added to the embedding follow the released checkpoints; where the official code depends on the batch (no mask on
thoughts and answer), the right behaviour is the default and `official_compat=True` gives theirs, number for number.

`recurrence="constant"` makes the matched control: the same model with one learned vector fed at every step, so that nothing is
carried from thought to thought. `answer_sees="thoughts"` hides the question from the answer.

A folder of ours holds `config.json` (the base model's), `thinking.json` (what makes it think), the weights and the tokenizer: all
that is needed to run it. LoRA factors are in the weights already, and stand beside them in `lora.safetensors` so that they can be
taken out again. Released files hold a PEFT state dict only (`released.py`), so config and tokenizer come from the base.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from workings import seeds
from workings.arithmetic.chain import write_chain
from workings.arithmetic.problems import Problem
from workings.config import from_dict, several, to_dict
from workings.errors import BadInput
from workings.files import describe, read_description
from workings.models.adapters import AdapterConfig, is_adapter, merge
from workings.models.anatomy import HEAD, anatomy_of
from workings.models.attention import refuse_unknown_options
from workings.models.causal import PaddedRows, left_padded
from workings.models.checkpoint import resolve
from workings.models.configs import CodiConfig
from workings.models.pretrained import config_in, files_of, load_base, tokenizer_in
from workings.models.released import DEFAULT_ALPHA, adapter_config, is_released, unpack, wrap
from workings.models.thinking import Mode, PaddingSees, Questions, ThoughtModel
from workings.models.weights import (
    WEIGHTS,
    appearing,
    check_digest,
    fill,
    fingerprint_of,
    read_tensors,
    read_weights,
    refuse_incomplete,
    refuse_not_finite,
    tensor_names,
    weight_files,
    write_tensors,
)

ANSWER_PROMPT = "The answer is:"
ADAPTERS = "lora.safetensors"
OFFICIAL_NUMBER = re.compile(r"-?\d+\.?\d*")


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
        refuse_unknown_options(base.config)
        self.base, self.tokenizer, self.config, self.fingerprint = base, tokenizer, config, fingerprint
        self._has_warned = False  # of words that the tokenizer does not know
        self.adapters: dict[
            str, Tensor
        ] = {}  # LoRA factors that have been added to the weights, named as in `released`
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

    def question_ids(self, questions: Questions, *, raw: bool = False) -> list[list[int]]:
        """Questions as the encoder sees them, opening token included; `raw`: as written, whatever the model's config says.

        The first question with words that the tokenizer does not know is warned of: its answer means nothing.
        """
        if not questions:
            return []
        normal = self.config.normalise_question and not raw
        texts = [q.strip().replace("  ", " ") if normal else q for q in several(questions)]
        # Special tokens as the tokenizer adds them: a BOS for Llama, none for GPT-2; an EOS is ours to add.
        # What a question merely spells is text: it does not end the question.
        rows = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        self._warn_of_unknown_words(texts, rows)
        rows = [row[:-1] if row and row[-1] == self.eos_id else row for row in rows]
        ends = [] if self.config.remove_eos else [self.eos_id]
        return [[*row, *ends, self.config.bot_id] for row in rows]

    def _warn_of_unknown_words(self, texts: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
        unknown = self.tokenizer.unk_token_id
        if self._has_warned or unknown in (None, self.eos_id, self.tokenizer.bos_token_id):
            return
        text = next((text for text, row in zip(texts, rows, strict=True) if unknown in row), None)
        if text is None:
            return
        encoded = self.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True)
        spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        words = dict.fromkeys(text[begin:end] for token, (begin, end) in spans if token == unknown)
        shown = ", ".join(repr(word if len(word) <= 20 else f"{word[:19]}…") for word in [*words][:3])
        warnings.warn(
            f"the model's vocabulary lacks {shown} (of '{text[:60]}'): "
            "it reads an unknown word there, and answers all the same",
            stacklevel=3,
        )
        self._has_warned = True

    def prompt(self, questions: Questions, mode: Mode = "latent") -> PaddedRows:
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
        # The official code cuts the last row off and nothing else, and may say pad and bot.
        return list(range(rows - 1 if self.official_compat else self.config.vocabulary, rows))

    def value_in(self, text: str) -> Fraction | None:
        """The number that an answer gives: by the official code its last one, once the commas are gone."""
        if not self.official_compat:
            return super().value_in(text)
        numbers = OFFICIAL_NUMBER.findall(text.replace(",", ""))
        return Fraction(numbers[-1].rstrip(".")) if numbers else None

    def chain_text(self, problem: Problem) -> str:
        """The written chain, with or without its last step, in the style the teacher saw; a chain in words ends in a newline."""
        end = None if self.config.keep_last_step else -1
        if problem.words:
            return "".join(f"{' '.join(some)}\n" for some in [problem.words[:end]] if some)
        return write_chain(problem.steps[:end], style=self.config.chain_style)

    def chain_ids(self, problem: Problem) -> list[int]:
        return self.tokenizer.encode(self.chain_text(problem), add_special_tokens=False)

    def answer_prefix(self) -> list[int]:
        [(ids, at)] = self.answer_ids([Problem("", (), "1")])
        return ids[: at + 1]

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
            base = AutoModelForCausalLM.from_config(self.base.config, dtype=self.dtype, trust_remote_code=False)
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
        padding_sees: PaddingSees = "nothing",
    ) -> CODI:
        """Load a trained CODI of any layout, in evaluation mode.

        Args:
            checkpoint: `bundled`, `bundled-control`, our own folder, or a released checkpoint (folder, file or hub id).
            base: Path or hub id of the base model, for a released checkpoint: it has no config or tokenizer inside.
            lora_alpha: For a released checkpoint, which does not say it; without it 32 is used, with a warning.
            device: Where to compute.
            dtype: The number format to compute in.
            official_compat: Give the numbers of the official code, which depend on the batch; see `ThoughtModel`.
            padding_sees: What the padding attends to then: nothing, or everything (transformers before 4.53 on a GPU).

        Raises:
            BadInput: A file or tensor is missing, damaged, changed, or does not fit; the message names it.
        """
        path = resolve(checkpoint)
        ours = (path / "thinking.json").exists()
        parts = _read_folder(path) if ours else _read_released(path, base, lora_alpha)
        anatomy_of(parts.base)
        kernel = {"attn_implementation": "sdpa"} if official_compat else {}
        inner = AutoModelForCausalLM.from_config(parts.base, dtype=dtype, trust_remote_code=False, **kernel)
        model = cls(inner, parts.tokenizer, parts.config, parts.fingerprint)
        fill(model, parts.tensors, parts.source, tied=model._tied)
        inner.tie_weights()
        model.adapters = parts.adapters
        model.official_compat, model.padding_sees = official_compat, padding_sees
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
        with appearing(folder) as partial:
            self.base.config.save_pretrained(partial)
            self.tokenizer.save_pretrained(partial)
            write_tensors({k: v for k, v in self.state_dict().items() if k not in self._tied}, partial / WEIGHTS)
            if self.adapters:
                write_tensors(self.adapters, partial / ADAPTERS)
            describe(partial, "thinking.json", {"family": "codi"} | to_dict(self.config))
            if card:
                (partial / "README.md").write_text(card)
        return Path(folder)

    def save_released(self, folder: str | Path) -> Path:
        """Write the weights as the official code saves them: a PEFT state dict in `model.safetensors`, and nothing else.

        The layout holds all weights: those of the base, the LoRA factors that a training added to them, and the projection. Of a
        model that was trained whole everything is in the base, and there are no factors. It holds no config, tokenizer or
        LoRA alpha, nor anything else of `CodiConfig`: `official_flags` says what the official code must be told.

        Args:
            folder: A new one; it appears whole or not at all.

        Raises:
            BadInput: The official code has no such model, or the folder already holds something.
            Failed: The disk is full.
        """
        if self.config.recurrence != "state" or self.config.answer_sees != "everything":
            raise BadInput(
                f"the official code has no model with recurrence {self.config.recurrence} whose answer sees "
                f"{self.config.answer_sees}: it carries a state, and its answer sees everything"
            )
        targets = anatomy_of(self.base.config).lora_targets
        with appearing(folder) as partial:
            write_tensors(wrap(self.state_dict(), self.adapters, self.config.lora_alpha, targets), partial / WEIGHTS)
        return Path(folder)

    def official_flags(self) -> str:
        """What the official code must be told on its command line about this model, since the file cannot say it."""
        config = self.config
        rank = next((len(factor) for name, factor in self.adapters.items() if name.endswith("lora_A")), 1)
        flags = {
            "use_lora": True,
            "lora_r": rank,
            "lora_alpha": f"{config.lora_alpha if self.adapters else 1:g}",
            "num_latent": self.n_thoughts,
            "inf_latent_iterations": self.n_thoughts,
            "use_prj": config.projection,
            "prj_dim": config.projection_width,
            "prj_no_ln": not config.projection_norm,
            "remove_eos": config.remove_eos,
            "include_last_cot": config.keep_last_step,
        }
        return " ".join(["--lora_init", *(f"--{name} {value}" for name, value in flags.items())])

    @property
    def _tied(self) -> tuple[str, ...]:
        """Names in the state dict that are another parameter's and not stored."""
        return (f"base.{HEAD}.weight",) if self.base.config.tie_word_embeddings else ()


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
    """Like `CODI.load`, and a plain causal language model is wrapped as an untrained CODI.

    It may be a folder, GGUF file, hub id, or a folder of PEFT with a LoRA adapter, whose base it names unless `base` does.
    """
    path = resolve(reference)
    if not _is_plain(path):
        return CODI.load(path, base, lora_alpha, device, dtype)
    model, tokenizer = load_base(path, dtype, base)
    name = "untrained CODI round " + fingerprint_of(*files_of(path, base))
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


# ── what is in a folder or file ──────────────────────────────────────────────────────────────────────────────────────


def _is_plain(path: Path) -> bool:
    """Whether this is a causal language model without thoughts: it has a config of its own and no thinking.json."""
    if path.suffix == ".gguf":
        return True
    described = (path / "config.json").exists() or is_adapter(path)
    return described and not (path / "thinking.json").exists() and not is_released(tensor_names(path))


@dataclass(frozen=True)
class _Parts:
    """What a CODI is built from. `tensors` are named as in its state dict (`base.…`, `prj.…`); a tied head is left out.

    `adapters` are the LoRA factors that are in them already, if there were any.
    """

    base: Any  # Hugging Face config of the base model, rows of pad, bot and eot included
    tokenizer: Any
    config: CodiConfig
    tensors: dict[str, Tensor]
    source: Path
    adapters: dict[str, Tensor]
    beside: tuple[Path, ...] = ()  # other places that decide the states
    unusual: str = ""  # settings that do

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the states: of the files alone, as in earlier versions, where nothing else does."""
        files = fingerprint_of(self.source, *self.beside)
        return hashlib.sha256((files + self.unusual).encode()).hexdigest() if self.unusual else files


def _read_folder(path: Path) -> _Parts:
    fields = read_description(path / "thinking.json")
    family = fields.pop("family", None)
    if family != "codi":
        raise BadInput(f"{path}/thinking.json names the family '{family}'; this version knows: codi")
    for name in ("config.json", WEIGHTS, "tokenizer.json"):
        if not (path / name).exists():
            raise BadInput(f"{path} has no {name}: the checkpoint is incomplete. Copy the whole folder again.")
    tensors = read_tensors(path / WEIGHTS)
    check_digest(path / ADAPTERS)  # which need not be there, but may not be lost
    adapters = read_tensors(path / ADAPTERS) if (path / ADAPTERS).exists() else {}
    refuse_not_finite(path / ADAPTERS, adapters)
    return _Parts(config_in(path), tokenizer_in(path), from_dict(CodiConfig, fields), tensors, path, adapters)


def _read_released(path: Path, base: str | Path | None, lora_alpha: float | None) -> _Parts:
    file, released = _released_tensors(path)
    if base is None:
        raise BadInput(
            f"{file} holds weights only. Name the base model it was trained from (--base, path or hub id) "
            "for its config and tokenizer."
        )
    base = resolve(base)
    config, tokenizer = config_in(base), tokenizer_in(base)
    embedding = f"{anatomy_of(config).embedding}.weight"
    plain, projection, pairs = unpack(released, file)
    scales = adapter_config(file, lora_alpha, has_factors=bool(pairs))
    if is_adapter(path) and not scales.changes_base:  # its other weights are the base's
        whole = load_base(base)[0].state_dict()
        plain = {name: whole[name] for name in whole if name != _HEAD or not config.tie_word_embeddings} | plain
    adapters = merge(plain, pairs, scales, file)
    if config.tie_word_embeddings:
        _join_head(plain, embedding, file)
    if embedding not in plain:
        refuse_incomplete(file, missing=[embedding])
    n_rows = len(plain[embedding])
    vocabulary = _vocabulary_of(base, config, len(tokenizer), n_rows, file)
    config.vocab_size = n_rows
    inner = projection["prj.1.weight"].shape[0] if "prj.1.weight" in projection else 0
    codi = CodiConfig(
        vocabulary=vocabulary,
        projection=inner > 0,
        projection_width=inner or CodiConfig.projection_width,
        projection_norm="prj.ln.weight" in projection,
        lora_alpha=scales.alpha if pairs else None,
    )
    tensors = {f"base.{name}": value for name, value in plain.items()} | projection
    return _Parts(
        config,
        tokenizer,
        codi,
        tensors,
        file,
        {f"base.{name}": value for name, value in adapters.items()},
        (base,) if is_adapter(path) else (),
        _unusual(scales, bool(pairs), vocabulary, n_rows),
    )


_HEAD = f"{HEAD}.weight"


def _released_tensors(path: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file of a released checkpoint, or the folder of its files, and the tensors. BadInput where it is something else."""
    files, _ = weight_files(path)
    file = files[0] if len(files) == 1 else files[0].parent
    tensors = read_weights(path)
    if is_released(tensors) or is_adapter(path):
        return file, tensors
    first = next(iter(tensors), "none")
    if first.startswith("base."):
        raise BadInput(
            f"{path} has no thinking.json, and its weights are named as in one of ours: copy the whole folder"
        )
    plain = path.is_dir() and not (path / "config.json").exists()
    raise BadInput(
        f"{file} is no released checkpoint of CODI: no key starts with codi. or coconut. (its first key: {first})."
        + (" A plain model needs its config.json." if plain else "")
    )


def _join_head(plain: dict[str, Tensor], embedding: str, file: Path) -> None:
    """Leave one table of the two that are tied."""
    head = plain.pop(_HEAD, None)
    if head is None:
        return
    if embedding in plain and not torch.equal(head, plain[embedding]):  # the official code uses the head's
        warnings.warn(
            f"{file}: lm_head and embedding differ though they are tied; lm_head is used for both", stacklevel=4
        )
    plain[embedding] = head


def _unusual(scales: AdapterConfig, has_factors: bool, vocabulary: int, n_rows: int) -> str:
    """What decides the states of a released checkpoint beside its file, where that is not as released."""
    counted = has_factors and (scales.source is not None or scales.alpha != DEFAULT_ALPHA)
    said = f"{scales.alpha:g} {scales.rank_stabilised} {dict(scales.alphas)} " if counted else ""
    return said + (f"{vocabulary} of {n_rows}" if n_rows != vocabulary + 3 else "")


def _vocabulary_of(base: Path, config: Any, n_tokens: int, n_rows: int, file: Path) -> int:
    """V, the id of pad, behind which are bot and eot: what the base calls its vocabulary.

    The official code adds three rows to `config.vocab_size`. Trainers may fill the rows up to a multiple of a power of two.

    Raises:
        BadInput: The file has another number of rows.
    """
    thinking = base / "thinking.json"  # a base that is itself a CODI of ours has the three rows already
    vocabulary = read_description(thinking)["vocabulary"] if thinking.exists() else config.vocab_size
    needed = vocabulary + 3
    if n_rows not in {needed, *(-(-needed // multiple) * multiple for multiple in _PADDED_TO)}:
        raise BadInput(
            f"{file} has {n_rows} embedding rows, and its base needs {needed} (vocabulary, pad, bot, eot), or as many "
            "filled up to a multiple of 8, 16, … 512: wrong base?"
        )
    if vocabulary < n_tokens - 1:  # official training adds [PAD] to the tokenizer: its id is our pad row
        raise BadInput(
            f"{base}: its tokenizer has {n_tokens} tokens, its config a vocabulary of {vocabulary}: wrong tokenizer?"
        )
    return vocabulary


_PADDED_TO = (8, 16, 32, 64, 128, 256, 512)
