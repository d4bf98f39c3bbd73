"""What stands left and right of an equation: whether it stands by itself, or is part of something larger.

Only what touches the equation or follows it after spaces is looked at, and across one line break only operators (an expression
may be broken there, a sentence or a list of results may not). Brackets, quotes and `$` are looked through: `(6*9=54)` stands by
itself, `2(6*9=54)` does not. A fact's token counts as the number that its equation begins and ends with, so that rewriting one
equation never changes what is decided about the next. Whatever is not known to be harmless binds.
"""

from __future__ import annotations

import re

from workings.arithmetic.facts import TOKEN

CURRENCIES = "$€£¥₹"
_OPENERS = "([\"'“‘«" + CURRENCIES
_CLOSERS = ")]\"'”’»$"
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
    | _each("thirds quarters fourths fifths sixths sevenths eighths tenths percent cent", "")
)
_LEFT_WORDS = {
    **_each("times plus minus over mod modulo root sqrt log ln sin cos tan x X", EXPRESSION),
    **_each("negative", SIGN),
    **_each(
        "hundred thousand million billion trillion dozen point half one two three four five six seven eight", NUMBER
    ),
    **_each("nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty", NUMBER),
    **_each("thirty forty fifty sixty seventy eighty ninety", NUMBER),
}
_DOING = frozenset(["multiply", "multiplied", "multiplying", "divide", "divided", "dividing", "raised"])
_LONGEST_WORD = max(map(len, [*_LEFT_WORDS, *_PARTS, *_DOING]))
_RIGHT_WORDS = (
    (SCALE, r"(?:hundred|thousand|million|billion|trillion|dozen|point|(?:k|K|M|bn)(?!&))\b"),
    (PERCENT, r"per ?cent\b"),
    (POWER, r"(?:squared|cubed|to the power)\b"),
    (EXPRESSION, r"(?:times|plus|minus|divided|multiplied|mod|modulo|out of|x|X)\b|[xX](?=[0-9$])"),
    (EXPRESSION, r"(?:over|less|choose|to)\s+[-(]?\\?[0-9$€£¥₹<]"),
    (CHAIN, r"(?:equals|is equal to)\b"),
    # A mixed number; but `and 6/3=2` is the next equation.
    (DECIMAL, r"and\s+(?:an?|one|two|three)\s+(?:" + "|".join(sorted(_PARTS, key=len, reverse=True)) + r")\b"),
    (DECIMAL, r"and\s+[0-9]{1,9}/[0-9]{1,9}(?![0-9]|\s*=|\s*equal|\s*is equal)"),
)
_RIGHT_WORD = re.compile("|".join(f"({pattern})" for _, pattern in _RIGHT_WORDS))
_AFTER_POINT = re.compile(r"\.+[0-9<]|\.\w")
_AFTER_COLON = re.compile(r":\s*[-(]?(?:\\?[$€£¥₹])?[0-9<]|:\w")
_NUMBER_AHEAD = re.compile(rf"(?:\\?[{CURRENCIES}]\s?)?(?:\d|<<\s*[0-9]|{TOKEN.pattern})|[{CURRENCIES}]\.\d|\.\d")
_OPENED_NUMBER = re.compile(r"\(\s*[-−]?(?:\\?[$€£¥₹])?[0-9<]")
_ENDS_ALONE = re.compile(r"(?:[)\]\"'”’»$]|\\[)\]])*+(?:[.,;:?…]|[^\S\n]*+(?:\n|\Z))")
_CUE = re.compile(
    r"\b(?:what(?:['’]s| is| are)|how much is|calculate|compute|evaluate|solve|simplify|(?:product|value|result) of)"
    r"\s?:?\s?[$(]?\Z",
    re.I,
)


def binding_on_left(text: str, at: int) -> str | None:
    """Why what ends at `at` may belong to what begins there; None where it cannot."""
    for _ in range(_DEEPEST):
        at = _before_openers(text, at)
        if at == 0:
            return None
        if not text[at - 1].isspace():
            return _touching_left(text, at)
        stop = _end_of_text_before(text, at)
        if stop == 0 or text.count("\n", stop, at) > 1:
            return None
        last = text[stop - 1]
        number = _number_ends(text, stop)
        if last in _OPERATORS and not number:
            return _OPERATORS[last]
        if "\n" in text[stop:at]:
            return None
        if last not in "([":
            return NUMBER if number else _on_left(text, stop)
        at = stop
    return EXPRESSION


