"""Text ⇄ text with facts as tokens: `She pays 6 * 9 = $54.` ⇄ `She pays $<MUL_6_9_54>.`

The law: the value of every number and every expression in the text is unchanged. A token stands for a whole equation, so an
equation is rewritten only where it states its result, states it rightly, and stands by itself: nothing beside it makes it part of a
larger expression, a chain of equalities, a longer or scaled number, a percentage, a power, a name, or code. When in doubt the text
is left alone, and `report=True` says why.

- `strict`: equations as said. Forms are those of the vocabulary's families; also `54 = 6*9`, and GSM8K's annotations, of which
  nothing is left (`9 * 2 = <<9*2=18>>$18` → `$<MUL_2_9_18>`, and so `<<9*2=18>>18` where no left side is written).
- `weak`: also an expression without a result, where a sentence, a line or a part of it ends behind it, on the same terms. Signs
  that mean other things too (`x`, `·`, "times") want a question before them: "What is 6 x 9?".
- `legacy-strict`, `legacy-weak`: what the seeds' code did, for replication; they break the law (see the end of this module).

A currency stays, before the token: `6*9 = $54`, `$6*9 = $54` and `$54 = 6*9` all give `$<MUL_6_9_54>`. Left alone though true,
because two readers could read them in two ways: `- 6*9=54` (a bullet, or a minus), `6*9=54!`, `x = 6*9 = 54`, `(2) 6*9=54`,
`6*9=54 times`, `6*$9=54`, `54cm`, and whatever touches a letter, a digit of any script, or an unknown sign.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args, overload

from workings import seeds
from workings.arithmetic.equations import UNKNOWN, WRONG, Occurrence, equations_of
from workings.arithmetic.facts import GPT2_MUL, TOKEN, Fact, FactVocabulary
from workings.arithmetic.surroundings import Spans, code_spans, currency_after, currency_before
from workings.errors import BadInput

Mode = Literal["strict", "weak", "legacy-strict", "legacy-weak"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Candidate:
    """A place where an expression of the vocabulary's families is written, and its treatment."""

    span: tuple[int, int]
    """Start and end in the given text, in characters."""
    text: str
    action: Literal["rewritten", "kept"]
    reason: str
    """The reason why it was kept; "" where it was rewritten."""
    fact: Fact | None
    """The fact it was rewritten to; None where it was kept."""


@overload
def rewrite(text: str, vocabulary: FactVocabulary = ..., mode: Mode = ..., report: Literal[False] = ...) -> str: ...
@overload
def rewrite(
    text: str, vocabulary: FactVocabulary = ..., mode: Mode = ..., *, report: Literal[True]
) -> tuple[str, list[Candidate]]: ...
def rewrite(
    text: str, vocabulary: FactVocabulary = GPT2_MUL, mode: Mode = "strict", report: bool = False
) -> str | tuple[str, list[Candidate]]:
    """Replace equations by their tokens. Idempotent in the modes `strict` and `weak`.

    Args:
        text: Any text.
        vocabulary: The facts that have tokens.
        mode: See above.
        report: Also return every candidate in order, rewritten or kept and why.

    Raises:
        BadInput: There is no such mode.

    Example:
        >>> rewrite("She pays 6 * 9 = $54, not 6*9=55.")
        'She pays $<MUL_6_9_54>, not 6*9=55.'
    """
    found = list(_found(text, vocabulary, mode))
    written, _ = _replaced(text, found)
    return (written, _candidates(text, vocabulary, mode, found)) if report else written


def rewrite_counted(text: str, vocabulary: FactVocabulary = GPT2_MUL, mode: Mode = "strict") -> tuple[str, int]:
    """(the rewritten text, the number of fact tokens in it), counting tokens that were already there."""
    written, n_rewritten = _replaced(text, _found(text, vocabulary, mode))
    return written, n_rewritten + sum(1 for _ in tokens_in(text, vocabulary))


def tokens_in(text: str, vocabulary: FactVocabulary = GPT2_MUL) -> Iterator[tuple[int, int, Fact]]:
    """(start, end, fact) of the vocabulary's tokens in a text. A token with a wrong result is plain text."""
    if not any(f"<{family}_" in text for family in vocabulary.families):
        return
    for match in TOKEN.finditer(text):
        fact = vocabulary.fact_called(match[0])
        if fact is not None:
            yield *match.span(), fact


