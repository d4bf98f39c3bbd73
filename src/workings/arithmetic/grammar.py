"""Families of facts → one compiled regular expression for all their forms, and what each match of it says.

The expression begins with a digit, so that text without digits is passed over at the speed of a scan; every form shares the first
number, and the alternatives begin with their signs. It is linear: no repetition gives back what it took. A match says what is
written; whether it may be rewritten is decided in workings.arithmetic.rewrite.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from workings.arithmetic.facts import FactVocabulary, family_called
from workings.arithmetic.families import Family, Form
from workings.arithmetic.surroundings import CURRENCIES

SPACES = r"[ \t\xa0]*+"
CURRENCY = rf"(\\?\$|[{CURRENCIES}])?"
_MAY_TOUCH = r"\s(\[\"'“‘«:;—…<" + CURRENCIES


@dataclass(frozen=True, slots=True)
class Shape:
    """Which groups of a match hold the parts of one form; 0 where it has no such part."""

    form: Form
    family: str
    reversed: bool
    operands: tuple[int, ...]
    currencies: tuple[int, ...]
    """Before operands other than the first number of the match."""
    result_currency: int = 0
    result: int = 0
    annotation: int = 0
    annotated_currency: int = 0
    annotated_result: int = 0


class _Writer:
    """Writes one expression and keeps count of its groups. Group 1 is the first number of every match."""

    def __init__(self, vocabulary: FactVocabulary) -> None:
        self.families = [family_called(name) for name in vocabulary.families]
        self.operand_digits = dict.fromkeys(vocabulary.families, 1)
        self.result_digits = self.operand_digits.copy()
        for fact in vocabulary:
            longest = max(len(str(number)) for number in fact.operands)
            self.operand_digits[fact.family] = max(self.operand_digits[fact.family], longest)
            self.result_digits[fact.family] = max(self.result_digits[fact.family], len(str(fact.result)))
        self.digits = max([*self.operand_digits.values(), *self.result_digits.values()], default=1)
        self.n_groups = 1
        self.shapes: dict[int, Shape] = {}

    def whole(self, tail: bool | None) -> str:
        """`tail`: whether a stated result follows: it must (True), it may (False), never and nothing is reversed (None)."""
        # The groups are numbered in the order in which they are written here.
        plain = [self._plain(n_digits, tail) for n_digits in sorted(set(self.operand_digits.values()))]
        turned = [] if tail is None else [self._turned(family, form) for family, form in self._forms()]
        named = [self._forward(family, form, tail) for family, form in self._forms() if form.before]
        turned = [f"{SPACES}{self._equals()}{SPACES}(?:{'|'.join(turned)})"] if turned else []
        first = rf"([0-9](?<![^{_MAY_TOUCH}{self._last_of_names()}][0-9])[0-9]{{0,{self.digits - 1}}}+)(?![0-9])"
        return f"{first}(?:{'|'.join([*plain, *turned, *named])})"

    def _plain(self, n_digits: int, tail: bool | None) -> str:
        """The forms that begin with a number of so many digits; a longer one fails before anything else is tried."""
        forms = [
            self._forward(family, form, tail)
            for family, form in self._forms()
            if self.operand_digits[family.name] == n_digits and not form.before
        ]
        return f"(?<![0-9]{{{n_digits + 1}}}){SPACES}(?:{'|'.join(forms) or '(?!)'})"

    def _forms(self) -> Iterator[tuple[Family, Form]]:
        return ((family, form) for family in self.families for form in family.forms)

    def _last_of_names(self) -> str:
        return re.escape("".join(form.before[-1] for _, form in self._forms() if form.before))

    def _group(self, pattern: str) -> tuple[str, int]:
        self.n_groups += 1
        return pattern, self.n_groups

    def _operand(self, family: Family) -> tuple[str, int]:
        return self._group(rf"([0-9]{{1,{self.operand_digits[family.name]}}}+)(?![0-9])")

    def _marker(self, shape: Shape) -> str:
        """An empty group at the end of an alternative: the last that matched, it says which alternative it was."""
        pattern, self.shapes[self.n_groups] = self._group("()")[0], shape
        return pattern

    def _equals(self) -> str:
        words = dict.fromkeys(word for family in self.families for word in family.equals)
        ends = {word: r"\b" if word[-1].isascii() and word[-1].isalpha() else "" for word in words}
        return "(?:" + "|".join(re.escape(word) + end for word, end in ends.items()) + ")"

    def _further(self, family: Family, form: Form) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """What follows the first operand: sign, second operand, closing; the groups of numbers and of currencies."""
        if family.arity == 1:
            return f"(?:{form.after})", (), ()
        currency, currency_group = self._group(CURRENCY)
        number, group = self._operand(family)
        after = f"{SPACES}(?:{form.after})" if form.after else ""
        return f"(?:{form.between}){SPACES}{currency}{number}{after}", (group,), (currency_group,)

    def _forward(self, family: Family, form: Form, tail: bool | None) -> str:
        further, operands, currencies = self._further(family, form)
        if tail is None:
            result, group = self._group(rf"{SPACES}=[ ]?+([0-9]{{1,{self.result_digits[family.name]}}}+)")
            shape = Shape(form, family.name, False, (1, *operands), currencies, result=group)
            return self._named(form) + further + result + self._marker(shape)
        first = self.n_groups + 1
        result = self._result(family) + ("" if tail else "?+")
        shape = Shape(form, family.name, False, (1, *operands), currencies, *range(first, first + 5))
        return self._named(form) + further + result + self._marker(shape)

    def _result(self, family: Family) -> str:
        """`= 54`, or GSM8K's `= $<<6*9=54>>54`; five groups."""
        number = rf"([0-9]{{1,{self.result_digits[family.name]}}}+)(?![0-9])"
        self.n_groups += 5
        annotation = rf"<<([^<>\n]{{1,48}}+)>>[ ]?+{CURRENCY}(?:{number})?+(?![0-9])"
        return f"(?:{SPACES}{self._equals()}{SPACES}{CURRENCY}(?:{number}|{annotation}))"

    def _turned(self, family: Family, form: Form) -> str:
        """The rest of `54 = 6*9`."""
        currency, currency_group = self._group(CURRENCY)
        number, group = self._operand(family)
        further, operands, currencies = self._further(family, form)
        shape = Shape(form, family.name, True, (group, *operands), (currency_group, *currencies), result=1)
        return f"{currency}{re.escape(form.before)}{number}{SPACES}{further}{self._marker(shape)}"

    def _named(self, form: Form) -> str:
        """That the first number follows `gcd(`; lookbehind wants one length at a time."""
        if not form.before:
            return ""
        lengths = range(1, self.digits + 1)
        behind = "|".join(f"(?<={re.escape(form.before)}[0-9]{{{length}}})" for length in lengths)
        return f"(?:{behind}){SPACES}"


