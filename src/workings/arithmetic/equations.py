"""Text → the equations in it that are facts of a vocabulary, each with whether it may be rewritten, or why not.

The grammar of a vocabulary is one compiled regular expression for all forms of its families. It begins with a digit, so that text
without digits is skipped at the speed of a scan; all forms share the first number, and the alternatives begin with their
operators. It is linear: no repetition gives back what it took. `Equations` is the one place that decides whether a match may be
rewritten. The decision depends on the text around an equation and not on its spelling, so that an equation that was rewritten and
expanded again is rewritten again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from workings.arithmetic.facts import Fact, FactVocabulary, Family, Form, family_called
from workings.arithmetic.surroundings import (
    CHAIN,
    CODE,
    CURRENCIES,
    DECIMAL,
    THOUSANDS,
    Spans,
    binding_on_left,
    binding_on_right,
    code_spans,
    currency_after,
    currency_before,
    ends_alone,
    indented_lines,
    is_requested,
    text_beside,
)

# ── the grammar ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SPACES = r"[ \t\xa0]*+"
CURRENCY = rf"(\\?\$|[{CURRENCIES}])?"
_MAY_TOUCH = r"\s(\[\"'“‘«:;—…<" + CURRENCIES


@dataclass(frozen=True, slots=True)
class FormGroups:
    """The group numbers of a match that hold the parts of one form; 0 for a part the form does not have."""

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
    """Writes one regular expression and counts its groups. Group 1 is the first number of every match."""

    def __init__(self, vocabulary: FactVocabulary) -> None:
        self.families = [family_called(name) for name in vocabulary.families]
        self.forms = [(family, form) for family in self.families for form in family.forms]
        words = dict.fromkeys(word for family in self.families for word in family.equals)
        ends = {word: r"\b" if word[-1].isascii() and word[-1].isalpha() else "" for word in words}
        self.equals = f"(?:{'|'.join(re.escape(word) + end for word, end in ends.items())})"
        self.operand_digits = dict.fromkeys(vocabulary.families, 1)
        self.result_digits = self.operand_digits.copy()
        for fact in vocabulary:
            longest = max(len(str(number)) for number in fact.operands)
            self.operand_digits[fact.family] = max(self.operand_digits[fact.family], longest)
            self.result_digits[fact.family] = max(self.result_digits[fact.family], len(str(fact.result)))
        self.digits = max([*self.operand_digits.values(), *self.result_digits.values()], default=1)
        self.n_groups = 1
        self.forms_by_group: dict[int, FormGroups] = {}

    def whole(self, tail: bool | None) -> str:
        """The whole expression. A stated result must follow (`tail` True), may follow (False), or, inside `<<…>>`, always does and
        nothing is reversed (None)."""
        # The groups are numbered in the order in which they are written here.
        plain = [self._plain(n_digits, tail) for n_digits in sorted(set(self.operand_digits.values()))]
        turned = [] if tail is None else [self._turned(family, form) for family, form in self.forms]
        named = [self._forward(family, form, tail) for family, form in self.forms if form.before]
        turned = [f"{SPACES}{self.equals}{SPACES}(?:{'|'.join(turned)})"] if turned else []
        before = _MAY_TOUCH + re.escape("".join(form.before[-1] for _, form in self.forms if form.before))
        first = rf"([0-9](?<![^{before}][0-9])[0-9]{{0,{self.digits - 1}}}+)(?![0-9])"
        return f"{first}(?:{'|'.join([*plain, *turned, *named])})"

    def _plain(self, n_digits: int, tail: bool | None) -> str:
        """The forms that begin with a number of so many digits; a longer one fails before anything else is tried."""
        forms = [
            self._forward(family, form, tail)
            for family, form in self.forms
            if self.operand_digits[family.name] == n_digits and not form.before
        ]
        return f"(?<![0-9]{{{n_digits + 1}}}){SPACES}(?:{'|'.join(forms) or '(?!)'})"

    def _group(self, pattern: str) -> tuple[str, int]:
        self.n_groups += 1
        return pattern, self.n_groups

    def _operand(self, family: Family) -> tuple[str, int]:
        return self._group(rf"([0-9]{{1,{self.operand_digits[family.name]}}}+)(?![0-9])")

    def _marker(self, form_groups: FormGroups) -> str:
        """An empty group at the end of an alternative: the last group that matched names the alternative."""
        pattern, self.forms_by_group[self.n_groups] = self._group("()")[0], form_groups
        return pattern

    def _further(self, family: Family, form: Form) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """The pattern after the first operand: operator, second operand, closing; the groups of numbers and of currencies."""
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
            result_groups = (0, group)
        else:
            result_groups = tuple(range(self.n_groups + 1, self.n_groups + 6))
            result = self._result(family) + ("" if tail else "?+")
        form_groups = FormGroups(form, family.name, False, (1, *operands), currencies, *result_groups)
        return self._named(form) + further + result + self._marker(form_groups)

    def _result(self, family: Family) -> str:
        """`= 54`, or GSM8K's `= $<<6*9=54>>54`; five groups."""
        number = rf"([0-9]{{1,{self.result_digits[family.name]}}}+)(?![0-9])"
        self.n_groups += 5
        annotation = rf"<<([^<>\n]{{1,48}}+)>>[ ]?+{CURRENCY}(?:{number})?+(?![0-9])"
        return f"(?:{SPACES}{self.equals}{SPACES}{CURRENCY}(?:{number}|{annotation}))"

    def _turned(self, family: Family, form: Form) -> str:
        """The rest of `54 = 6*9`."""
        currency, currency_group = self._group(CURRENCY)
        number, group = self._operand(family)
        further, operands, currencies = self._further(family, form)
        form_groups = FormGroups(form, family.name, True, (group, *operands), (currency_group, *currencies), result=1)
        return f"{currency}{re.escape(form.before)}{number}{SPACES}{further}{self._marker(form_groups)}"

    def _named(self, form: Form) -> str:
        """That the first number follows `gcd(`; lookbehind wants one length at a time."""
        if not form.before:
            return ""
        lengths = range(1, self.digits + 1)
        behind = "|".join(f"(?<={re.escape(form.before)}[0-9]{{{length}}})" for length in lengths)
        return f"(?:{behind}){SPACES}"


