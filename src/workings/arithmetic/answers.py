"""Text → the number it gives as its answer, exactly: the one definition that training, evaluation and readers share.

Precedence: the last `####` that a number follows, the last `\\boxed{…}`, the last "answer is / Answer:", else the last
number of the text. Whatever follows a stray new turn ("\\nUser:") or an end-of-text token was not said as an answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction

from workings.arithmetic.chain import LONGEST_NUMBER
from workings.arithmetic.facts import TOKEN, Fact

_SPEAKER = r"\n[ \t]*+[*#]*+[ \t]*+(?:User|Human|Question|Problem|Q)[ \t]*+\d*+[ \t]*+\**+:"
_TURN = re.compile(rf"{_SPEAKER}|<\|[a-z_]+\|>|</s>|<eos>|<end_of_turn>", re.I)
_BEGINNING = re.compile(r"\A(?:\s*+<(?:\|[a-z_]+\||s|bos)>)+", re.I)

# A number stands alone: not inside a word (m2, x3), an exponent (cm^2) or another number.
_ALONE = r"(?<![A-Za-z\d^])(?<!\^\{)(?<!\d\.)"
# A minus is a sign where it touches the number and nothing it could be subtracted from: `-5`, not `5-10`.
_SIGN = r"(?<![A-Za-z\d)\]}%.-])-"
_WHOLE = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d++)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d++)?|(?<!\.)\.\d++)"
_DATE = r"\d++(?:\.\d++){2,}+|\d++(?:/\d++){2,}+"
_MIXED = r"(?P<whole>\d++)[ ]{1,2}(?P<part>\d++/\d++)(?![\d/])"
_RATIO = rf"(?P<top>{_DECIMAL})/(?P<bottom>{_WHOLE}(?:\.\d++)?)(?![\d/])"
_POWER = r"(?:e(?P<power>[-+]?\d{1,3})(?!\w)|[ ]?[x*×][ ]?10\^\{?(?P<ten>-?\d{1,3})\}?(?!\d))"
_SCALE = r"(?:[ ](?P<scale>hundred|thousand|million|billion|trillion)\b)"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})?(?:\$[ ]?(?P<inner>-)?)?{_ALONE}"
    rf"(?:{_MIXED}|(?P<date>{_DATE})|{_RATIO}|(?P<plain>{_DECIMAL}){_POWER}?{_SCALE}?)",
    re.I,
)
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}

_PLAIN = str.maketrans({"−": "-", "–": "-", "‑": "-", "﹣": "-", "－": "-", "€": "$", "£": "$", "¥": "$"})
_SPELLINGS = (
    (re.compile(r"(?<=\d)(?=\\[dt]?frac\b|[¼-¾⅐-⅞])"), " "),
    (re.compile(r"\\[dt]?frac\{([^{}]{1,80})\}\{([^{}]{1,80})\}"), r"\1/\2"),
    (re.compile(r"\{,\}(?=\d)|,\\!(?=\d)|(?<=\d)(?:[\u202f\u2009\u00a0]|\\[,!])(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\times\b"), "×"),
    (re.compile(r"\\(?=[$%])"), ""),
)
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")

_MARKER = re.compile(r"(?<!#)####(?!#)")
# Instruct models write headings too: `#### Step 2: …` and `#### 2. Add them` give no answer.
_HEADING = re.compile(r"[*_\s]*+(?:(?:step|part|case|example|problem|question)\b|\d{1,2}[.)]\s+[^\W\d])", re.I)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*+\{")
_SAID = re.compile(r"\banswer\b[^.\n\d]{0,40}?(?:\bis\b|:|=)", re.I)
_DRESSING = " \t\r\n:*_="
_TO = re.compile(r" ?- ?")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")

_MOST_STATEMENTS = 16
_REACH = 2 * LONGEST_NUMBER
"""Limits for a degenerate text that repeats a marker for ever: so many markers from its end, so many characters after each."""


def answer_in(text: str) -> Fraction | None:
    """Read the number that a text gives as its answer, exactly; None where it gives none ("fifty-four" has no digit).

    Currency, thousands commas, bold, units and percent signs are dressing: `**$1,234.00**`, `54 km²` and `50%` are
    1234, 54 and 50. `1/2`, `2 1/2`, `\\frac{1}{2}`, `1.5e3` and `2 million` are one number; `1,2,3` is three.
    In `5-10` the hyphen joins, in `-5` it is a sign. A date, a time or a range gives its last number. A comma is never
    a decimal point. A fact's token is the number its equation ends with: `<MUL_6_9_54>` is 54; one whose result is wrong
    is plain text. A number of more than 4,000 digits is a runaway, and the text gives none.

    Example:
        >>> answer_in("6*9=54, so she pays **$54.00**."), answer_in("#### 1/2")
        (Fraction(54, 1), Fraction(1, 2))
    """
    said = _undressed(_TURN.split(_BEGINNING.sub("", text, count=1), maxsplit=1)[0])
    for statement in _statements(said):
        found = _first_number(statement)
        if found is not None:
            return _value(found)
    last = deque(_NUMBER.finditer(said), maxlen=1)
    return _value(last[0]) if last else None


def same_answer(a: Fraction | None, b: Fraction | None) -> bool:
    """True if two answers are equal as numbers. A missing answer equals nothing, not even another missing one."""
    return a is not None and a == b


def _undressed(text: str) -> str:
    """The same numbers in plain characters: one minus, one currency, `a/b` for fractions, commas for thin spaces."""
    text = TOKEN.sub(_spelled_out, text).translate(_PLAIN)
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return _VULGAR.sub(lambda m: str(Fraction(unicodedata.numeric(m.group())).limit_denominator(10)), text)


def _spelled_out(token: re.Match[str]) -> str:
    """The result of a fact's token, in digits that touch no word or number beside it."""
    fact = Fact.parse(token[0])
    if fact is None:
        return token[0]
    text = token.string
    before, after = text[max(0, token.start() - 1) : token.start()], text[token.end() : token.end() + 1]
    return " " * before.isalnum() + str(fact.result) + " " * after.isalnum()


