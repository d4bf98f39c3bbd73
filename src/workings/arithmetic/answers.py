"""Text → the number it gives as its answer, exactly: the one definition that training, evaluation and readers share.

The rules, in their order; the first that finds a number decides:

1. What was said: the answer of this turn. A prompt that is repeated before it and every turn after it are left out, in any
   chat format; a thought (`<think>…</think>`) counts only where nothing follows it; of `<answer>…</answer>` the inside counts.
2. The last `####` that a number follows, on its line.
3. The last `\\boxed{…}`.
4. The last "answer is / Answer: / 答案是 / respuesta es" or "… is the answer", in its sentence.
5. The last number of the text.

The number of a statement (2 to 4) is its first, unless that is an operand: `9 * 6 = 54` and `12 + 5, so 17` give what they
come to, and a statement that is nothing but an expression is worked out. A range, a time, a ratio or a date gives its last
number, in a statement as anywhere else: `5-10` is 10, `10:30` is 30, `2:3` is 3. A number after "not" is none: `not 45 but 54`.
Where a text ends in the middle of a repetition (`The answer is 18. The answer is 1`), the whole number counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

from workings.arithmetic.chain import LONGEST_NUMBER, RAISED, SUPERSCRIPTS, Unreadable, evaluate
from workings.arithmetic.facts import TOKEN, Fact

# ── 1. what was said ─────────────────────────────────────────────────────────────────────────────────────────────────

_SPECIAL = (
    r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?(?:s|bos|eos|pad|unk|eot|eod|eoa|end_of_turn|start_of_turn|extra_id_\d+)>"
    r"|\[/?INST\]|\[(?:PAD|EOS|BOS|SEP|CLS)\]|\[\|[A-Za-z]{1,20}\|\]"
)
_ASKED = r"User|Human|System|Instruction|Question|Problem|Q|问题|題目|题目|Pregunta|Frage|Вопрос"
_HEAD = r"[ \t]*+[*#<\[|]*+[ \t]*+"
_COLON = r"[ \t]*+\d*+[ \t]*+[*>\]|]*+[:：]"
_TURN = re.compile(
    rf"{_SPECIAL}|\n{_HEAD}(?:{_ASKED}){_COLON}|\n#{{2,}}[ \t]*+(?:Input|Output){_COLON}"
    rf"|(?<=\S)\s*\n{_HEAD}(?:Assistant|AI|Bot|Response){_COLON}",
    re.I,
)
_BEGINNING = re.compile(rf"(?:\s*+(?:{_SPECIAL}))*+", re.I)
_ROLE = re.compile(r"\s*+(?:assistant|model)\b\s*+(?:<\|[a-z_]+\|>|:)?+|(?:Assistant|AI|Bot)[ \t]*+[:：]", re.I)
# A text that begins with the prompt: its answer begins after the first mark of an assistant's turn.
_PROMPT = re.compile(
    rf"\s*+(?:user|system|human)\b[ \t]*+(?:<\|[a-z_]+\|>|\n)|{_HEAD}(?:User|Human|System|Instruction){_COLON}", re.I
)
_PROMPT_MARKS = re.compile(r"\[INST\]|<\|(?:user|system|prompter)\|>|<｜User｜>|\[\|Human\|\]", re.I)
_ASSISTANT = re.compile(
    r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|start\|>)\s*+(?:assistant|model)\b"
    r"|<\|assistant\|>|<｜Assistant｜>|\[/INST\]|\[\|(?:AI|Assistant)\|\]"
    rf"|\n{_HEAD}(?:Assistant|AI|Bot|Response){_COLON}",
    re.I,
)
_THOUGHT_ENDS = re.compile(
    r"</(?:think|thinking|thoughts?|reasoning|seed:think)>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>final<\|message\|>",
    re.I,
)
_THOUGHT_BEGINS = re.compile(
    r"<(?:think|thinking|thoughts?|reasoning|seed:think)>|\[THINK\]|◁think▷|<\|begin_of_thought\|>"
    r"|<\|channel\|>analysis<\|message\|>",
    re.I,
)
_TAGGED = re.compile(r"<answer>", re.I)

# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# A number stands alone: not inside a word (m2, x3), an exponent (cm^2) or another number.
_ALONE = r"(?<![A-Za-z\d^])(?<!\^\{)(?<!\^-)(?<!\d\.)"
# A minus is a sign where it touches the number and nothing it could be subtracted from: `-5`, not `5-10`.
_SIGN = r"(?<![A-Za-z\d)\]}%.-])-"
_WHOLE = r"(?:\d{1,3}(?:,\d{3})++(?!\d)|\d{1,2}(?:,\d\d(?=,))++,\d{3}(?!\d)|\d++)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d++)?|(?<!\.)\.\d++)"
_DATE = r"\d++(?:\.\d++){2,}+|\d++(?:/\d++){2,}+"
_MIXED = r"(?P<whole>\d++)(?:[ ]{1,2}|(?P<joint>-))(?P<part>\d++/\d++)(?![\d/])"
_RATIO = rf"(?P<top>{_DECIMAL})/(?P<bottom>{_WHOLE}(?:\.\d++)?)(?![\d/])"
_EXPONENT = r"\^[{(]?(?P<%s>-?\d{1,3})[)}]?(?!\d)"
_POWER = rf"(?:e(?P<power>[-+]?\d{{1,3}})(?!\w)|[ ]?[x*×][ ]?10{_EXPONENT % 'ten'}|{_EXPONENT % 'raised'})"
_SCALE = r"(?:[ ](?P<scale>hundred|thousand|lakh|million|crore|billion|trillion)\b)"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})?(?:\$[ ]?(?P<inner>-)?)?{_ALONE}"
    rf"(?:{_MIXED}|(?P<date>{_DATE})|{_RATIO}|(?P<plain>{_DECIMAL}){_POWER}?{_SCALE}?)",
    re.I,
)
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9,
    "trillion": 10**12,
}  # fmt: skip

# ── dressing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_PLAIN = str.maketrans(
    dict.fromkeys("−–‑‒﹣－", "-")
    | dict.fromkeys("€£¥₹₽₩₺", "$")
    | dict.fromkeys("·⋅∙∗✕✖", "×")
    | dict.fromkeys("⁄∕／", "/")
    | {"，": ",", "：": ":", "．": ".", "％": "%", "＝": "=", "＋": "+", "（": " (", "）": ") ", "’": "'", "٬": ","}
)
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])|[¼-¾⅐-⅞]")
_LATEX = (
    (re.compile(r"(?<=\d)(?:\\[,;:! ])?\s*(?=\\[dtc]?frac(?![a-z]))"), " "),
    (re.compile(r"\\[dtc]?frac\s*(?:\{(-?[\d.,]{1,80})\}|(\d))\s*(?:\{([\d.,]{1,80})\}|(\d))"), r"\1\2/\3\4"),
    (re.compile(r"\\[dtc]?frac\s*\{([^{}]{1,80})\}\s*\{([^{}]{1,80})\}"), r"(\1)/(\2)"),
    (re.compile(r",\\!(?=\d)|(?<=\d)(?:\\[,;:! ]|~|\{\\,\})(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\s?\\(?:times|cdot|ast)(?![a-zA-Z])"), "×"),
    (re.compile(r"\\(?:left|right|[,;:! ])"), ""),
    (re.compile(r"\\(?=[$%])"), ""),
)
_BRACED_COMMA = re.compile(r"\{,\}(?=\d)")
_THIN_SPACE = re.compile("(?<=\\d)[\u202f\u2009\u00a0](?=\\d{3}(?!\\d))")
_GROUPED = re.compile(
    r"(?<![\w.,'])(?<!\d[ ])[1-9]\d{0,2}(?:(?:'\d{3})+|(?:_\d{3})+|(?:[ ]\d{3}){2,3}|(?:\.\d{3}){2,}(?!\.\d))(?![\w'/]|,\d|[ ]\d)"
)
_SEPARATORS = str.maketrans(dict.fromkeys("'_ .", ","))
_CURRENCY = re.compile(
    r"\b(?=[A-Z])(?:USD|EUR|GBP|INR|JPY|CNY|RMB|CAD|AUD|NZD|SGD|HKD|CHF|MXN|BRL|ZAR|KRW|RM|Rs\.?)(?=[ ]?-?\d)"
)
# What makes a minus with a space behind it a sign: `is - $5`, `= - 5`; and what makes the word one: `It is minus 5`.
_BEFORE_SIGN = r"(?:(?<=[:=(])|\b(?:is|was|be|of|to|equals|about|at|below))"
_SPACED_SIGN = re.compile(rf"({_BEFORE_SIGN}[ ]*)(?:-|minus\b)[ ]+(?=\$?[ ]?\.?\d)", re.I)
_NEGATIVE = re.compile(r"\bnegative[ ]+(?=\$?\.?\d)", re.I)
_AND_PART = re.compile(r"(?<=\d)[ ]and[ ](?=\d++/\d)|(?<=\d)[ ]and[ ]an?[ ](half|third|quarter|fourth|fifth)\b", re.I)
_PARTS = {"half": " 1/2", "third": " 1/3", "quarter": " 1/4", "fourth": " 1/4", "fifth": " 1/5", None: " "}
_DENIED = re.compile(r"\b(?:not|rather than|instead of)[ ]+(?:only[ ]+)?(?=-?\$?\.?\d)", re.I)

# ── 2 to 4. statements ───────────────────────────────────────────────────────────────────────────────────────────────

_MARKER = re.compile(r"(?<!#)####(?!#)")
# Instruct models write headings too: `#### Step 2: …` and `#### 2. Add them` give no answer.
_HEADING = re.compile(r"[*_\s]*+(?:(?:step|part|case|example|problem|question)\b|\d{1,2}[.)]\s+[^\W\d])", re.I)
_BOXED = re.compile(r"\\(?:boxed|fbox|framebox)\s*+(?:\{|(?=\d))")
# In prose the word is something else: each answer is worth 4, to answer it is hard, answer sheets: 5.
_ANSWER = re.compile(
    r"(?P<prose>\b(?:each|every|per|any|an?|wrong|incorrect)\s+(?:(?!the\b|my\b|our\b|final\b)\w+\s+){0,2}"
    r"|\b(?:to|can|could|must|will|would|should|they|we|you|he|she|i|who|students)\s+)?"
    r"(?<![\w-])answer\b(?!-|'s\s|\s+(?:questions?|sheets?|keys?|papers?|books?|is\s+worth))"
    r"[^.\n\d]{0,40}?(?:\b(?:is|was|equals|be)\b|:|=)",
    re.I,
)
_SAID = {
    "answer": _ANSWER,
    "答案": re.compile(r"答案[^\d。\n]{0,12}?(?:是|为|為|:|=)"),
    "答:": re.compile(r"答:"),
    "答え": re.compile(r"答え(?:は|:)"),
    "정답": re.compile(r"정답(?:은|:)"),
    "respuesta": re.compile(r"\brespuesta\b[^.\n\d]{0,30}?(?:\bes\b|:|=)", re.I),
    "réponse": re.compile(r"\bréponse\b[^.\n\d]{0,30}?(?:\best\b|:|=)", re.I),
    "antwort": re.compile(r"\bantwort\b[^.\n\d]{0,30}?(?:\b(?:ist|lautet)\b|:|=)", re.I),
    "resposta": re.compile(r"\bresposta\b[^.\n\d]{0,30}?(?:\bé\b|:|=)", re.I),
    "risposta": re.compile(r"\brisposta\b[^.\n\d]{0,30}?(?:\bè\b|:|=)", re.I),
    "ответ": re.compile(r"\bответ\b[^.\n\d]{0,30}?(?:\bравен\b|—|:|=)", re.I),
}
_IS_THE_ANSWER = re.compile(r"\b(?:is|was)\s+(?:the|my|our)\s+(?:\w+\s+)?answer\b(?![^.\n]{0,40}(?:\bis\b|[:?]))", re.I)
_DRESSING = " \t\r\n:*_="
_LINE_END = re.compile(r"\n")
_WRITTEN = re.compile(r"[\d.,]*\d")
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)|\n")

_SPACED_DIGITS = re.compile(r"(-?)((?:\d )+\d)\.?")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ ]\d{3})+(?![\w/-]|[.,]\d|[ ]\d)")
_TO = re.compile(r" ?- ?|:(?=\d)| : | to ")
_OPERATION = re.compile(r"[ ]?[*×÷+x^/][ ]?[($]?\.?\d|[ ]-[ ]\$?\.?\d", re.I)
_EXPRESSION = re.compile(r"[\d\s.,+*/×÷x^(){}$-]*(?:[*×÷+^x]|[ ]/[ ]|[(])[\d\s.,+*/×÷x^(){}$-]*", re.I)
_REMARK = re.compile(r"[\d)]\s+\(")  # `18 (9*2)` is no product
_COMES_TO = r"so|thus|therefore|hence|giving|making|i\.e\.|that is|or|which (?:is|gives|equals|makes|means|comes to)"
_JOINT = re.compile(
    rf"(?:[,;][ ]*)?(?:\b(?:(?P<so>{_COMES_TO})|because|since|as|where|when|which|if|after|with|from|for)\b|(?P<arrow>→|⇒|[=-]>))"
    r"|(?P<comma>[,;](?!\d))|(?<![-+/=×^])(?<!\s\*)\s\(",
    re.I,
)

_MOST_STATEMENTS = 16
_REACH = 2 * LONGEST_NUMBER
"""Limits for a degenerate text that repeats a marker for ever: so many markers from its end, so many characters after each."""


class _Runaway(Exception):
    """A number of more digits than anybody calculates with."""


def answer_in(text: str) -> Fraction | None:
    """Read the number that a text gives as its answer, exactly; None where it gives none ("fifty-four" has no digit).

    The rules stand at the top of this module. Currency, grouping, bold, units and percent signs are dressing:
    `**$1,234.00**`, `1 234 567`, `1'234`, `1,00,000`, `54 km²` and `50%` are numbers. `1/2`, `2 1/2`, `2½`,
    `\\frac12`, `1.5e3`, `5 × 10³` and `2 million` are one number each; `1,2,3` is three. In `5-10` the hyphen joins, in
    `-5` and `minus 5` there is a sign. A comma is never a decimal point. Digits with spaces between them, `#### 5 5 6 0`,
    are one number where they are all that a statement says. A fact's token is the number its equation ends with:
    `<MUL_6_9_54>` is 54; one whose result is wrong is plain text. A number of more than 4,000 digits is a runaway, and the
    text gives none.

    Example:
        >>> answer_in("6*9=54, so she pays **$54.00**."), answer_in("#### 1/2")
        (Fraction(54, 1), Fraction(1, 2))
        >>> print(answer_in("If each answer is worth 4 points, 20 answers are worth 80 points."))
        80
    """
    said = _undressed(_said(text))
    try:
        for statements in (_marked, _boxed, _called_answer):
            found = _last_whole(statements(said))
            if found is not None:
                return found
        last = _last_number(said)
        return None if last is None else _value(last)
    except _Runaway:
        return None


def same_answer(a: Fraction | None, b: Fraction | None) -> bool:
    """True if two answers are equal as numbers. A missing answer equals nothing, not even another missing one."""
    return a is not None and a == b


def n_numbers_in(text: str) -> int:
    """The number of numbers that a text writes in digits, each part of a range or a time counted by itself."""
    return sum(1 for _ in _NUMBER.finditer(_undressed(text))) if not _SPACED_DIGITS.fullmatch(text.strip()) else 1


# ── what was said ────────────────────────────────────────────────────────────────────────────────────────────────────


def _said(text: str) -> str:
    """The answer of this turn: without what stands before it and after it, and without the thoughts."""
    if "<" in text or "[" in text or "◁" in text:
        text = _THOUGHT_ENDS.sub("</think>", _THOUGHT_BEGINS.sub("<think>", text))
    text = text[_start_of_answer(text) :]
    # A thought may quote anything; turns are looked for behind it.
    closed = text.find("</think>") if text.lstrip().startswith("<think>") else -1
    turn = _TURN.search(text, max(closed, 0))
    if turn is not None:
        text = text[: turn.start()]
    thought, tag, rest = text.rpartition("</think>")
    text = rest if rest.strip() else thought if tag else rest
    tagged = deque(_TAGGED.finditer(text), maxlen=1)
    if tagged and (inside := text[tagged[0].end() :].partition("</")[0]).strip():
        return inside
    return text


def _start_of_answer(text: str) -> int:
    beginning = _BEGINNING.match(text)
    start = beginning.end() if beginning else 0
    if _PROMPT.match(text, start) or _PROMPT_MARKS.search(text, 0, start):
        assistant = _ASSISTANT.search(text)
        if assistant is None:
            return start
        start = assistant.end()
        beginning = _BEGINNING.match(text, start)
        return beginning.end() if beginning else start
    role = _ROLE.match(text, start)
    return role.end() if role and (start or role[0].endswith((":", "："))) else start


def _undressed(text: str) -> str:
    """The same numbers in plain characters: one minus, one currency, one times, `a/b` for fractions, commas for grouping."""
    text = TOKEN.sub(_spelled_out, text)
    if not text.isascii():
        text = _THIN_SPACE.sub(",", text).translate(_PLAIN)
        text = RAISED.sub(lambda m: "^" + m[0].translate(SUPERSCRIPTS), text)
    if "{,}" in text:
        text = _BRACED_COMMA.sub(",", text)
    if "\\" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    if not text.isascii():
        text = _VULGAR.sub(_vulgar_fraction, text)
    text = _GROUPED.sub(lambda m: m[0].translate(_SEPARATORS), text)
    text = _CURRENCY.sub("$", text)
    if " and " in text:
        text = _AND_PART.sub(lambda m: _PARTS[m[1] and m[1].lower()], text)
    if "- " in text or "inus " in text:
        text = _SPACED_SIGN.sub(r"\1-", text)
    return _NEGATIVE.sub("-", text)


def _vulgar_fraction(one: re.Match[str]) -> str:
    return str(Fraction(unicodedata.numeric(one[0])).limit_denominator(10)) if one[0] else " "


def _spelled_out(token: re.Match[str]) -> str:
    """The result of a fact's token, in digits that touch no word or number beside it."""
    fact = Fact.parse(token[0])
    if fact is None:
        return token[0]
    text = token.string
    before, after = text[max(0, token.start() - 1) : token.start()], text[token.end() : token.end() + 1]
    return " " * before.isalnum() + str(fact.result) + " " * after.isalnum()


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────
# Each yields its statements, the last one first.


