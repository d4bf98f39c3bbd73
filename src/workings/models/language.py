"""A name → a language model that scores and continues text: our own GPT-2, or any causal model of transformers.

Both kinds pad rows on the left, so that what follows a row stands right behind it, as sliding windows need too. How one batch is
read is theirs; how contexts are scored and prompts continued is written once (`scoring.py`, `causal.py`).

Shapes: n rows, T positions, q new positions, V rows of the output head, f features (`causal.py`).
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workings.errors import BadInput
from workings.models.anatomy import device_of, dtype_of
from workings.models.attention import cache_name
from workings.models.causal import TextCodec, left_padded
from workings.models.checkpoint import config_of, is_gpt2, load_gpt2, resolve, to_own, unlike_ours
from workings.models.gpt2 import GPT2, Inference, KVCache
from workings.models.kernels import ONEDNN, is_large, maps_for, onednn, packed
from workings.models.pretrained import files_of, load_transformers
from workings.models.scoring import LanguageModel
from workings.models.weights import fill, fingerprint_of
from workings.text.bpe import TOKENIZER_FILE
from workings.text.tokenizer import Tokenizer

NUMBERS_AT_ONCE = 1 << 27  # in one block of features or logits: half a gigabyte in fp32
SAME = 2e-5  # of the largest logit: what two orders of summing fp32 numbers differ by
PACKED_AFTER = 16  # choices: packing the head takes as long as it then saves in some ten of them


def open_language(
    reference: str | Path, device: str = "auto", precision: str = "fp32", as_hf: bool = False
) -> LanguageModel:
    """Open a model to judge.

    A folder with our tokenizer in it is read by that: facts are prepared, and only ids that a text can hold are predicted.

    Args:
        reference: A hub id, a Hugging Face folder, a GGUF file, or a checkpoint of ours.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `fp32` or `bf16`.
        as_hf: Leave a GPT-2 of transformers to transformers. Without it our own modules run it, which are faster, if they give
            its logits.

    Raises:
        BadInput: It cannot be opened; the message says why.

    Example:
        >>> import tempfile
        >>> from workings.models import GPT2, GPT2Config, save_gpt2
        >>> tokenizer = Tokenizer.build("embedded", "digits")
        >>> gpt2 = GPT2(GPT2Config(n_layers=2, n_heads=2, d_model=16, block=64, vocab=tokenizer.embedding_width)).init(seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model = open_language(save_gpt2(gpt2, tokenizer, f"{folder}/model"), device="cpu")
        >>> prompt = model.encode("6 * 9 =")
        >>> right, wrong = model.logprobs([prompt], [[model.encode(" 54"), model.encode(" 45")]])[0]
        >>> right.total < 0 and wrong.total < 0
        True
        >>> len(model.generate([prompt], max_new_tokens=5)[0].ids)
        5
    """
    place, dtype = device_of(device), dtype_of(precision)
    path, name = resolve(reference), str(reference)
    if (path / "thinking.json").exists():
        raise BadInput(
            f"{name} thinks in vectors before it answers: judge it with `workings codi`, not as a plain model"
        )
    if is_gpt2(path):
        model, tokenizer = load_gpt2(path, place, dtype)
        return GPT2LanguageModel(model, TextCodec.of_ours(tokenizer), name, (path,))
    model, tokenizer = load_transformers(path, dtype)
    if (path / TOKENIZER_FILE).exists():
        codec = TextCodec.of_ours(Tokenizer.load(path))
    else:
        ends = model.generation_config.eos_token_id
        codec = TextCodec.of_transformers(tokenizer, [ends] if isinstance(ends, int) else ends or [], name)
    own = None if as_hf else as_own(model.float(), name)
    if own is not None:
        return GPT2LanguageModel(own.to(place, dtype), codec, name, files_of(path))
    return HuggingFaceModel(model.to(place, dtype), codec, name, files_of(path))


# ── our own GPT-2 ────────────────────────────────────────────────────────────────────────────────────────────────────


class GPT2LanguageModel(LanguageModel):
    """A GPT-2 of ours with its tokenizer: the head is computed only where it is needed, over rows that may be predicted. Final.

    Features are final states. What runs is `Inference` over the model's own parameters, without a copy, so that a model in
    training is judged as it stands, and left as it was.
    """

    def __init__(self, model: GPT2, codec: TextCodec, name: str, files: tuple[Path, ...] = ()):
        self.model, self.codec, self.name, self.files = model, codec, name, files
        self._run = Inference(model)
        self.context_length, self.vocab_size = model.config.block, model.config.vocab
        self.n_positions_at_once = max(1, NUMBERS_AT_ONCE // model.config.d_model)

    @classmethod
    def of(cls, model: GPT2, tokenizer: Tokenizer, name: str = "a model in training") -> GPT2LanguageModel:
        """A language model over the given model's own weights: what it scores is always what the model is now."""
        return cls(model, TextCodec.of_ours(tokenizer), name)

    @property
    def device(self) -> torch.device:
        return self.model.wte.weight.device

    @property
    def fingerprint(self) -> str:
        """sha256 of the files where there are some; else of the weights as they are now, and of what the tokenizer does."""
        if self.files:
            return self._fingerprint_of_files
        sha256 = hashlib.sha256(self.codec.tokenizer.digest.encode())
        for tensor in self.model.state_dict().values():
            sha256.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return sha256.hexdigest()

    def begin(self, rows: Sequence[Sequence[int]], n_more: int) -> tuple[Tensor, KVCache]:
        padded = left_padded(rows, self.eot, self.device)
        states, cache = self._run.begin(padded.ids, (~padded.mask).sum(1), padded.ids.shape[1] + n_more)
        return states[:, -1], cache

    def extend(self, ids: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        return self._run.extend(ids, state), state

    def fork(self, state: KVCache, rows: Tensor, n_more: int) -> KVCache:
        return state.select(rows, state.n_slots + n_more)

    def keep(self, state: KVCache, rows: Tensor) -> KVCache:
        return state.keep(rows)

    def read(self, ids: Tensor) -> Tensor:
        return self._run.read(ids)

    def logits(self, features: Tensor) -> Tensor:
        head = self.model.wte.weight
        return maps_for(head).linear(features, head, self._logit_bias).float()

    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        allowed = self.allowed(forbid)
        last = int(allowed.nonzero()[-1]) + 1
        head, allowed = self.model.wte.weight[:last], allowed[:last]
        return _Chooser(head, None if bool(allowed.all()) else _bias(allowed, head.dtype))

    @cached_property
    def _fingerprint_of_files(self) -> str:
        tokenizer = self.files[0] / "tokenizer"
        if not tokenizer.exists():
            return fingerprint_of(*self.files)
        return hashlib.sha256((fingerprint_of(*self.files) + fingerprint_of(tokenizer)).encode()).hexdigest()

    @cached_property
    def _logit_bias(self) -> Tensor | None:
        return None if self.predictable is None else _bias(self.predictable, self.model.wte.weight.dtype)


class _Chooser:
    """The likeliest row of a head, again and again with the same weights."""

    def __init__(self, head: Tensor, bias: Tensor | None) -> None:
        self.head, self.bias, self.maps = head, bias, maps_for(head)
        self.packed: Tensor | None = None
        self.n_large = 0

    def __call__(self, features: Tensor) -> Tensor:
        if self.maps is not ONEDNN or not is_large(features, self.head):
            return self.maps.linear(features, self.head, self.bias).argmax(-1)
        self.n_large += 1
        if self.n_large == PACKED_AFTER:
            self.packed = packed(self.head, len(features))
        return onednn(features, self.head if self.packed is None else self.packed, self.bias).argmax(-1)


def _bias(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 for rows that are allowed, −inf for the others."""
    return torch.zeros(len(allowed), dtype=dtype, device=allowed.device).masked_fill(~allowed, -torch.inf)


# ── models of transformers ───────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def as_own(model: Any, name: str) -> GPT2 | None:
    """A GPT-2 of transformers (fp32) in our modules, which are faster. None where ours compute something else.

    Known settings are compared, since a wrong GELU would hardly show; then the logits of a row, for settings not known here.
    """
    if unlike_ours(model.config.to_dict()):
        return None
    state = to_own(model.state_dict(), name)
    own = GPT2(config_of(state, model.config.n_head, name))
    fill(own, state, name)
    ids = torch.linspace(0, own.config.vocab - 1, min(64, own.config.block)).long()[None]
    theirs = model(ids).logits
    same = bool((own(ids) - theirs).abs().max() <= SAME * theirs.abs().max())
    return own.eval() if same else None


@dataclass(frozen=True)
class _Read:
    """A batch that a model of transformers has read."""

    cache: Any
    visible: Tensor  # Bool [n, T]: not padding
    next_position: Tensor  # Long [n]


class HuggingFaceModel(LanguageModel):
    """Any causal language model of transformers: its own forward pass, its own cache. Final.

    Features are logits: what stands between a final state and the logits differs between families, and is not ours to guess.
    """

    def __init__(self, model: Any, codec: TextCodec, name: str, files: tuple[Path, ...]):
        self.model, self.codec, self.name, self.files = model.eval(), codec, name, files
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(positions, int):
            raise BadInput(
                f"the config of {name} does not say how many positions it can read (max_position_embeddings)"
            )
        self.context_length = positions
        self.vocab_size = len(model.get_output_embeddings().weight)
        self.n_positions_at_once = max(1, NUMBERS_AT_ONCE // self.vocab_size)
        self._cache = cache_name(model)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(*self.files)

    def begin(self, rows: Sequence[Sequence[int]], n_more: int) -> tuple[Tensor, _Read]:
        padded = left_padded(rows, self.eot, self.device)
        nothing = _Read(None, padded.mask[:, :0], torch.zeros(len(rows), dtype=torch.long, device=self.device))
        logits, state = self._forward(padded.ids, padded.mask, nothing, logits_to_keep=1)
        return logits[:, -1], state

    def extend(self, ids: Tensor, state: _Read) -> tuple[Tensor, _Read]:
        return self._forward(ids, torch.ones_like(ids, dtype=torch.bool), state)

    def fork(self, state: _Read, rows: Tensor, n_more: int) -> _Read:
        cache = copy.copy(state.cache)
        cache.layers = [copy.copy(layer) for layer in cache.layers]
        cache.batch_select_indices(rows)
        return _Read(cache, state.visible[rows], state.next_position[rows])

    def read(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids, use_cache=False).logits

    def logits(self, features: Tensor) -> Tensor:
        return features.float() if self._dead is None else features.float().masked_fill(self._dead, -torch.inf)

    def chooser(self, forbid: Sequence[int]) -> Callable[[Tensor], Tensor]:
        never = ~self.allowed(forbid)
        if not bool(never.any()):
            return lambda features: features.argmax(-1)
        return lambda features: features.masked_fill(never, -torch.inf).argmax(-1)

    @cached_property
    def _dead(self) -> Tensor | None:
        return None if self.predictable is None else ~self.predictable

    def _forward(self, ids: Tensor, new: Tensor, state: _Read, **options: Any) -> tuple[Tensor, _Read]:
        """Read `ids` [n, q], of which `new` [n, q] are not padding, behind what the state has read."""
        visible = torch.cat([state.visible, new], 1)
        positions = (state.next_position[:, None] + new.cumsum(1) - 1).clamp(min=0)
        if self._takes_positions:
            options["position_ids"] = positions
        options[self._cache] = state.cache
        out = self.model(input_ids=ids, attention_mask=visible.long(), use_cache=True, **options)
        return out.logits, _Read(out[self._cache], visible, positions[:, -1] + 1)
