"""Settings of the benchmarks, prompt templates, and a question → the ids that a model reads.

Nothing here imports torch: `workings eval --help` and the Configs of experiments need the settings before any model is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from workings.arithmetic.drills import DrillSpec
from workings.arithmetic.fields import FIELDS_HELP
from workings.config import check_ranges, fixed, nuisance, several, suggestion
from workings.errors import BadInput
from workings.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from workings.models.language import LanguageModel

TaskName = Literal["hellaswag", "gsm8k", "probes"]
Convention = Literal["karpathy", "lm-eval"]
"""A scoring convention of HellaSwag: see `evals.hellaswag`."""
PromptStyle = Literal["chat", "lm-eval"]
HELLASWAG = "Rowan/hellaswag"
GSM8K = "openai/gsm8k:main"


def checked_tasks(tasks: str | Iterable[str]) -> list[TaskName]:
    """The tasks named, each once.

    Raises:
        BadInput: None is named, or one that does not exist.
    """
    known: tuple[TaskName, ...] = get_args(TaskName)
    names = list(dict.fromkeys(several(tasks)))
    if not names:
        raise BadInput(f"no task: name one or several of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise BadInput(f"no task '{name}'{suggestion(name, known) or '; there are ' + ', '.join(known)}")
    return [name for name in names if name in known]


@dataclass(frozen=True)
class PromptTemplate:
    """The layout of a question and its answer in a text.

    Attributes:
        question: A format with one `%s`; it ends where the answer begins, without a space.
        stop: Strings that begin the next question, and so end an answer.
        n_fewshot: Worked examples where the user names no number.
    """

    question: str
    stop: tuple[str, ...]
    n_fewshot: int

    def prompt(self, question: str, examples: tuple[tuple[str, str], ...] = ()) -> str:
        """Worked examples (question, answer), if any, then the question."""
        before = "".join(f"{self.question % example} {answer}\n\n" for example, answer in examples)
        return before + self.question % question


TEMPLATES: dict[PromptStyle, PromptTemplate] = {
    "chat": PromptTemplate("User: %s\nAssistant:", ("\nUser:",), 0),
    "lm-eval": PromptTemplate("Question: %s\nAnswer:", ("Question:", "</s>", "<|im_end|>"), 5),
}


@dataclass(frozen=True)
class Settings:
    """Data, prompts and limits of the benchmarks; the same for all models that are to be compared."""

    hellaswag_data: str = fixed(HELLASWAG, "HellaSwag items: a hub id, a JSON-lines file, or a folder with one")
    conventions: tuple[Convention, ...] = fixed(
        ("karpathy", "lm-eval"), "HellaSwag scoring conventions", formerly="customs"
    )
    gsm8k_data: str = fixed(
        GSM8K, "GSM8K items: a hub id, a file, a folder with a file for each split, or generated[:preset]"
    )
    gsm8k_fields: tuple[str, ...] = fixed((), FIELDS_HELP)
    prompt: PromptStyle = fixed(
        "chat", "prompt of GSM8K and probes: chat is User:/Assistant:, lm-eval is Question:/Answer:"
    )
    num_fewshot: int | None = fixed(
        None, "number of worked examples before a GSM8K question; by default 0 for chat and 5 for lm-eval", at_least=0
    )
    max_new_tokens: int = fixed(256, "maximum number of new tokens per answer to GSM8K", at_least=1)
    limit: int | None = fixed(None, "maximum number of items per task, the first ones", at_least=1)
    drills: DrillSpec = fixed(DrillSpec(), "specification of the drills whose held-out facts the probes ask for")
    probe_seed: int = fixed(0, "random seed for the operands of the probes")
    batch_size: int = nuisance(32, "number of answers generated at once", at_least=1)
    batch_tokens: int = nuisance(8192, "number of tokens scored at once", at_least=1)

    __post_init__ = check_ranges

    @property
    def n_fewshot(self) -> int:
        """Worked examples before each GSM8K question."""
        return TEMPLATES[self.prompt].n_fewshot if self.num_fewshot is None else self.num_fewshot


def encode_raw(model: LanguageModel, text: str) -> list[int]:
    """Ids of a raw text, prepared as the model's training text was (facts rewritten where it has tokens for them)."""
    return model.encode(model.prepare(text))


def encode_prompt(model: LanguageModel, text: str) -> list[int]:
    """Ids of a raw text that begins what the model reads."""
    return opening_ids(model) + encode_raw(model, text)


def opening_ids(model: LanguageModel) -> list[int]:
    """The ids a model's tokenizer puts before every text: one for Llama and Gemma, none for GPT-2 and our own."""
    tokenizer = model.codec.tokenizer
    return [] if isinstance(tokenizer, Tokenizer) else tokenizer.encode("")


def n_new_tokens(model: LanguageModel, n_most: int) -> int:
    """The number of tokens that an answer may have: `n_most`, or fewer, so that the prompt has half of the positions."""
    return min(n_most, model.context_length // 2)