class _Statement(NamedTuple):
    """What is stated behind a mark; `is_cut` where the text ends with it, perhaps in the middle of a number."""

    text: str
    is_cut: bool

    @classmethod
    def up_to(cls, end: re.Pattern[str], text: str) -> _Statement:
        match = end.search(text)
        return cls(text, is_cut=True) if match is None else cls(text[: match.start()], is_cut=False)


def _marked(text: str) -> Iterator[_Statement]:
    """The lines behind `####`."""
    lines = (_Statement.up_to(_LINE_END, rest.lstrip()) for rest in _after_each(_MARKER, text))
    yield from (line for line in lines if not _HEADING.match(line.text))


def _boxed(text: str) -> Iterator[_Statement]:
    yield from map(_to_closing_brace, _after_each(_BOXED, text))


def _called_answer(text: str) -> Iterator[_Statement]:
    """The sentences behind "the answer is", or the number before "is the answer"."""
    lowered = text.lower()
    patterns = [pattern for word, pattern in _SAID.items() if word in lowered]
    said = [match for pattern in patterns for match in _last_of(pattern, text) if not match.groupdict().get("prose")]
    turned = _last_of(_IS_THE_ANSWER, text) if "answer" in lowered else ()
    for match in sorted((*said, *turned), key=lambda match: -match.end()):
        if match.re is _IS_THE_ANSWER:
            sentence = _SENTENCE_END.split(text[max(0, match.start() - _REACH) : match.start()])[-1]
            number = _last_number(sentence)
            yield _Statement(number[0] if number else "", is_cut=False)
        else:
            rest = text[match.end() : match.end() + _REACH].lstrip(_DRESSING)
            yield _Statement.up_to(_SENTENCE_END, rest)