@dataclass(frozen=True)
class Grammar:
    """The spellings of one vocabulary's facts in text."""

    equation: re.Pattern[str]
    """Equations with a stated result; in a grammar for bare expressions, also those without."""
    forms_by_group: dict[int, FormGroups]
    annotation: re.Pattern[str]
    """The inside of `<<…>>`."""
    annotation_forms: dict[int, FormGroups]
    anything: re.Pattern[str]
    """Expressions over numbers of any size, with points and commas in them: for the report on what was left alone."""
    operator_before: re.Pattern[str]
    """An operator of one of the forms, or a word for equality, at the end of a text; `operator_after`: at its beginning."""
    operator_after: re.Pattern[str]
    equals: tuple[str, ...]
    """Words for equality. Text in which none of these occurs states no result."""

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a grammar is compiled where it is used: send the vocabulary")


@lru_cache(maxsize=64)
def grammar_of(vocabulary: FactVocabulary, bare: bool) -> Grammar:
    """The grammar of a vocabulary's families, compiled once a process; `bare`: an expression may lack its result."""
    whole, inside = _Writer(vocabulary), _Writer(vocabulary)
    forms = [form for _, form in whole.forms if not form.before]
    equals = list(dict.fromkeys(words for family in whole.families for words in family.equals))
    operators = "|".join([form.between or form.after for form in forms] + [re.escape(words) for words in equals])
    infix, postfix = (
        [form.between for form in forms if form.between],
        [form.after for form in forms if not form.between],
    )
    further = [rf"(?:{'|'.join(infix)}){SPACES}{CURRENCY}([\d][\d.,]{{0,40}}+)"] if infix else []
    further += [f"(?:{'|'.join(postfix)})"] if postfix else []
    return Grammar(
        equation=re.compile(whole.whole(tail=not bare)),
        forms_by_group=whole.forms_by_group,
        annotation=re.compile(inside.whole(tail=None)),
        annotation_forms=inside.forms_by_group,
        anything=re.compile(rf"(\d(?<![\d.,]\d)[\d.,]{{0,40}}+){SPACES}(?:{'|'.join(further) or '(?!)'})"),
        operator_before=re.compile(rf"(?<![A-Za-z])(?:{operators})\Z"),
        operator_after=re.compile(rf"(?:{operators})(?![A-Za-z])"),
        equals=tuple(equals),
    )


