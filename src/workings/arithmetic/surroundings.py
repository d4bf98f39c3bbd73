"""Text around an equation → whether the equation stands by itself, is part of something larger, or is code.

Only what touches the equation or follows it after spaces is looked at, and across one line break only operators and words for
them (an expression may be broken there; a list of results is not an expression). Brackets, quotes and `$` are looked through:
`(6*9=54)` stands by itself, `2(6*9=54)` does not. A fact's token counts as the number that its equation begins and ends with, so
that rewriting one equation never changes the decision about the next. Anything unknown that touches an equation binds it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache

from workings.arithmetic.facts import TOKEN

# ── code ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

Span = tuple[int, int]

_FENCE = re.compile(r"^[ \t>]*+(`{3,}+|~{3,}+)([^\n]*+)$", re.M)
_TAGGED = re.compile(r"<(code|pre|tt|script|style|kbd|samp)\b(?:(?!</\1>).)*+", re.S | re.I)
_TICKS = re.compile(r"`++|\n[ \t]*+\n")
_INDENTED = re.compile(r"^(?: {4}|\t).*$", re.M)


class Spans:
    """Stretches of a text, merged where they overlap; `at in spans` asks whether a character lies in one."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        for start, end in sorted(spans):
            if self.ends and start <= self.ends[-1]:
                self.ends[-1] = max(end, self.ends[-1])
            else:
                self.starts.append(start)
                self.ends.append(end)

    def __contains__(self, at: int) -> bool:
        place = bisect_right(self.starts, at) - 1
        return place >= 0 and at < self.ends[place]


@lru_cache(maxsize=1)  # the equations of a text are decided one after the other; most texts hold none
def code_spans(text: str) -> Spans:
    """Find code as Markdown and HTML mark it: fenced, inline, tagged.

    A fence or tag that is never closed goes on to the end of the text, a backtick to the end of its paragraph. One pass,
    however long the text and however many fences and backticks are left open.
    """
    fenced = list(_fenced(text)) if "```" in text or "~~~" in text else []
    inline = _inline(text, fenced) if "`" in text else ()
    return Spans([*fenced, *inline, *(found.span() for found in _TAGGED.finditer(text))])


@lru_cache(maxsize=1)
def indented_lines(text: str) -> Spans:
    """Find lines that begin with a tab or four spaces: code in Markdown, though it may be a mere quotation."""
    return Spans(found.span() for found in _INDENTED.finditer(text))


def _fenced(text: str) -> Iterator[Span]:
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = None if fence[1][0] == "`" and "`" in fence[2] else fence
        elif fence[1].startswith(opened[1]) and not fence[2].strip():
            yield opened.start(), fence.end()
            opened = None
    if opened is not None:
        yield opened.start(), len(text)


def _inline(text: str, fenced: list[Span]) -> Iterator[Span]:
    """Inline code: a run of backticks closes at the next run of the same length in its paragraph."""
    inside = Spans(fenced)
    runs: list[Span] = []
    for found in _TICKS.finditer(text):
        if found.start() in inside:
            continue
        if found[0][0] == "`":
            runs.append(found.span())
        else:
            yield from _paired(runs, found.start())
            runs = []
    yield from _paired(runs, len(text))


def _paired(runs: list[Span], paragraph_end: int) -> Iterator[Span]:
    later: dict[int, int] = {}
    partner: list[int | None] = [None] * len(runs)
    for place in range(len(runs) - 1, -1, -1):
        length = runs[place][1] - runs[place][0]
        partner[place] = later.get(length)
        later[length] = place
    place = 0
    while place < len(runs):
        closing = partner[place]
        if closing is None:
            yield runs[place][0], paragraph_end
            return
        yield runs[place][0], runs[closing][1]
        place = closing + 1


# ── what binds an equation to its neighbours ────────────────────────────────────────────────────────────────────────────

CURRENCIES = "$€£¥₹"
_OPENERS = "([\"'“‘«（「『" + CURRENCIES
_CLOSERS = ")]\"'”’»）」』" + CURRENCIES
_STOPS = "，。；：、"
_DEEPEST = 8
_LONGEST_TOKEN = 64

