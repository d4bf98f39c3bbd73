"""A row of any known data set → its question, chain and answer, by the names of its fields.

    GSM8K, GSM8k-Aug, Coconut    question, answer; the chain in steps, cot or full_solution, or before the answer's ####
    SVAMP, ASDiv                 Body and Question, Answer
    AQuA                         question, options, correct: the answer is what the option of the correct letter says, and
                                 the options are no part of the question; the chain in rationale
    GSM-Hard, PAL                input, target
    MetaMath                     query, response: the chain, and after "The answer is" the answer
    MultiArith                   sQuestion, lSolutions; or question, final_ans
    MATH                         problem, answer; the chain in solution

The equations of SVAMP, ASDiv and MultiArith are not chains: they have no results of steps. Fields of other names are named by hand,
as in `question=Body+Question answer=gold chain=rationale`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from workings.errors import BadInput, suggestion

ANSWER_MARK = "####"
Parts = tuple[str, str, str]
"""Question, text of the chain, answer."""

FIELDS_HELP = "fields of the problems, where they have other names: question=Body+Question answer=gold chain=rationale"
_PARTS = ("question", "answer", "chain", "options")
_SAYS_THE_ANSWER = re.compile(r"\bthe (?:final )?answer is\b:?", re.I)


@dataclass(frozen=True)
class Fields:
    """The names of the fields of a data set.

    Attributes:
        question: Fields that are joined by a space.
        answer: The field of the answer; with `options`, that of a letter.
        chain: Fields that may hold the chain, of which the first that is not empty counts.
        options: The field of a multiple choice.
        tells_all: Whether the answer is told as a whole solution, of which the number is the end.
    """

    question: tuple[str, ...]
    answer: str
    chain: tuple[str, ...] = ()
    options: str | None = None
    tells_all: bool = False

    @property
    def needed(self) -> tuple[str, ...]:
        return (*self.question, self.answer, *([self.options] if self.options else []))


_GSM8K = Fields(("question",), "answer", ("steps", "cot", "full_solution"))
_KNOWN = (
    _GSM8K,
    Fields(("Body", "Question"), "Answer"),
    Fields(("question",), "correct", ("rationale",), options="options"),
    Fields(("input",), "target"),
    Fields(("query",), "response", tells_all=True),
    Fields(("sQuestion",), "lSolutions"),
    Fields(("question",), "final_ans"),
    Fields(("problem",), "answer", ("solution",)),
)


def fields_named(words: Iterable[str]) -> Fields | None:
    """The fields that a user named, each as `part=field`; None where none was. What is not named is called as in GSM8K.

    Raises:
        BadInput: A word names no part of a problem, or no field.

    Example:
        >>> fields_named(["question=Body+Question", "answer=gold"]).question
        ('Body', 'Question')
    """
    fields, words = _GSM8K, list(words)
    for word in words:
        part, equals, name = (one.strip() for one in word.partition("="))
        if not (equals and name):
            raise BadInput(f"the field '{word}' names nothing; write question=FIELD, answer=FIELD or chain=FIELD")
        if part not in _PARTS:
            raise BadInput(f"a problem has no '{part}'{suggestion(part, _PARTS)}; name its {', '.join(_PARTS)}")
        several = part in ("question", "chain")
        fields = replace(fields, **{part: tuple(name.split("+")) if several else name})
    return fields if words else None


def parts_of_row(row: Any, fields: Fields | None = None) -> Parts:
    """Question, text of the chain and answer of a row.

    Args:
        row: A mapping, or it is no row.
        fields: Its fields; without them, those of the first data set that has all of its fields here.

    Raises:
        ValueError: The row is not a problem; the message says why.

    Example:
        >>> parts_of_row({"Body": "Ann has 6 boxes of 9.", "Question": "How many?", "Answer": 54.0})
        ('Ann has 6 boxes of 9. How many?', '', '54.0')
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"the row is a {type(row).__name__}, not an object with 'question' and 'answer'")
    fields = fields or next((known for known in _KNOWN if all(name in row for name in known.needed)), _GSM8K)
    question = " ".join(text for name in fields.question if (text := _text(row, name).strip()))
    chain = next((_chain_text(row[name], name) for name in fields.chain if row.get(name)), "")
    if fields.options:
        return question, chain, _option(row, fields.options, _text(row, fields.answer))
    told, answer = _parted(_text(row, fields.answer), fields.tells_all)
    return question, chain or told, answer


def _parted(text: str, tells_all: bool) -> tuple[str, str]:
    """A field of the answer, as the chain that it tells and the answer."""
    told, hashes, after = text.rpartition(ANSWER_MARK)
    if hashes:
        return told, after.strip().partition("\n")[0]  # MetaMath says it again in the next line
    if "<<" in text:
        raise ValueError(f"the answer has steps and no {ANSWER_MARK} before its number")
    if not tells_all:
        return "", text
    says = list(_SAYS_THE_ANSWER.finditer(text))
    if not says:
        raise ValueError(f"the solution ends in no answer: neither {ANSWER_MARK} nor 'The answer is'")
    return text[: says[-1].start()], text[says[-1].end() :].strip().removesuffix(".")


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        has = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"no field {name!r}; the row has {has} (--fields names others)")
    value = row[name]
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], int | float):
        value = value[0]  # MultiArith lists the one solution
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"the field {name!r} is {type(value).__name__}, not text")
    return str(value)


def _chain_text(value: Any, name: str) -> str:
    """The text of a chain. A list of steps in which one has brackets or is an equation may leave them out: `6*9=54`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
        raise ValueError(f"the field {name!r} is neither text nor a list of texts")
    if any(re.search(r"[^\W\d_]{2}", step.partition("<<")[0]) for step in value):
        return "\n".join(value)  # sentences
    return " ".join(step if "<<" in step else f"<<{step.strip()}>>" for step in value)


def _option(row: Mapping[str, Any], name: str, letter: str) -> str:
    """What the option of a letter says: `B` of `["A)21", "B)23"]` is 23."""
    options, letter = row[name], letter.strip().strip("()").upper()
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"the field {name!r} is not a list of texts")
    said = [re.match(rf"\s*\(?{re.escape(letter)}\s*[).:]\s*(.*)", option, re.S) for option in options]
    found = [match[1] for match in said if match]
    if not letter or len(found) != 1:
        raise ValueError(f"{len(found)} of {len(options)} options have the letter {letter!r}")
    return found[0]
