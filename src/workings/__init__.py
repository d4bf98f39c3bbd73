"""Show your workings: where a small language model keeps its arithmetic, and whether a reading of it found anything.

The public names, in the order a reader meets them. Each is imported when it is first used, so that `import workings`
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "Problem": "workings.arithmetic.problems",
    "Step": "workings.arithmetic.chain",
    "answer_in": "workings.arithmetic.answers",
    "Fact": "workings.arithmetic.facts",
    "FactVocabulary": "workings.arithmetic.facts",
    "rewrite": "workings.arithmetic.rewrite",
    "expand": "workings.arithmetic.rewrite",
    "generate": "workings.arithmetic.generator",
    "read_problems": "workings.arithmetic.problems",
    "CODI": "workings.models.codi",
    "ThoughtStore": "workings.reading.store",
    "collect": "workings.reading.collection",
    "Targets": "workings.reading.targets",
    "LogitLens": "workings.reading.lens",
    "TunedLens": "workings.reading.lens",
    "Tokenizer": "workings.text.tokenizer",
    "Corpus": "workings.text.corpus",
    "build_corpus": "workings.text.corpus",
    "GPT2": "workings.models.gpt2",
    "open_language": "workings.models.language",
    "Run": "workings.run",
    "RunRecord": "workings.run",
    "run_experiment": "workings.experiment",
    "BadInput": "workings.errors",
    "Failed": "workings.errors",
}

__all__ = ["__version__", *_PLACES]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'workings' has no attribute '{name}'")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
