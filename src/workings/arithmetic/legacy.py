"""The seeds' rewriting, mistakes and all, to replicate what was trained on it. Written from its description, not from its code.

One or two digits, `*`, `×`, or an `x` that no letter follows, one or two digits, any white space between (line breaks too), digits
of any script; then, in the strict mode, `=` and the right result. Nothing is asked about what stands left or right: `1.5*3` becomes
`1.<MUL_3_5_15>`, `106*9` becomes `1<MUL_6_9_54>`, and a list item may become a factor. A wrong result leaves the text alone.
Not described, and taken in the widest sense: how many digits a result may have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from workings.arithmetic.equations import UNKNOWN, WRONG, Found
from workings.arithmetic.facts import Fact, FactVocabulary

_PRODUCT = r"(\d{1,2})\s*(?:[*×]|x(?![a-z]))\s*(\d{1,2})"
_RESULT = r"\s*=\s*(\d+)"
WEAK = re.compile(rf"{_PRODUCT}(?:{_RESULT})?", re.I)
STRICT = re.compile(rf"{_PRODUCT}{_RESULT}", re.I)
_MOST_DIGITS = 9


def found_legacy(text: str, vocabulary: FactVocabulary, strict: bool) -> Iterator[Found]:
    """The products of `text` as the seeds read them; only what the vocabulary holds of MUL is ever rewritten."""
    for match in (STRICT if strict else WEAK).finditer(text):
        a, b, stated = int(match[1]), int(match[2]), match[3]
        fact = Fact.of(a, b)
        if fact not in vocabulary:
            yield Found(*match.span(), None, "", UNKNOWN)
        elif stated is not None and (len(stated) > _MOST_DIGITS or int(stated) != fact.result):
            yield Found(*match.span(), None, "", WRONG)
        else:
            yield Found(*match.span(), fact, fact.token, "")