@dataclass(frozen=True)
class Grammar:
    """What one vocabulary's facts look like in text."""

    equation: re.Pattern[str]
    """Equations with a stated result; in a grammar for bare expressions, also those without."""
    shapes: dict[int, Shape]
    annotation: re.Pattern[str]
    """What stands between `<<` and `>>`."""
    annotation_shapes: dict[int, Shape]
    anything: re.Pattern[str]
    """Expressions over numbers of any size, with points and commas in them: for the report on what was left alone."""
    sign_before: re.Pattern[str]
    """A sign of one of the forms, or a word for equality, at the end of a text; `sign_after`: at its beginning."""
    sign_after: re.Pattern[str]
    marks: tuple[str, ...]
    """Text in which none of these occurs states no result."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a grammar is compiled where it is used: send the vocabulary")


@lru_cache(maxsize=64)
def grammar_of(vocabulary: FactVocabulary, bare: bool) -> Grammar:
    """The grammar of a vocabulary's families, compiled once a process; `bare`: an expression may lack its result."""
    whole, inside = _Writer(vocabulary), _Writer(vocabulary)
    signs = _signs(whole.families)
    return Grammar(
        equation=re.compile(whole.whole(tail=not bare)),
        shapes=whole.shapes,
        annotation=re.compile(inside.whole(tail=None)),
        annotation_shapes=inside.shapes,
        anything=_anything(whole.families),
        sign_before=re.compile(rf"(?<![A-Za-z])(?:{signs})\Z"),
        sign_after=re.compile(rf"(?:{signs})(?![A-Za-z])"),
        marks=tuple(dict.fromkeys(mark for family in whole.families for mark in family.equals)),
    )


def _signs(families: Sequence[Family]) -> str:
    forms = [form for family in families for form in family.forms if not form.before]
    return "|".join([form.between or form.after for form in forms] + [re.escape(w) for f in families for w in f.equals])


def _anything(families: Sequence[Family]) -> re.Pattern[str]:
    number = r"[\d][\d.,]{0,40}+"
    forms = [form for family in families for form in family.forms if not form.before]
    infix = "|".join(form.between for form in forms if form.between)
    postfix = "|".join(form.after for form in forms if not form.between)
    further = [rf"(?:{infix}){SPACES}{CURRENCY}({number})"] * bool(infix) + [rf"(?:{postfix})"] * bool(postfix)
    return re.compile(rf"(\d(?<![\d.,]\d)[\d.,]{{0,40}}+){SPACES}(?:{'|'.join(further) or '(?!)'})")
