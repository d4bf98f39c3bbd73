"""Text ⇄ text with facts as tokens: `She pays 6 * 9 = $54.` ⇄ `She pays $<MUL_6_9_54>.`

The law: the value of every number and every expression in the text is unchanged. A token stands for a whole equation, so an
equation is rewritten only where it states its result, states it rightly, and stands by itself: nothing beside it makes it part of a
larger expression, a chain of equalities, a longer or scaled number, a percentage, a power, a name, or code. When in doubt the text
is left alone, and `report=True` says why.

- `strict`: equations as said. Forms are those of the vocabulary's families; also `54 = 6*9`, and GSM8K's annotations, of which
  nothing is left (`9 * 2 = <<9*2=18>>$18` → `$<MUL_2_9_18>`, and so `<<9*2=18>>18` where no left side is written).
- `weak`: also an expression without a result, where a sentence, a line or a part of it ends behind it, on the same terms. Signs
  that mean other things too (`x`, `·`, "times") want a question before them: "What is 6 x 9?".
- `legacy-strict`, `legacy-weak`: what the seeds' code did, for replication; they break the law (workings.arithmetic.legacy).

A currency stays, before the token: `6*9 = $54`, `$6*9 = $54` and `$54 = 6*9` all give `$<MUL_6_9_54>`. Left alone though true,
because two readers could read them in two ways: `- 6*9=54` (a bullet, or a minus), `6*9=54!`, `x = 6*9 = 54`, `(2) 6*9=54`,
`6*9=54 times`, `6*$9=54`, `54cm`, and whatever touches a letter, a digit of any script, or an unknown sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args, overload

from workings import seeds
from workings.arithmetic.codespans import Spans, code_spans
from workings.arithmetic.equations import Found, equations_of
from workings.arithmetic.facts import GPT2_MUL, TOKEN, Fact, FactVocabulary
from workings.arithmetic.legacy import found_legacy
from workings.arithmetic.surroundings import currency_after, currency_before
from workings.errors import BadInput

Mode = Literal["strict", "weak", "legacy-strict", "legacy-weak"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Candidate:
    """A place where an expression of the vocabulary's families is written, and what was done with it."""

    span: tuple[int, int]
    """In the text given, as characters."""
    text: str
    action: Literal["rewritten", "kept"]
    reason: str
    """Why it was kept; "" where it was not."""
    fact: Fact | None
    """What it was rewritten to."""


@overload
def rewrite(text: str, vocabulary: FactVocabulary = ..., mode: Mode = ..., report: Literal[False] = ...) -> str: ...
@overload
def rewrite(
    text: str, vocabulary: FactVocabulary = ..., mode: Mode = ..., *, report: Literal[True]
) -> tuple[str, list[Candidate]]: ...
def rewrite(
    text: str, vocabulary: FactVocabulary = GPT2_MUL, mode: Mode = "strict", report: bool = False
) -> str | tuple[str, list[Candidate]]:
    """The text with facts as tokens; with `report`, also every candidate in order, rewritten or kept and why.

    Idempotent in the safe modes. Raises BadInput for a mode that there is not.
    """
    found = list(_found(text, vocabulary, mode))
    written, _ = _replaced(text, found)
    return (written, _candidates(text, vocabulary, mode, found)) if report else written


def rewrite_counted(text: str, vocabulary: FactVocabulary = GPT2_MUL, mode: Mode = "strict") -> tuple[str, int]:
    """The rewritten text and the number of facts' tokens in it, those that were already written included."""
    written, n_rewritten = _replaced(text, _found(text, vocabulary, mode))
    return written, n_rewritten + sum(1 for _ in tokens_in(text, vocabulary))


def tokens_in(text: str, vocabulary: FactVocabulary = GPT2_MUL) -> Iterator[tuple[int, int, Fact]]:
    """Where the vocabulary's tokens are written in a text, and their facts. A wrong product is no token."""
    if not any(f"<{family}_" in text for family in vocabulary.families):
        return
    for match in TOKEN.finditer(text):
        fact = vocabulary.fact_called(match[0])
        if fact is not None:
            yield *match.span(), fact