def _last_of(pattern: re.Pattern[str], text: str) -> deque[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=_MOST_STATEMENTS)


def _after_each(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    """The text after each match, from the last match to the first."""
    return (text[match.end() : match.end() + _REACH] for match in reversed(_last_of(pattern, text)))


def _to_closing_brace(text: str) -> _Statement:
    depth = 1
    for brace in re.finditer(r"[{}]", text):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return _Statement(text[: brace.start()], is_cut=False)
    return _Statement(text, is_cut=True)


def _last_whole(statements: Iterator[_Statement]) -> Fraction | None:
    """The number of the first statement that gives one, unless it is cut off and the one before has the whole of it."""
    for text, is_cut in statements:
        found = _stated(text)
        if found is None:
            continue
        begun = text.lstrip(_DRESSING + "$")
        before = next(statements, None) if is_cut and begun[-1:].isdigit() else None
        if before is not None:
            whole = _WRITTEN.match(before.text.lstrip(_DRESSING + "$"))
            if whole and whole[0] != begun and whole[0].startswith(begun):
                return _stated(before.text)
        return found
    return None


# ── the number of a statement ────────────────────────────────────────────────────────────────────────────────────────


def _stated(statement: str) -> Fraction | None:
    """The number that a statement gives; None where it has none."""
    statement = re.sub(r"^-\s+", "-", statement.strip())
    if spaced := _SPACED_DIGITS.fullmatch(statement):
        return _of_spaced_digits(spaced)
    if " " in statement:
        statement = _SPACED_THOUSANDS.sub(lambda m: m[0].replace(" ", ","), statement)
    if len(statement) <= LONGEST_NUMBER and _EXPRESSION.fullmatch(statement) and not _REMARK.search(statement):
        try:
            return evaluate(statement)
        except (Unreadable, ZeroDivisionError):
            pass
    found, is_open = None, False  # open: an operand, or a result that another may follow
    for joint, clause in _clauses(statement):
        if found is not None and not (is_open and (joint == "so" or (joint == "," and "=" in clause))):
            break
        read = _clause(clause)
        if read is not None:
            found, is_open = read
    return found


def _clauses(statement: str) -> Iterator[tuple[str, str]]:
    """The clauses of a statement, each with what joins it to the one before: "so", "," or ""."""
    joint, at = "", 0
    for match in _JOINT.finditer(statement):
        yield joint, statement[at : match.start()]
        joint, at = "so" if match["so"] or match["arrow"] else "," if match["comma"] else "", match.end()
    yield joint, statement[at:]


def _clause(clause: str) -> tuple[Fraction | None, bool] | None:
    """The number of a clause, and whether it may be an operand or a result on the way; None where it has no number."""
    *sides, result = clause.split("=")
    result = re.sub(r"^-\s+", "-", result.strip())
    number = next(_numbers(result), None)
    if number is None and sides:
        return _clause("=".join(sides))
    if number is None:
        return None
    is_operand = not sides and _OPERATION.match(result, number.end()) is not None
    while far := _TO.match(result, number.end()):
        beyond = _NUMBER.match(result, far.end())
        if beyond is None:
            break
        number = beyond
    return _value(number), is_operand or bool(sides)


def _numbers(text: str) -> Iterator[re.Match[str]]:
    """The numbers of a text, without those that are denied."""
    if not _DENIED.search(text):
        return _NUMBER.finditer(text)
    denied = {match.end() for match in _DENIED.finditer(text)}
    return (number for number in _NUMBER.finditer(text) if number.start() not in denied)


def _last_number(text: str) -> re.Match[str] | None:
    """The last number of a text; none goes on in the next line, so that few lines need be read."""
    lines = (deque(_numbers(line), maxlen=1) for line in reversed(text.split("\n")))
    return next((last[0] for last in lines if last), None)


def _of_spaced_digits(spaced: re.Match[str]) -> Fraction:
    digits = spaced[2].replace(" ", "")
    if len(digits) > LONGEST_NUMBER:
        raise _Runaway
    return Fraction(spaced[1] + digits)


def _value(number: re.Match[str]) -> Fraction:
    if number.end() - number.start() > LONGEST_NUMBER:
        raise _Runaway
    read: Callable[[str], Fraction] = lambda digits: Fraction(digits.replace(",", ""))
    part = number.group
    if part("part"):
        of_one = _ratio(*part("part").split("/"))
        is_mixed = part("joint") is None or of_one < 1  # `3-1/2` is three and a half, `10-4/2` is no number of its own
        size = read(part("whole")) + of_one if is_mixed else of_one
    elif part("top"):
        size = _ratio(part("top").replace(",", ""), part("bottom").replace(",", ""))
    elif part("date"):
        size = read(part("date").replace("/", ".").rpartition(".")[2])
    else:
        power = int(part("power") or part("ten") or 0)
        size = read(part("plain")) * Fraction(10) ** power * _SCALES.get((part("scale") or "").lower(), 1)
        if part("raised"):
            size = _raised(size, int(part("raised")))
    return -size if part("sign") or part("inner") else size


def _raised(base: Fraction, exponent: int) -> Fraction:
    if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > 3.3 * LONGEST_NUMBER:
        raise _Runaway
    return base**exponent if base or exponent > 0 else base


def _ratio(top: str, bottom: str) -> Fraction:
    """`4/0` is no number; its last one is 0, as in any other text."""
    below = Fraction(bottom)
    return Fraction(top) / below if below else below
