"""Text → the stretches of it that are code: fenced, inline, tagged, indented. One pass, however long and unclosed."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

Span = tuple[int, int]

_FENCE = re.compile(r"^[ \t>]*+(`{3,}+|~{3,}+)([^\n]*+)$", re.M)
_TAGGED = re.compile(r"<(code|pre|tt|script|style|kbd|samp)\b(?:(?!</\1>).)*+", re.S | re.I)
_TICKS = re.compile(r"`++|\n[ \t]*+\n")
_INDENTED = re.compile(r"^(?: {4}|\t).*$", re.M)


class Spans:
    """Stretches of a text, joined where they overlap: `at in spans`."""

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


def code_spans(text: str) -> Spans:
    """Code as Markdown and HTML mark it. A fence or a tag that is never closed goes on to the end of the text, a backtick
    that is never closed to the end of its paragraph.
    """
    fenced = list(_fenced(text)) if "```" in text or "~~~" in text else []
    inline = _inline(text, fenced) if "`" in text else ()
    return Spans([*fenced, *inline, *(found.span() for found in _TAGGED.finditer(text))])


def indented_lines(text: str) -> Spans:
    """Lines that begin with a tab or four spaces: code in Markdown, or only a quotation; who knows."""
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
    """A run of backticks closes at the next run of the same length in its paragraph."""
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
