"""Raw text → prepared text → ids and back, in the four vocabularies that experiments compare; the same ids for HF.

A vocabulary is a byte-level BPE (`bpe.py`), unused ids up to the first fact, and the facts. All four have the same
width; they differ in what `prepare` does to raw text, in whether a fact token in text is one id, and in what is live:

    digits     text as it is; `<MUL_6_9_54>` is so many characters; the rows of facts are outside the softmax
    reserved   as digits, but the rows of facts are inside it: they exist and never occur
    facts      equations are rewritten into fact tokens, one id each
    shuffled   the same, with the facts of each document permuted among themselves: as short, and meaningless

**Spacing.** A fact token takes no space with it. GPT-2 puts a word's space into the word's first token; before a fact
it therefore stays a token of its own (`is <MUL_6_9_54> x` → `is`, ` `, `<MUL_6_9_54>`, ` x`). That costs a token and
loses nothing: whatever was encoded decodes to itself, in corpora, fine-tuning and evaluation alike.

**Text is only text.** `<|endoftext|>` and `<|padding_3|>` written in a text are characters. To end a document, append
`tokenizer.eot` (in Hugging Face's tokenizer `eos_token_id`), never the string: `text + tokenizer.eos_token` would teach
a model to spell the end of text in seven tokens. Hugging Face's tokenizer does the same by `split_special_tokens`, which
is saved with it; the names of unused ids are not even special there, so that no setting makes a text find them.

**Where digit-level tokenizers go.** They read the same merges after another split of the text: `BPE.pre_tokenizer`
becomes a sequence of `Digits(individual_digits)` and `ByteLevel`, which `tokenizers` understands as it stands, and
`tiktoken_ranks` gets the pattern that says the same. Rows, facts, live ids and digests follow from there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import tiktoken
import tokenizers

from workings.arithmetic.facts import FactVocabulary, embedding_width
from workings.arithmetic.rewrite import MODES, Mode, rewrite_counted, shuffled, tokens_in
from workings.config import several
from workings.errors import BadInput, suggestion
from workings.text.bpe import (
    BPE,
    END_OF_TEXT,
    HUGGING_FACE,
    TOKENIZER_FILE,
    bpe_in,
    hf_json,
    hf_settings,
    library_for,
    open_bpe,
    read_tokenizer_folder,
    rust_tokenizer,
    sample_texts,
    tiktoken_encoding,
    token_bytes,
    write_tokenizer_folder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Vocabulary = Literal["digits", "facts", "shuffled", "reserved"]
VOCABULARIES: tuple[Vocabulary, ...] = get_args(Vocabulary)

PREPARATION = 1
"""Raised when rewriting or shuffling gives another text than before: a corpus and a model must have been prepared alike."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """One vocabulary over one BPE. Cheap to pickle: encoders are built where they are first used.

    Example:
        >>> tokenizer = Tokenizer.build("embedded", "facts")
        >>> prepared = tokenizer.prepare("He paid 6 * 9 = 54 dollars")
        >>> prepared
        'He paid <MUL_6_9_54> dollars'
        >>> ids = tokenizer.encode(prepared)
        >>> tokenizer.decode(ids) == prepared
        True
    """

    bpe: BPE = field(repr=False)
    vocabulary: Vocabulary
    facts: FactVocabulary = field(repr=False)
    mode: Mode = "strict"
    library: Literal["tiktoken", "tokenizers"] = "tokenizers"
    """Which library encodes in bulk; decides the speed and nothing else."""

    FILES: ClassVar[tuple[str, ...]] = (*HUGGING_FACE, TOKENIZER_FILE)
    """The names that `save` writes."""

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[Any, ...]]:
        return Tokenizer, (self.bpe, self.vocabulary, self.facts, self.mode, self.library)

    @classmethod
    def build(
        cls,
        base: str | Path = "gpt2",
        vocabulary: Vocabulary = "facts",
        facts: str = "MUL:1-9",
        mode: Mode = "strict",
    ) -> Tokenizer:
        """Build a tokenizer. The first fact gets the next multiple of 128 after the BPE.

        Args:
            base: A byte-level BPE: a hub id, a path, or `"embedded"`.
            vocabulary: What becomes of arithmetic; see the head of this module.
            facts: Families and ranges of operands, such as `"MUL:1-9,ADD:0-9"`.
            mode: Which equations become facts (`arithmetic/rewrite.py`).

        Raises:
            BadInput: An argument is unknown, or the base does not give every text back as it was.
        """
        _choice("vocabulary", vocabulary, VOCABULARIES)
        _choice("mode", mode, MODES)
        bpe = open_bpe(base)
        library = library_for(bpe, every_token=True)
        found = cls(bpe, vocabulary, FactVocabulary.build(facts, base_size=bpe.width), mode, library)
        found._check(str(base))
        return found

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Open a folder that `save` wrote. BadInput where a file is missing or changed, or its rules of rewriting are not ours."""
        content, about = read_tokenizer_folder(Path(folder))
        if about["preparation"] != PREPARATION:
            raise BadInput(
                f"{folder} was built with version {about['preparation']} of rewriting, and this is version {PREPARATION}: "
                "use the workings that built it, or rebuild the tokenizer and what was made with it"
            )
        bpe = bpe_in(content, about["unused"], about["base_size"], about["eot"])
        facts = FactVocabulary.from_dict(about["facts"])
        found = cls(bpe, about["vocabulary"], facts, about["mode"], library_for(bpe))
        if found.digest != about["digest"]:
            raise BadInput(f"{folder} was built by an incompatible version (digest mismatch); rebuild it")
        return found

    def save(self, folder: str | Path) -> Path:
        """Write a folder that `AutoTokenizer.from_pretrained` opens with the same ids, and `load` as this tokenizer."""
        about = {
            "preparation": PREPARATION,
            "vocabulary": self.vocabulary,
            "mode": self.mode,
            "eot": self.eot,
            "base_size": self.base_size,
            "unused": [[run.start, run.stop] for run in _runs(self._paddings.values())],
            "width": self.width,
            "digest": self.digest,
            "facts": self.facts.to_dict(),
        }
        return write_tokenizer_folder(Path(folder), self._hf_json(), self._hf_settings(), about)

    @property
    def eot(self) -> int:
        """The id that ends (and, at the front, begins) a document."""
        return self.bpe.eot

    @property
    def base_size(self) -> int:
        """The first id after the BPE: 50257 for GPT-2."""
        return self.bpe.width

    @property
    def width(self) -> int:
        """The first id after the facts: 50349. Every id below it decodes, in every vocabulary."""
        return self.facts.width

    @property
    def embedding_width(self) -> int:
        """The rows that a model has: `width`, up to a multiple of 128; those beyond are never read nor written."""
        return embedding_width(self.width)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds every id."""
        return np.dtype(np.uint16 if self.width <= 1 << 16 else np.uint32)

    @cached_property
    def live(self) -> tuple[range, ...]:
        """The ids that may be predicted and generated: the BPE's, and the facts' unless the vocabulary is digits."""
        facts = range(self.width, self.width) if self.vocabulary == "digits" else range(self.facts.first_id, self.width)
        return tuple(_runs(sorted({*self.bpe.vocab.values(), *facts})))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides prepared texts and ids; equal on every machine, whatever the base was called."""
        parts = [
            PREPARATION,
            self.vocabulary,
            self.mode if self.has_facts else "",
            self.facts.to_dict(),
            self.bpe.digest_parts(),
        ]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def summary(self) -> str:
        """One line for people: width, facts and what is live."""
        live = ", ".join(f"{ids.start}–{ids.stop - 1}" for ids in self.live)
        return (
            f"{self.vocabulary}: {self.width} ids ({self.embedding_width} rows), "
            f"{len(self.facts)} facts from {self.facts.first_id}, live {live}, digest {self.digest[:12]}"
        )

    @property
    def has_facts(self) -> bool:
        """True where a fact token written in a text is one id."""
        return self.vocabulary in ("facts", "shuffled")

    def prepare(self, text: str) -> str:
        """Raw text as this vocabulary reads it; in the safe modes, what was prepared before stays as it is."""
        return self.prepare_counted(text)[0]

    def prepare_counted(self, text: str) -> tuple[str, int]:
        """`prepare`, and the number of fact tokens in its result (0 in digits and reserved).

        A text that already holds a fact token counts as prepared: what remains in it is rewritten, nothing is permuted.
        """
        if not self.has_facts:
            return text, 0
        prepared, n_facts = rewrite_counted(text, self.facts, self.mode)
        if n_facts and self.vocabulary == "shuffled" and not self._tokens_in(text):
            prepared = shuffled(prepared, self.facts, text)
        return prepared, n_facts

    def encode(self, text: str) -> list[int]:
        """The ids of a prepared text. BadInput names the position of a lone surrogate, which is no character."""
        return self._array(text).tolist()

    def encode_batch(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        """`encode` for many texts, in this process.

        Returns:
            One array of `dtype` for each text.
        """
        return [self._array(text).astype(self.dtype) for text in several(texts)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8 (a character cut in two) become U+FFFD. BadInput for an id of no token."""
        table, width = self._bytes, self.width
        ids = [int(i) for i in ids]
        outside = next((i for i in ids if not 0 <= i < width), None)
        if outside is not None:
            raise BadInput(f"id {outside} is no token: this vocabulary has the ids 0 to {width - 1}")
        return b"".join([table[i] for i in ids]).decode("utf-8", "replace")

    def pieces(self, text: str) -> Iterator[tuple[int, str]]:
        """The ids of a prepared text with the text of each; half a character shows as U+FFFD."""
        return ((i, self._bytes[i].decode("utf-8", "replace")) for i in self.encode(text))

    def hf(self) -> PreTrainedTokenizerFast:
        """A `PreTrainedTokenizerFast` with the same ids on any text. eos is the end of text, pad an id of no other use."""
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(tokenizer_object=self._rust(), **self._hf_settings())

    def _rust(self) -> tokenizers.Tokenizer:
        """The tokenizer inside Hugging Face's, with the same settings."""
        rust = rust_tokenizer(self._hf_json())
        rust.encode_special_tokens = True
        return rust

    def _hf_json(self) -> dict[str, Any]:
        return hf_json(self.bpe, self._names, self._matched)

    def _hf_settings(self) -> dict[str, Any]:
        # pad and eos differ wherever there is an unused id: who masks pads must not mask the end of text with them
        end = self._names[self.eot]
        return hf_settings(end, next(iter(self._paddings), end))

    @cached_property
    def _paddings(self) -> dict[str, int]:
        """Names for the ids of no token, which lie in holes of the BPE and from its end to the first fact."""
        unused = sorted({*range(self.facts.first_id)} - {*self.bpe.vocab.values()})
        return {f"<|padding_{n}|>": i for n, i in enumerate(unused)}

    @cached_property
    def _fact_ids(self) -> dict[str, int]:
        return {fact.token: i for i, fact in enumerate(self.facts, start=self.facts.first_id)}

    @cached_property
    def _matched(self) -> dict[str, int]:
        """The tokens that text may hold beside what merges make."""
        return self._fact_ids if self.has_facts else {}

    @cached_property
    def _names(self) -> list[str]:
        """The name of each id below `width`."""
        named = {**self.bpe.vocab, **self._fact_ids, **self._paddings}
        return sorted(named, key=named.__getitem__)

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [token_bytes(name) for name in self._names]

    @cached_property
    def _fast(self) -> tiktoken.Encoding | None:
        return tiktoken_encoding(self.bpe, self._matched) if self.library == "tiktoken" else None

    @cached_property
    def _exported(self) -> tokenizers.Tokenizer:
        return self._rust()

    def _tokens_in(self, text: str) -> set[str]:
        """The fact tokens that are one id in this text."""
        return {fact.token for _, _, fact in tokens_in(text, self.facts)} if self.has_facts else set()

    def _array(self, text: str) -> np.ndarray:
        """Ids, uint32. Fact tokens are cut out before the text is split into pieces, in both libraries."""
        try:
            if self._fast:
                return self._fast.encode_to_numpy(text, allowed_special=self._tokens_in(text), disallowed_special=())
        except UnicodeEncodeError:
            raise _surrogate(text) from None
        except ValueError:  # its pattern runs out of stack in a million spaces; the other library does not
            pass
        try:
            return np.asarray(self._exported.encode(text).ids, dtype=np.uint32)
        except TypeError:  # how `tokenizers` says that a text has no UTF-8
            raise _surrogate(text) from None

    def _check(self, base: str) -> None:
        """Try what the class promises on this base: texts come back, names stay text, Hugging Face's ids are the same."""
        names = {*self._fact_ids, *self._paddings}
        if not names.isdisjoint(self.bpe.vocab):
            raise BadInput(f"{base} has tokens with the names of facts or of unused ids already; take a base without")
        for text in [*sample_texts(self.bpe), END_OF_TEXT, *names]:
            ids = self.encode(text)
            if self.decode(ids) != text:
                raise BadInput(f"{base} does not give texts back as they were: {text[:40]!r}; take another base")
            if self._exported.encode(text).ids != ids:
                raise BadInput(f"{base} cannot be exported with the same ids: {text[:40]!r} differs; take another base")


def _choice(what: str, given: str, choices: Sequence[str]) -> None:
    if given not in choices:
        raise BadInput(
            f"there is no {what} '{given}'{suggestion(given, choices) or '; choose from ' + ', '.join(choices)}"
        )


def _surrogate(text: str) -> BadInput:
    found = _SURROGATE.search(text)
    at = found.start() if found else 0
    return BadInput(
        f"the text has half a surrogate pair (U+{ord(text[at]):04X}) at position {at}, which is no character: "
        "repair it where the text is read (errors='replace'), or leave the document out"
    )


def _runs(ids: Iterable[int]) -> Iterator[range]:
    """Ascending ids as unbroken ranges."""
    for _, run in groupby(enumerate(ids), lambda pair: pair[1] - pair[0]):
        members = [i for _, i in run]
        yield range(members[0], members[-1] + 1)


# ── words as tokens ──────────────────────────────────────────────────────────────────────────────────────────────────

UNKNOWN = "<|unknown|>"
WORD_PIECES = r"<<|>>|\d+|[A-Za-z]+(?:'[a-z]+)?|[^\sA-Za-z\d]"


def word_tokenizer(words: str | Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, number and mark, so that a thought can hold a number and a lens can name it.

    The bundled model reads it. Case is kept; decoding joins pieces by one space.

    Args:
        words: The vocabulary, each one piece by `WORD_PIECES`; the end of text and `UNKNOWN` come before them.

    Raises:
        ValueError: A word is not one piece.
    """
    from transformers import PreTrainedTokenizerFast

    words = several(words)
    vocabulary = {piece: i for i, piece in enumerate([END_OF_TEXT, UNKNOWN, *dict.fromkeys(words)])}
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    splits = tokenizers.pre_tokenizers.Split(tokenizers.Regex(WORD_PIECES), "isolated")
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.WhitespaceSplit(), splits])
    fast = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token=END_OF_TEXT, unk_token=UNKNOWN)
    broken = [word for word in words if fast.encode(word) != [vocabulary[word]]]
    if broken:
        raise ValueError(f"not one piece each: {broken[:5]}")
    return fast