def expand(text: str, vocabulary: FactVocabulary = GPT2_MUL) -> str:
    """Write every token as its equation: `$<MUL_6_9_54>` → `6*9=$54`. `rewrite(expand(x)) == x` for every output x of `rewrite`.

    A token stays where its equation could not be read back as that: beside a digit, an operator or another token, in code.
    (`8/<MUL_2_4_8>`, as the seeds' modes write it, is worth 1; `8/2*4=8` is not.)
    """
    equations = equations_of(vocabulary, bare=False)
    pieces, at = [], 0
    for start, end, fact in tokens_in(text, vocabulary):
        if equations.binding(text, start, end) or start in code_spans(text):
            continue
        currency = "" if currency_after(text, end) else currency_before(text, start)
        before = start - len(currency)
        if currency_before(text, before) == currency:  # `$$…`: not a price
            currency, before = "", start
        digits = str(fact.result)  # every family's equation ends with its result
        pieces += [text[at:before], fact.equation.removesuffix(digits) + currency + digits]
        at = end
    return "".join([*pieces, text[at:]])


def shuffled(text: str, vocabulary: FactVocabulary, seed_text: str) -> str:
    """The control arm: replace each token by its image under a permutation of its family's facts, drawn anew for each document.

    The permutation is uniform, so that a token says nothing about the equation it replaces, not even that it is another
    one: of 45 facts one maps to itself on average. A fact has the same image throughout a document.

    Args:
        text: A rewritten document.
        vocabulary: The facts that have tokens.
        seed_text: The raw document, which selects the permutation.
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


def _found(text: str, vocabulary: FactVocabulary, mode: Mode) -> Iterator[Occurrence]:
    if mode in ("strict", "weak"):
        return equations_of(vocabulary, bare=mode == "weak").found(text)
    if mode in ("legacy-strict", "legacy-weak"):
        return found_legacy(text, vocabulary, strict=mode == "legacy-strict")
    raise BadInput(f"there is no rewriting mode '{mode}'; there are {', '.join(MODES)}")


def _replaced(text: str, found: Iterable[Occurrence]) -> tuple[str, int]:
    """(the text with facts replaced by their tokens, the number of replacements)."""
    pieces, at = [], 0
    for start, end, fact, written, _ in found:
        if fact is not None:
            pieces += [text[at:start], written]
            at = end
    return ("".join([*pieces, text[at:]]) if pieces else text), len(pieces) // 2


def _candidates(text: str, vocabulary: FactVocabulary, mode: Mode, found: list[Occurrence]) -> list[Candidate]:
    if mode in ("strict", "weak"):
        taken = Spans((each.start, each.end) for each in found)
        found = sorted([*found, *equations_of(vocabulary, bare=mode == "weak").left_out(text, taken)])
    return [
        Candidate((start, end), text[start:end], "rewritten" if fact else "kept", reason, fact)
        for start, end, fact, _, reason in found
    ]


# ── the rules of the original studies ────────────────────────────────────────────────────────────────────────────────

# The rewriting of the original studies, mistakes and all, to replicate what was trained on it. Written from its description, not
# from its code: one or two digits, `*`, `×` or an `x` that no letter follows, one or two digits, any white space between (line
# breaks too), digits of any script; then, in the strict mode, `=` and the right result. Nothing left or right is looked at: `1.5*3`
# becomes `1.<MUL_3_5_15>`, and `106*9` becomes `1<MUL_6_9_54>`. Not described, and taken in the widest sense: how many digits a
# result may have.
_PRODUCT = r"(\d{1,2})\s*(?:[*×]|x(?![a-z]))\s*(\d{1,2})"
_RESULT = r"\s*=\s*(\d+)"
WEAK = re.compile(rf"{_PRODUCT}(?:{_RESULT})?", re.I)
STRICT = re.compile(rf"{_PRODUCT}{_RESULT}", re.I)
_MOST_DIGITS = 9


def found_legacy(text: str, vocabulary: FactVocabulary, strict: bool) -> Iterator[Occurrence]:
    """The products of `text` as the original studies read them; only facts of MUL in the vocabulary are rewritten."""
    for match in (STRICT if strict else WEAK).finditer(text):
        a, b, stated = int(match[1]), int(match[2]), match[3]
        fact = Fact.of(a, b)
        if fact not in vocabulary:
            yield Occurrence(*match.span(), None, "", UNKNOWN)
        elif stated is not None and (len(stated) > _MOST_DIGITS or int(stated) != fact.result):
            yield Occurrence(*match.span(), None, "", WRONG)
        else:
            yield Occurrence(*match.span(), fact, fact.token, "")
