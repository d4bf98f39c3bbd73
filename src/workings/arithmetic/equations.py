"""Text → the equations in it that are facts of a vocabulary, each with whether it may be rewritten, or why not.

This is the one place that decides. What is decided about one equation depends on the text around it and not on its spelling, so
that an equation, once rewritten and expanded again, is rewritten again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

from workings.arithmetic.codespans import Spans, code_spans, indented_lines
from workings.arithmetic.facts import Fact, FactVocabulary, family_called
from workings.arithmetic.grammar import CURRENCY, Shape, grammar_of
from workings.arithmetic.surroundings import (
    CHAIN,
    CODE,
    DECIMAL,
    THOUSANDS,
    binding_on_left,
    binding_on_right,
    currency_after,
    currency_before,
    ends_alone,
    is_asked_for,
    text_beside,
)

WRONG, UNKNOWN, ZEROS = "wrong result", "not in the vocabulary", "leading zero"
NO_RESULT, NOT_ALONE, UNEVEN, UNASKED = (
    "no result",
    "no result, not alone",
    "no result, uneven spaces",
    "no result, not asked for",
)
MONEY, ANNOTATION, SCRIPT = "currency", "annotation", "digits of another script"

_ANNOTATED = re.compile(rf">>[ ]?+{CURRENCY}([0-9]++)")
_LONGEST_SIGN = 24


class Found(NamedTuple):
    """What stands at `start:end`: a fact and how it is written as a token, or nothing and a reason."""

    start: int
    end: int
    fact: Fact | None
    written: str
    reason: str


class _Code:
    """What of a text is code, worked out when it is first asked for: most texts hold no equation at all."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def marked(self) -> Spans:
        return code_spans(self.text)

    @cached_property
    def indented(self) -> Spans:
        return indented_lines(self.text)


class Equations:
    """Finds the facts of one vocabulary; `bare`: also expressions that stand alone without a result."""

    def __init__(self, vocabulary: FactVocabulary, bare: bool) -> None:
        self.grammar, self.bare = grammar_of(vocabulary, bare), bare
        self.known = {
            (fact.family, *map(str, operands)): (fact, str(fact.result))
            for fact in vocabulary
            for operands in _orders(fact)
        }
        self.operands = {names[1:] for names in self.known}

    def found(self, text: str) -> Iterator[Found]:
        """Every equation the grammar matches, in order; costs next to nothing where no result is stated."""
        if not self.bare and not any(mark in text for mark in self.grammar.marks):
            return
        code = _Code(text)
        for match in self.grammar.equation.finditer(text):
            yield self._read(text, match, code)

    def left_out(self, text: str, taken: Spans) -> Iterator[Found]:
        """Expressions beside those found, with numbers of any size, and why they are no equations."""
        code = _Code(text)
        for match in self.grammar.anything.finditer(text):
            if match.start() not in taken and match.end() - 1 not in taken:
                end = match.end() - len(match[0]) + len(match[0].rstrip(".,"))
                yield Found(match.start(), end, None, "", self._why_left_out(text, match, end, code))

    def _read(self, text: str, match: re.Match[str], code: _Code) -> Found:
        shape = self._shape(match)
        known = self.known.get((shape.family, *(match[group] for group in shape.operands)))
        if known is None:
            zeros = any(match[group] != str(int(match[group])) for group in shape.operands)
            return Found(*match.span(), None, "", ZEROS if zeros else UNKNOWN)
        fact, result = known
        reason, currency = self._stated(match, shape, fact, result)
        start, end = match.span()
        start -= 0 if shape.reversed else len(shape.form.before)
        if not reason and text.startswith("<<", start - 2) and start > 1:
            start, end, reason, currency = _within_annotation(text, start, end, result)
        if not reason:
            start, reason = _with_currency(text, match, shape, start, end, currency)
        reason = reason or self._why_not(text, match, shape, start, end, code)
        if reason:
            return Found(*match.span(), None, "", reason)
        return Found(start, end, fact, currency + fact.token, "")

    def _shape(self, match: re.Match[str]) -> Shape:
        assert match.lastindex is not None
        return self.grammar.shapes[match.lastindex]

    def _stated(self, match: re.Match[str], shape: Shape, fact: Fact, result: str) -> tuple[str, str]:
        """Why the stated result will not do, or ""; the currency it is in."""
        if shape.reversed:
            return ("" if match[1] == result else WRONG), ""
        if match[shape.annotation] is None:
            stated = match[shape.result]
            return ("" if stated is None or stated == result else WRONG), match[shape.result_currency] or ""
        if self._annotated(match[shape.annotation]) != fact or match[shape.annotated_result] != result:
            return ANNOTATION, ""
        before, after = match[shape.result_currency] or "", match[shape.annotated_currency] or ""
        return (MONEY if before and after else ""), before or after

    def _annotated(self, inside: str) -> Fact | None:
        """The fact that stands between `<<` and `>>`, alone and right."""
        match = self.grammar.annotation.fullmatch(inside.strip())
        if match is None or match.lastindex is None:
            return None
        shape = self.grammar.annotation_shapes[match.lastindex]
        known = self.known.get((shape.family, *(match[group] for group in shape.operands)))
        return known[0] if known and match[shape.result] == known[1] else None

    def _why_not(self, text: str, match: re.Match[str], shape: Shape, start: int, end: int, code: _Code) -> str:
        is_bare = not shape.reversed and match[shape.result] is None and match[shape.annotation] is None
        return (
            self.binding(text, start, end)
            or (is_bare and _why_not_bare(text, match, shape, start, end, code))
            or (CODE if start in code.marked else "")
        )

    def _why_left_out(self, text: str, match: re.Match[str], end: int, code: _Code) -> str:
        numbers = [number.rstrip(".,") for number in match.groups() if number and number[0].isdigit()]
        if match.start() in code.marked:
            return CODE
        if not all(number.isascii() for number in numbers):
            return SCRIPT
        for mark, reason in ((".", DECIMAL), (",", THOUSANDS)):
            if any(mark in number for number in numbers):
                return reason
        if any(len(number) > 1 and number[0] == "0" for number in numbers):
            return ZEROS
        if tuple(numbers) not in self.operands:
            return UNKNOWN
        return self.binding(text, match.start(), end) or NO_RESULT

    def binding(self, text: str, start: int, end: int) -> str:
        """Why what stands at `start:end` may be part of something larger; "" where it stands by itself."""
        reason = binding_on_left(text, start) or binding_on_right(text, end)
        if reason:
            return reason
        stop, begin = text_beside(text, start, end)
        sign = self.grammar.sign_before.search(text, max(0, stop - _LONGEST_SIGN), stop)
        if sign and text.count("\n", stop, start) < 2:
            return CHAIN
        return CHAIN if self.grammar.sign_after.match(text, begin) and text.count("\n", end, begin) < 2 else ""