EXPRESSION, CHAIN, SIGN, POWER, COMPARISON = "expression", "chain", "sign", "power", "comparison"
DECIMAL, THOUSANDS, NUMBER, IDENTIFIER = "decimal", "thousands", "number beside", "identifier"
PERCENT, SCALE, CODE = "percentage", "scale", "code"

_OPERATORS = {
    **dict.fromkeys("+*×∗⋅·/÷√∑∏∫±∓&{}\\", EXPRESSION),
    **dict.fromkeys("-−–", SIGN),
    **dict.fromkeys("<>≤≥≠≈≡~∼≅", COMPARISON),
    **dict.fromkeys("%‰％", PERCENT),
    **dict.fromkeys("^²³°!", POWER),
    "=": CHAIN,
}


def _each(words: str, meaning: str) -> dict[str, str]:
    return dict.fromkeys(words.split(), meaning)


_PARTS = frozenset(
    _each("half third quarter fourth fifth sixth seventh eighth tenth", "")
    | _each("thirds quarters fourths fifths sixths sevenths eighths tenths percent cent out", "")
)
_LEFT_WORDS = {
    **_each("times plus minus over mod modulo root sqrt log ln sin cos tan x y z n", EXPRESSION),
    **_each("negative", SIGN),
    **_each("percent cent", PERCENT),
    **_each("squared cubed", POWER),
    **_each("hundred thousand million billion trillion dozen point half", NUMBER),
    **_each("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen", NUMBER),
    **_each("sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety", NUMBER),
}
_DOING = frozenset(["multiply", "multiplied", "multiplying", "divide", "divided", "dividing", "raised"])
_LONGEST_WORD = max(map(len, [*_LEFT_WORDS, *_PARTS, *_DOING]))
_ENDS = r"(?![^\W\d])"  # `2 times3` is a product too, `2 timesheets` is not
_AMOUNT = rf"[-−(]?\\?(?:[\d{CURRENCIES}<½¼¾]|\.\d)"
_RIGHT_WORDS = (
    (SCALE, rf"(?:(?i:hundred|thousand|million|billion|trillion|dozen|point)|(?:k|K|M|bn)(?!&)){_ENDS}"),
    (SCALE, rf"(?i:hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|seventh|eighth|tenth)s?){_ENDS}"),
    (PERCENT, rf"(?i:per ?cent){_ENDS}"),
    (POWER, rf"(?i:squared|cubed|to the power){_ENDS}"),
    (EXPRESSION, rf"(?:(?i:times|plus|minus|divided|multiplied|mod|modulo|out of|x)|[nyz]){_ENDS}"),
    (EXPRESSION, rf"(?i:over|less|choose|of|to|negative)\s+{_AMOUNT}"),
    # A mixed number; but `and 6/3=2` is the next equation.
    (DECIMAL, rf"and\s+(?:an?|one|two|three)\s+(?:{'|'.join(sorted(_PARTS))}){_ENDS}"),
    (DECIMAL, r"and\s+[0-9]{1,9}/[0-9]{1,9}(?![0-9]|\s*=|\s*equal|\s*is equal)"),
)
_RIGHT_WORD = re.compile("|".join(f"({pattern})" for _, pattern in _RIGHT_WORDS))
_AFTER_POINT = re.compile(r"\.+[\d<]|\.\w")
_AFTER_COLON = re.compile(rf":\s*{_AMOUNT}|:\w")
_NUMBER_AHEAD = re.compile(
    rf"(?:\\?[{CURRENCIES}]\s?)*+(?:\d|<<\s*[0-9][^<>\n]{{0,48}}>>|{TOKEN.pattern})|[{CURRENCIES}]\.\d|\.\d"
)
_OPENED_NUMBER = re.compile(rf"\(\s*{_AMOUNT}")
_ENDS_ALONE = re.compile(rf"(?:[{re.escape(_CLOSERS)}]|\\[)\]])*+(?:[.,;:?…，。；：、]|[^\S\n]*+(?:\n|\Z))")
_BLANK = re.compile(r"\s*")
_CUE = re.compile(
    r"\b(?:what(?:['’]s| is| are)|how much is|calculate|compute|evaluate|solve|simplify|(?:product|value|result) of)"
    r"\s?:?\s?[$(]?\Z",
    re.I,
)