# ── the decision ────────────────────────────────────────────────────────────────────────────────────────────────────────

WRONG, UNKNOWN, ZEROS = "wrong result", "not in the vocabulary", "leading zero"
NO_RESULT, NOT_ALONE = "no result", "no result, not alone"
UNEVEN, NOT_REQUESTED = "no result, uneven spaces", "no result, not asked for"
MONEY, ANNOTATION, SCRIPT = "currency", "annotation", "digits of another script"

_ANNOTATED = re.compile(rf">>[ ]?+{CURRENCY}([0-9]++)")
_LONGEST_OPERATOR = 24


class Occurrence(NamedTuple):
    """An equation at `start:end`: its fact and the token text that replaces it, or no fact and the reason why not."""

    start: int
    end: int
    fact: Fact | None
    written: str
    reason: str


class Equations:
    """Finds the facts of one vocabulary in text; with `bare`, also expressions that stand alone without a result."""

    def __init__(self, vocabulary: FactVocabulary, bare: bool) -> None:
        self.grammar, self.bare = grammar_of(vocabulary, bare), bare
        self.known: dict[tuple[str, ...], tuple[Fact, str]] = {}
        for fact in vocabulary:
            for operands in (
                (fact.operands, fact.operands[::-1]) if family_called(fact.family).commutative else (fact.operands,)
            ):
                self.known[fact.family, *map(str, operands)] = fact, str(fact.result)
        self.operands = {names[1:] for names in self.known}

    def found(self, text: str) -> Iterator[Occurrence]:
        """Every match of the grammar, in order; next to free for text that states no result."""
        if not self.bare and not any(words in text for words in self.grammar.equals):
            return
        for match in self.grammar.equation.finditer(text):
            yield self._read(text, match)

    def left_out(self, text: str, taken: Spans) -> Iterator[Occurrence]:
        """Expressions outside `taken`, with numbers of any size, each with the reason why it is not an equation."""
        for match in self.grammar.anything.finditer(text):
            if match.start() not in taken and match.end() - 1 not in taken:
                end = match.end() - len(match[0]) + len(match[0].rstrip(".,"))
                yield Occurrence(match.start(), end, None, "", self._why_left_out(text, match, end))

    def _read(self, text: str, match: re.Match[str]) -> Occurrence:
        assert match.lastindex is not None
        form_groups = self.grammar.forms_by_group[match.lastindex]
        known = self.known.get((form_groups.family, *(match[group] for group in form_groups.operands)))
        if known is None:
            zeros = any(match[group] != str(int(match[group])) for group in form_groups.operands)
            return Occurrence(*match.span(), None, "", ZEROS if zeros else UNKNOWN)
        fact, result = known
        reason, currency = self._stated(match, form_groups, fact, result)
        start, end = match.span()
        start -= 0 if form_groups.reversed else len(form_groups.form.before)
        if not reason and text.startswith("<<", start - 2) and start > 1:
            after = _ANNOTATED.match(text, end)  # an annotation that has no written left side
            if after is None or after[2] != result:
                reason = ANNOTATION
            else:
                start, end, currency = start - 2, after.end(), after[1] or ""
        if not reason:
            start, reason = _with_currency(text, match, form_groups, start, end, currency)
        reason = reason or self.binding(text, start, end)
        # Group 0 is never None: a reversed form has no annotation, and always states its result.
        if not reason and match[form_groups.annotation] is None and match[form_groups.result] is None:
            reason = _why_not_bare(text, match, form_groups, start, end)
        if not reason and start in code_spans(text):
            reason = CODE
        if reason:
            return Occurrence(*match.span(), None, "", reason)
        return Occurrence(start, end, fact, currency + fact.token, "")

    def _stated(self, match: re.Match[str], form_groups: FormGroups, fact: Fact, result: str) -> tuple[str, str]:
        """(the reason against the stated result, or ""; the currency of the result)."""
        if form_groups.reversed:
            return ("" if match[1] == result else WRONG), ""
        if match[form_groups.annotation] is None:
            stated = match[form_groups.result]
            return ("" if stated is None or stated == result else WRONG), match[form_groups.result_currency] or ""
        if self._annotated(match[form_groups.annotation]) != fact or match[form_groups.annotated_result] != result:
            return ANNOTATION, ""
        before, after = match[form_groups.result_currency] or "", match[form_groups.annotated_currency] or ""
        return (MONEY if before and after else ""), before or after

    def _annotated(self, inside: str) -> Fact | None:
        """The fact between `<<` and `>>`, if nothing else stands there and its result is right."""
        match = self.grammar.annotation.fullmatch(inside.strip())
        if match is None or match.lastindex is None:
            return None
        form_groups = self.grammar.annotation_forms[match.lastindex]
        known = self.known.get((form_groups.family, *(match[group] for group in form_groups.operands)))
        return known[0] if known and match[form_groups.result] == known[1] else None

    def _why_left_out(self, text: str, match: re.Match[str], end: int) -> str:
        numbers = [number.rstrip(".,") for number in match.groups() if number and number[0].isdigit()]
        if match.start() in code_spans(text):
            return CODE
        if not all(number.isascii() for number in numbers):
            return SCRIPT
        for separator, reason in ((".", DECIMAL), (",", THOUSANDS)):
            if any(separator in number for number in numbers):
                return reason
        if any(len(number) > 1 and number[0] == "0" for number in numbers):
            return ZEROS
        if tuple(numbers) not in self.operands:
            return UNKNOWN
        return self.binding(text, match.start(), end) or NO_RESULT

    def binding(self, text: str, start: int, end: int) -> str:
        """The reason why the text at `start:end` may be part of something larger; "" where it stands by itself."""
        reason = binding_on_left(text, start) or binding_on_right(text, end)
        if reason:
            return reason
        stop, begin = text_beside(text, start, end)
        before = self.grammar.operator_before.search(text, max(0, stop - _LONGEST_OPERATOR), stop)
        if before and text.count("\n", stop, start) < 2:
            return CHAIN
        return CHAIN if self.grammar.operator_after.match(text, begin) and text.count("\n", end, begin) < 2 else ""