def _statements(text: str) -> Iterator[str]:
    """The statements of an answer, the most binding first: after `####`, in a box, after "answer is"."""
    lines = (rest.lstrip().partition("\n")[0] for rest in _after_each(_MARKER, text))
    yield from (line for line in lines if not _HEADING.match(line))
    yield from map(_to_closing_brace, _after_each(_BOXED, text))
    yield from (_SENTENCE_END.split(rest.lstrip(_DRESSING), maxsplit=1)[0] for rest in _after_each(_SAID, text))


def _after_each(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """The text after each match, from the last match to the first."""
    last = deque(pattern.finditer(text), maxlen=_MOST_STATEMENTS)
    return (text[match.end() : match.end() + _REACH] for match in reversed(last))


def _to_closing_brace(text: str) -> str:
    depth = 1
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[: brace.start()]
    return text


def _first_number(statement: str) -> re.Match[str] | None:
    """The number a statement gives: after its last `=`; the far end of a range; a leading `- 5` is negative."""
    result = re.sub(r"^-\s+", "-", statement.rpartition("=")[2].strip())
    found = _NUMBER.search(result)
    while found is not None and (far := _TO.match(result, found.end())):
        beyond = _NUMBER.match(result, far.end())
        if beyond is None:
            break
        found = beyond
    return found


def _value(number: re.Match[str]) -> Fraction | None:
    if number.end() - number.start() > LONGEST_NUMBER:
        return None
    read: Callable[[str], Fraction] = lambda digits: Fraction(digits.replace(",", ""))
    part = number.group
    if part("part"):
        size = read(part("whole")) + _ratio(*part("part").split("/"))
    elif part("top"):
        size = _ratio(part("top").replace(",", ""), part("bottom").replace(",", ""))
    elif part("date"):
        size = read(part("date").replace("/", ".").rpartition(".")[2])
    else:
        power = int(part("power") or part("ten") or 0)
        size = read(part("plain")) * Fraction(10) ** power * _SCALES.get((part("scale") or "").lower(), 1)
    return -size if part("sign") or part("inner") else size


def _ratio(top: str, bottom: str) -> Fraction:
    """`4/0` is no number; its last one is 0, as in any other text."""
    below = Fraction(bottom)
    return Fraction(top) / below if below else below
