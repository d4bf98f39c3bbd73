"""A question → the text a model is asked with, and its ids: the same words in every arm, each read in the arm's own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from workings.models.language import LanguageModel
from workings.text.tokenizer import Tokenizer

Style = Literal["chat", "lm-eval"]


@dataclass(frozen=True)
class Layout:
    """How a question and its answer stand on the page, and what begins the next question."""

    question: str
    stop: tuple[str, ...]
    n_fewshot: int
    """Where the user names no number."""

    def prompt(self, question: str, examples: tuple[tuple[str, str], ...] = ()) -> str:
        """Worked examples, if any, and the question; it ends where the answer begins, without a space."""
        before = "".join(f"{self.question % asked} {answer}\n\n" for asked, answer in examples)
        return before + self.question % question


LAYOUTS: dict[Style, Layout] = {
    "chat": Layout("User: %s\nAssistant:", ("\nUser:",), 0),
    "lm-eval": Layout("Question: %s\nAnswer:", ("Question:", "</s>", "<|im_end|>"), 5),
}


def ids_of(model: LanguageModel, raw: str) -> list[int]:
    """Raw text as this model reads it: prepared as its training text was, then encoded."""
    return model.encode(model.prepare(raw))


def room(model: LanguageModel, wanted: int) -> int:
    """New tokens, fewer where the positions are few: half of them at least are the prompt's."""
    return min(wanted, model.context // 2)


def opening(model: LanguageModel) -> list[int]:
    """What this model's tokenizer puts before every text: a beginning for Llama and Gemma, nothing for GPT-2 and ours."""
    tokenizer = model.reader.tokenizer
    return [] if isinstance(tokenizer, Tokenizer) else tokenizer.encode("")