def binding_on_left(text: str, at: int) -> str | None:
    """The reason why the text before `at` may bind an equation that begins there; None where it cannot."""
    for _ in range(_DEEPEST):
        at = _before_openers(text, at)
        if at == 0:
            return None
        if not text[at - 1].isspace():
            return _touching_left(text, at)
        stop = text_ends_before(text, at)
        if stop == 0 or text.count("\n", stop, at) > 1:
            return None
        last = text[stop - 1]
        number = _number_ends(text, stop)
        if last in _OPERATORS and not number:
            return _OPERATORS[last]
        if last not in "([" + CURRENCIES:
            if "\n" in text[stop:at]:
                return _word_on_left(text, stop)
            return NUMBER if number else _on_left(text, stop)
        at = stop
    return EXPRESSION


def binding_on_right(text: str, at: int) -> str | None:
    """The reason why the text after `at` may bind an equation that ends there; None where it cannot."""
    for _ in range(_DEEPEST):
        at = _after_closers(text, at)
        if at == len(text):
            return None
        if not text[at].isspace():
            return _touching_right(text, at)
        start = text_starts_after(text, at)
        if start == len(text) or text.count("\n", at, start) > 1:
            return None
        number = _NUMBER_AHEAD.match(text, start) or (text[start].isnumeric() and text[start] not in _OPERATORS)
        if text[start] in _OPERATORS and not number and text[start : start + 2] not in (r"\)", r"\]", r"\\"):
            return _OPERATORS[text[start]]
        if text[start] not in ")]" and (number or text[start] not in CURRENCIES):
            if "\n" in text[at:start]:
                return _word_on_right(text, start) if text[start].islower() else None
            return NUMBER if number else _on_right(text, start)
        at = start + 1
    return EXPRESSION


def text_beside(text: str, start: int, end: int) -> tuple[int, int]:
    """The end of the text left of `start:end` and the start of the text right of it, past brackets, quotes, `$` and spaces."""
    for _ in range(_DEEPEST):
        before = start, end
        start = text_ends_before(text, _before_openers(text, start))
        end = text_starts_after(text, _after_closers(text, end))
        if (start, end) == before:
            break
    return start, end


def ends_alone(text: str, at: int) -> bool:
    """True if a sentence, a line, or a part of one set off by punctuation ends at `at`."""
    return _ENDS_ALONE.match(text, at) is not None


def is_requested(text: str, at: int) -> bool:
    """True if the words before `at` ask for a calculation."""
    return _CUE.search(text, max(0, at - 24), at) is not None


def currency_before(text: str, at: int) -> str:
    """The currency sign that ends at `at`, with the backslash that LaTeX wants; "" where there is none."""
    if at == 0 or text[at - 1] not in CURRENCIES:
        return ""
    return text[at - 2 : at] if at > 1 and text[at - 2] == "\\" else text[at - 1]


def currency_after(text: str, at: int) -> bool:
    """True if a currency sign begins at `at`: the end of a formula in LaTeX, or `54€`."""
    return text[at : at + 1] in CURRENCIES and at < len(text)


def _before_openers(text: str, at: int) -> int:
    for _ in range(_DEEPEST):
        if at == 0 or text[at - 1] not in _OPENERS:
            break
        at -= 2 if at > 1 and text[at - 2] == "\\" and text[at - 1] in "([$" else 1
    return at


def _after_closers(text: str, at: int) -> int:
    for _ in range(_DEEPEST):
        if text[at : at + 2] in (r"\)", r"\]"):
            at += 2
        elif at < len(text) and text[at] in _CLOSERS:
            at += 1
        else:
            break
    return at


def _touching_left(text: str, at: int) -> str | None:
    char = text[at - 1]
    if char == ":":
        return EXPRESSION if at == 1 or text[at - 2].isspace() or _number_ends(text, at - 1) else None
    if char in ";—…" + _STOPS:
        return NUMBER if char != ";" and _number_ends(text, at - 1) else None
    if char in ".,":
        return DECIMAL if char == "." else THOUSANDS
    if char == "_" or char.isalpha():
        return IDENTIFIER
    return _OPERATORS.get(char, NUMBER if char.isalnum() else IDENTIFIER)