def _orders(fact: Fact) -> set[tuple[int, ...]]:
    return {fact.operands, fact.operands[::-1]} if family_called(fact.family).commutative else {fact.operands}


def _within_annotation(text: str, start: int, end: int, result: str) -> tuple[int, int, str, str]:
    """An annotation without a written left side: its whole extent, why it will not do, its currency."""
    after = _ANNOTATED.match(text, end)
    if after is None or after[2] != result:
        return start, end, ANNOTATION, ""
    return start - 2, after.end(), "", after[1] or ""


def _with_currency(
    text: str, match: re.Match[str], shape: Shape, start: int, end: int, currency: str
) -> tuple[int, str]:
    """Where the equation begins if the currency before its first operand goes into the one before its result."""
    leading = currency_before(text, start)
    if not currency:
        stray = any(match[group] for group in shape.currencies) and not (shape.reversed and leading)
        return start, MONEY if stray else ""
    if currency_after(text, end):
        return start, MONEY
    if leading == currency and text[start] != "<":
        start -= len(currency)
        return start, MONEY if currency_before(text, start) == currency else ""
    return start, MONEY if leading and text[start] == "<" else ""


def _why_not_bare(text: str, match: re.Match[str], shape: Shape, start: int, end: int, code: _Code) -> str:
    if shape.form.bare == "never":
        return NO_RESULT
    if shape.form.bare == "cued" and not is_asked_for(text, start):
        return UNASKED
    if len(shape.operands) > 1 and not shape.form.before:
        before, after = text[match.end(1)], text[match.start(shape.operands[1]) - 1]
        if before.isspace() != after.isspace():
            return UNEVEN
    if not ends_alone(text, end):
        return NOT_ALONE
    return CODE if start in code.indented else ""


@lru_cache(maxsize=64)
def equations_of(vocabulary: FactVocabulary, bare: bool) -> Equations:
    """Compiled once a process for each vocabulary."""
    return Equations(vocabulary, bare)