def _with_currency(
    text: str, match: re.Match[str], form_groups: FormGroups, start: int, end: int, currency: str
) -> tuple[int, str]:
    """(start, reason against it or ""): where the equation starts once the currency before its first operand is absorbed."""
    leading = currency_before(text, start)
    if not currency:
        stray = any(match[group] for group in form_groups.currencies) and not (form_groups.reversed and leading)
        return start, MONEY if stray else ""
    if currency_after(text, end):
        return start, MONEY
    if leading == currency and text[start] != "<":
        start -= len(currency)
        return start, MONEY if currency_before(text, start) == currency else ""
    return start, MONEY if leading and text[start] == "<" else ""


def _why_not_bare(text: str, match: re.Match[str], form_groups: FormGroups, start: int, end: int) -> str:
    if form_groups.form.bare == "never":
        return NO_RESULT
    if form_groups.form.bare == "cued" and not is_requested(text, start):
        return NOT_REQUESTED
    if len(form_groups.operands) > 1 and not form_groups.form.before:
        before, after = text[match.end(1)], text[match.start(form_groups.operands[1]) - 1]
        if before.isspace() != after.isspace():
            return UNEVEN
    if not ends_alone(text, end):
        return NOT_ALONE
    return CODE if start in indented_lines(text) else ""


@lru_cache(maxsize=64)
def equations_of(vocabulary: FactVocabulary, bare: bool) -> Equations:
    """The finder of a vocabulary, compiled once in each process."""
    return Equations(vocabulary, bare)