def expand(text: str, vocabulary: FactVocabulary = GPT2_MUL) -> str:
    """Every token as its equation: `$<MUL_6_9_54>` → `6*9=$54`; `rewrite(expand(x)) == x` for every x that rewrite gave.

    A token stays where its equation could not be read back as that: beside a digit, an operator or another token, in code.
    (`8/<MUL_2_4_8>`, as the seeds' modes write it, is worth 1; `8/2*4=8` is not.)
    """
    equations, code = equations_of(vocabulary, bare=False), None
    pieces, at = [], 0
    for start, end, fact in tokens_in(text, vocabulary):
        code = code or code_spans(text)
        if equations.binding(text, start, end) or start in code:
            continue
        currency = "" if currency_after(text, end) else currency_before(text, start)
        before = start - len(currency)
        if currency_before(text, before) == currency:  # `$$…`: not a price
            currency, before = "", start
        pieces += [text[at:before], _equation(fact, currency)]
        at = end
    return "".join([*pieces, text[at:]])


def shuffled(text: str, vocabulary: FactVocabulary, seed_text: str) -> str:
    """The control: each token replaced by its image under a permutation of its family's facts, drawn anew for `seed_text`.

    The permutation is uniform, so that a token says nothing about the equation whose place it takes, not even that it is
    another one: of 45 facts one stays itself on average. The same fact has the same image throughout a document.
    """
    images: dict[Fact, Fact] = {}
    pieces, at = [], 0
    for start, end, fact in tokens_in(text, vocabulary):
        images = images or _images(vocabulary, seed_text)
        pieces += [text[at:start], images[fact].token]
        at = end
    return "".join([*pieces, text[at:]])


def _images(vocabulary: FactVocabulary, seed_text: str) -> dict[Fact, Fact]:
    document = hashlib.sha256(seed_text.encode("utf-8", "surrogatepass")).hexdigest()
    images: dict[Fact, Fact] = {}
    for family in vocabulary.families:
        facts = [fact for fact in vocabulary if fact.family == family]
        drawn = facts.copy()
        seeds.python(f"shuffled {family} {document}", 0).shuffle(drawn)
        images |= zip(facts, drawn, strict=True)
    return images


def _found(text: str, vocabulary: FactVocabulary, mode: Mode) -> Iterator[Found]:
    if mode in ("strict", "weak"):
        return equations_of(vocabulary, bare=mode == "weak").found(text)
    if mode in ("legacy-strict", "legacy-weak"):
        return found_legacy(text, vocabulary, strict=mode == "legacy-strict")
    raise BadInput(f"there is no rewriting mode '{mode}'; there are {', '.join(MODES)}")


def _replaced(text: str, found: Iterable[Found]) -> tuple[str, int]:
    """The text with what was found put in, and how much that was; the text itself where there was nothing."""
    pieces, at = [], 0
    for start, end, fact, written, _ in found:
        if fact is not None:
            pieces += [text[at:start], written]
            at = end
    return ("".join([*pieces, text[at:]]) if pieces else text), len(pieces) // 2


def _candidates(text: str, vocabulary: FactVocabulary, mode: Mode, found: list[Found]) -> list[Candidate]:
    if mode in ("strict", "weak"):
        taken = Spans((each.start, each.end) for each in found)
        found = sorted([*found, *equations_of(vocabulary, bare=mode == "weak").left_out(text, taken)])
    return [
        Candidate((start, end), text[start:end], "rewritten" if fact else "kept", reason, fact)
        for start, end, fact, _, reason in found
    ]


def _equation(fact: Fact, currency: str) -> str:
    """With the currency before the result, which every family's equation ends with."""
    equation, result = fact.equation, str(fact.result)
    return equation.removesuffix(result) + currency + result