def binding_on_right(text: str, at: int) -> str | None:
    """Why what begins at `at` may belong to what ends there; None where it cannot."""
    for _ in range(_DEEPEST):
        at = _after_closers(text, at)
        if at == len(text):
            return None
        if not text[at].isspace():
            return _touching_right(text, at)
        start = _start_of_text_after(text, at)
        if start == len(text) or text.count("\n", at, start) > 1:
            return None
        number = text[start].isnumeric() or _NUMBER_AHEAD.match(text, start)
        if text[start] in _OPERATORS and not number and text[start : start + 2] not in (r"\)", r"\]", r"\\"):
            return _OPERATORS[text[start]]
        if "\n" in text[at:start]:
            return None
        if text[start] not in ")]":
            return NUMBER if number else _on_right(text, start)
        at = start
    return EXPRESSION


def ends_alone(text: str, at: int) -> bool:
    """Whether the sentence, or the line, or a part of it set off by punctuation, ends at `at`."""
    return _ENDS_ALONE.match(text, at) is not None


def is_asked_for(text: str, at: int) -> bool:
    """Whether the words before `at` ask for a calculation."""
    return _CUE.search(text, max(0, at - 24), at) is not None


def currency_before(text: str, at: int) -> str:
    """The sign of a currency that touches `at` from the left, with the backslash that LaTeX wants; "" where none does."""
    if at == 0 or text[at - 1] not in CURRENCIES:
        return ""
    return text[at - 2 : at] if at > 1 and text[at - 2] == "\\" else text[at - 1]


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
        return EXPRESSION if _number_ends(text, at - 1) else None
    if char in ";—…":
        return None
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
        return IDENTIFIER if text[at + 1 : at + 2].isalnum() else None
    if char in "—|":
        return None
    if char == "_" or char.isalpha():
        return IDENTIFIER
    return _OPERATORS.get(char, NUMBER if char.isalnum() else IDENTIFIER)


def _on_left(text: str, stop: int) -> str | None:
    """What the last thing before some spaces, no operator and no number, does to what follows."""
    last = text[stop - 1]
    if last == ")" or last == "]":
        return EXPRESSION
    if last == ":":  # `Step 3: 6*9=54` has a label, `3 : 6*9=54` a ratio
        return EXPRESSION if text[stop - 2 : stop - 1].isspace() and _number_ends(text, stop - 2, True) else None
    if last in "'\"′″":
        return NUMBER if _number_ends(text, stop - 1) else None
    if not last.isalpha():
        return None
    word = _last_word(text, stop)
    if word == "of":
        return EXPRESSION if _is_a_part(text, _end_of_text_before(text, stop - 2)) else None
    if word == "by":
        return EXPRESSION if _last_word(text, _end_of_text_before(text, stop - 2)) in _DOING else None
    return _LEFT_WORDS.get(word)


def _on_right(text: str, start: int) -> str | None:
    if text[start] == "(":
        return EXPRESSION if _OPENED_NUMBER.match(text, start) else None
    if text[start] == ":":
        return EXPRESSION if _AFTER_COLON.match(text, start) else None
    found = _RIGHT_WORD.match(text, start)
    return _RIGHT_WORDS[found.lastindex - 1][0] if found and found.lastindex else None


def _is_a_part(text: str, stop: int) -> bool:
    """Whether `… of` takes a part of what follows: `50% of`, `2 of`, `a third of`."""
    if stop == 0:
        return False
    return _number_ends(text, stop) or text[stop - 1] in "%％" or _last_word(text, stop) in _PARTS


def _last_word(text: str, stop: int) -> str:
    """The letters that end at `stop`, in lower case unless it is one letter; cut where it is longer than any known."""
    start = stop
    while start > 0 and stop - start <= _LONGEST_WORD and text[start - 1].isalpha():
        start -= 1
    word = text[start:stop]
    return word if len(word) == 1 else word.lower()


def _number_ends(text: str, stop: int, after_spaces: bool = False) -> bool:
    """Whether a number, or a fact's token, ends at `stop`."""
    if after_spaces:
        stop = _end_of_text_before(text, stop)
    if stop == 0:
        return False
    if text[stop - 1] != ">":
        return text[stop - 1].isnumeric()
    opened = text.rfind("<", max(0, stop - _LONGEST_TOKEN), stop)
    return opened >= 0 and TOKEN.fullmatch(text, opened, stop) is not None


def _end_of_text_before(text: str, at: int) -> int:
    """Where the white space before `at` begins. Each stretch of it is walked once, in growing steps."""
    step = 64
    while True:
        start = max(0, at - step)
        left = len(text[start:at].rstrip())
        if left or start == 0:
            return start + left
        step *= 4


_BLANK = re.compile(r"\s*")


def _start_of_text_after(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at
