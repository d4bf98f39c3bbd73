"""A name → a language model to judge: a hub id, a Hugging Face folder, a GGUF file, a checkpoint of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workings.errors import BadInput
from workings.models.causal import LanguageModel, hub_reader, own_reader
from workings.models.checkpoint import is_gpt2, load_gpt2, load_transformers, resolve
from workings.models.device import device_of, dtype_of
from workings.models.generation import Generation
from workings.models.hub import HubModel
from workings.models.own import Language, as_own
from workings.models.scoring import Scored, bits_per_byte
from workings.text.export import ABOUT
from workings.text.tokenizer import Tokenizer

__all__ = ["Generation", "HubModel", "Language", "LanguageModel", "Scored", "bits_per_byte", "open_language"]


def open_language(
    reference: str | Path, device: str = "auto", precision: str = "fp32", as_hf: bool = False
) -> LanguageModel:
    """A model to judge. BadInput says what cannot be opened, and why.

    A folder with our tokenizer in it is read by that: facts are prepared, and only live ids are predicted. A GPT-2 of
    transformers is run by our own modules, which are faster, if these give its logits; `as_hf` leaves it to transformers.
    """
    where, dtype = device_of(device), dtype_of(precision)
    path, name = resolve(reference), str(reference)
    if (path / "thinking.json").exists():
        raise BadInput(
            f"{name} thinks in vectors before it answers: judge it with `workings codi`, not as a plain model"
        )
    if is_gpt2(path):
        model, tokenizer = load_gpt2(path, where, dtype)
        return Language(model, own_reader(tokenizer), name, path)
    model, tokenizer = load_transformers(path, dtype)
    if (path / ABOUT).exists():
        reader = own_reader(Tokenizer.load(path))
    else:
        reader = hub_reader(tokenizer, _listed(model.generation_config.eos_token_id), name)
    own = None if as_hf else as_own(model.float(), name)
    if own is not None:
        return Language(own.to(where, dtype), reader, name, path)
    return HubModel(model.to(where, dtype), reader, name, path)


def _listed(ids: int | Sequence[int] | None) -> list[int]:
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)