def _touching_right(text: str, at: int) -> str | None:
    char = text[at]
    if char == ".":
        return DECIMAL if _AFTER_POINT.match(text, at) else None
    if char == ",":
        return THOUSANDS if text[at + 1 : at + 2].isnumeric() else None
    if char == ":":
        return EXPRESSION if _AFTER_COLON.match(text, at) else None
    if char in ";?…":
        return None if text[at + 1 : at + 2].isspace() or text[at + 1 : at + 2] in _CLOSERS else IDENTIFIER
    if char in "—|" + _STOPS:
        return NUMBER if _NUMBER_AHEAD.match(text, at + 1) or text[at + 1 : at + 2].isnumeric() else None
    if char == "_" or char.isalpha():
        return IDENTIFIER
    return _OPERATORS.get(char, NUMBER if char.isalnum() else IDENTIFIER)


def _on_left(text: str, stop: int) -> str | None:
    """The reason why a bracket, colon, quote or word, separated by spaces, binds the text after it; else None."""
    last = text[stop - 1]
    if last == ")" or last == "]":
        return EXPRESSION
    if last == ":":  # `Step 3: 6*9=54` has a label, `3 : 6*9=54` may be a ratio
        return EXPRESSION if stop == 1 or text[stop - 2].isspace() else None
    if last in "'\"’”»′″":
        return NUMBER if _number_ends(text, stop - 1) else None
    return _word_on_left(text, stop)


def _word_on_left(text: str, stop: int) -> str | None:
    if not text[stop - 1].isalpha():
        return None
    word = _last_word(text, stop)
    if text[stop - len(word) - 1 : stop - len(word)] == "\\":
        return EXPRESSION  # a command of LaTeX
    if word == "of":
        return EXPRESSION if _is_a_part(text, text_ends_before(text, stop - 2)) else None
    if word == "by":
        return EXPRESSION if _last_word(text, text_ends_before(text, stop - 2)) in _DOING else None
    return _LEFT_WORDS.get(word)


def _on_right(text: str, start: int) -> str | None:
    if text[start] == "(":
        return EXPRESSION if _OPENED_NUMBER.match(text, start) else None
    if text[start] == ":":
        return EXPRESSION if _AFTER_COLON.match(text, start) else None
    return _word_on_right(text, start)


def _word_on_right(text: str, start: int) -> str | None:
    found = _RIGHT_WORD.match(text, start)
    return _RIGHT_WORDS[found.lastindex - 1][0] if found and found.lastindex else None


def _is_a_part(text: str, stop: int) -> bool:
    """True if `… of` takes a part of what follows: `50% of`, `2 of`, `a third of`."""
    if stop == 0:
        return False
    return _number_ends(text, stop) or text[stop - 1] in "%％" or _last_word(text, stop) in _PARTS


def _last_word(text: str, stop: int) -> str:
    """The letters that end at `stop`, in lower case; cut where they are more than any known word has."""
    start = stop
    while start > 0 and stop - start <= _LONGEST_WORD and text[start - 1].isalpha():
        start -= 1
    return text[start:stop].lower()


def _number_ends(text: str, stop: int) -> bool:
    """True if a number, or a fact's token, ends at `stop`."""
    if stop == 0:
        return False
    if text[stop - 1] != ">":
        return text[stop - 1].isnumeric()
    opened = text.rfind("<", max(0, stop - _LONGEST_TOKEN), stop)
    return opened >= 0 and TOKEN.fullmatch(text, opened, stop) is not None


def text_ends_before(text: str, at: int) -> int:
    """The start of the white space before `at`. Each stretch is walked once, in growing steps, so that the cost stays linear."""
    if at == 0 or not text[at - 1].isspace():
        return at
    step = 64
    while True:
        start = max(0, at - step)
        left = len(text[start:at].rstrip())
        if left or start == 0:
            return start + left
        step *= 4


def text_starts_after(text: str, at: int) -> int:
    """The end of the white space after `at`."""
    found = _BLANK.match(text, at)
    return found.end() if found else at
