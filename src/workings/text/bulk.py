"""Many prepared texts at once → ids, the same as `Tokenizer.encode_batch` gives, at nearly twice its speed.

Most of tiktoken's time goes into its pattern: `\\s+(?!\\S)` looks ahead, and so the whole pattern runs in an engine that
backtracks. Here the text is cut where the look-ahead would cut it, before the last of several blanks, with a control
character that is a piece of its own; what is left of the pattern runs in an automaton. Another such character marks a
fact token, a third one parts texts. Texts that hold one of them, a blank beyond ASCII or no Unicode go the tokenizer's own way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from workings.text.bpe import END_OF_TEXT, tiktoken_ranks
from workings.text.tokenizer import Tokenizer

FACT, BETWEEN, CUT = "\x05", "\x06", "\x07"
_PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}\x05-\x07]+|\s+|\x05<[A-Z]+_[0-9_]+>|[\x06\x07]"
"""`bpe.GPT2_PIECES` without its look-ahead."""
_ODD = re.compile("[\x05-\x07\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ud800-\udfff]")
_TOKEN = re.compile("<[A-Z]+_[0-9_]+>")
_IS_BLANK, _ENDS_BLANKS = np.zeros(256, bool), np.ones(256, bool)
_IS_BLANK[[9, 10, 11, 12, 13, 32]] = True
_ENDS_BLANKS[[9, 10, 11, 12, 13, 32, ord(FACT), ord(BETWEEN)]] = False  # at the end of a text blanks stay whole


@dataclass(frozen=True)
class BulkEncoder:
    """Cheap to pickle, as the tokenizer is. Slower than the tokenizer for one short text, so give it hundreds."""

    tokenizer: Tokenizer

    def __call__(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text. BadInput where one holds half a surrogate pair."""
        if self.tokenizer.library != "tiktoken":
            return self.tokenizer.encode_batch(texts)
        apart = [i for i, text in enumerate(texts) if _is_odd(text)]
        found = dict(zip(apart, self.tokenizer.encode_batch([texts[i] for i in apart]), strict=True))
        together = [text for i, text in enumerate(texts) if i not in found]
        encoded = iter(self._joined(together) if together else ())
        return [found[i] if i in found else next(encoded) for i in range(len(texts))]

    def _joined(self, texts: Sequence[str]) -> list[np.ndarray]:
        joined = BETWEEN.join(texts)
        if self.tokenizer.has_facts:
            joined = _TOKEN.sub(lambda found: FACT + found[0] if found[0] in self._facts else found[0], joined)
        ids = self._encoding.encode_to_numpy(_cut(joined), disallowed_special=())
        ids = ids[ids != self._id_of(CUT)].astype(self.tokenizer.dtype)
        ends = np.flatnonzero(ids == self._id_of(BETWEEN))
        return parts(np.delete(ids, ends), np.append(ends - np.arange(len(ends)), len(ids) - len(ends)))

    @cached_property
    def _facts(self) -> dict[str, int]:
        facts = self.tokenizer.facts
        return (
            {fact.token: facts.first_id + i for i, fact in enumerate(facts.facts)} if self.tokenizer.has_facts else {}
        )

    @cached_property
    def _encoding(self) -> Any:
        import tiktoken

        # a fact is a whole piece, and what is a whole piece tiktoken looks up before it merges anything
        facts = {f"{FACT}{token}".encode(): i for token, i in self._facts.items()}
        ranks = {**(tiktoken_ranks(self.tokenizer.bpe) or {}), **facts}
        special = {END_OF_TEXT: self.tokenizer.eot}  # never looked for; without any, tiktoken is slow
        return tiktoken.Encoding("workings-bulk", pat_str=_PIECES, mergeable_ranks=ranks, special_tokens=special)

    def _id_of(self, control: str) -> int:
        return self._encoding.encode_single_token(control)


def parts(ids: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """`ids` in parts that end at `ends`. (`np.split` takes several times as long.)"""
    return [ids[start:end] for start, end in pairwise([0, *ends.tolist()])]


def _is_odd(text: str) -> bool:
    if text.isascii():
        return FACT in text or BETWEEN in text or CUT in text
    return _ODD.search(text) is not None


def _cut(text: str) -> str:
    """With CUT before the last of several blanks that something follows."""
    raw = np.frombuffer(text.encode(), np.uint8)
    blank = _IS_BLANK[raw]
    at = np.flatnonzero(blank[:-2] & blank[1:-1] & _ENDS_BLANKS[raw[2:]]) + 1
    return np.insert(raw, at, ord(CUT)).tobytes().decode() if len(at) else text
