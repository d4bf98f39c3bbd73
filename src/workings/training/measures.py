"""A model in training → what it is asked for on the way: bits per byte, samples, a kept copy."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workings.models.checkpoint import save_gpt2
from workings.models.gpt2 import GPT2
from workings.models.scoring import bits_per_byte

if TYPE_CHECKING:
    from workings.models.language import LanguageModel
    from workings.text.corpus import Corpus
    from workings.text.tokenizer import Tokenizer


def validation(language: LanguageModel, corpus: Corpus, limit: int) -> dict[str, float]:
    """Bits per byte of the first `limit` validation documents of each source, and of all; `validation_loss` in nats a token."""
    documents = [one for source in corpus.sources for one in islice(corpus.validation(source), limit)]
    if not documents:
        return {}
    read = bits_per_byte(language, documents)
    by_source = {f"bits_per_byte.{name}": _bits(part) for (name,), part in read.group_by("source", maintain_order=True)}
    return {
        "bits_per_byte": _bits(read),
        **by_source,
        "validation_loss": float(read["nats"].sum()) / int(read["tokens"].sum()),
        "n_validation": len(read),
    }


def _bits(read: Any) -> float:
    return float(read["nats"].sum()) / (math.log(2) * int(read["bytes"].sum()))


def samples(language: LanguageModel, prompts: Sequence[str], n_tokens: int) -> list[dict[str, str]]:
    """Greedy continuations, so that two steps, or two arms, can be laid side by side; no longer than half the positions."""
    ids = [language.encode(language.prepare(prompt)) for prompt in prompts]
    written = language.generate(ids, min(n_tokens, max(1, language.context // 2)))
    return [{"prompt": p, "text": g.text, "ended": g.ended} for p, g in zip(prompts, written, strict=True)]


def keep_model(model: GPT2, tokenizer: Tokenizer, folder: Path) -> Path:
    """A checkpoint folder that appears whole; what a training that was killed had kept there gives way."""
    shutil.rmtree(folder, ignore_errors=True)
    return save_gpt2(model, tokenizer, folder)
