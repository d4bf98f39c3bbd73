"""Encoding in bulk gives the ids that the tokenizer gives, on any texts in any company."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workings.arithmetic.facts import FAMILIES
from workings.errors import BadInput
from workings.text.bpe import sample_texts
from workings.text.bulk import BulkEncoder
from workings.text.encoding import Encoder
from workings.text.tokenizer import VOCABULARIES, Tokenizer

PARTS = [
    "a",
    "Zé",
    "12",
    "٣",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t ",
    "\r",
    "\x0b",
    "\x1c",
    "\x00",
    ".",
    ",;",
    "'ll",
    "'s",
    "’s",
    "三",
    "👩🏽",
]
PARTS += [
    "<MUL_6_9_54>",
    "<MUL_9_6_54>",
    "<MUL_6_9_55>",
    "<ADD_1_2_3>",
    "<|endoftext|>",
    "<|padding_3|>",
    "<MUL_",
    "54>",
    "6*9=54",
]
ODD = ["\x05", "\x06", "\x07", "\xa0", "\u2003", "\u3000", "\x85", "\u2028"]
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=12).map("".join)
with_odd = st.lists(st.sampled_from(PARTS + ODD), max_size=8).map("".join)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.build("embedded", facts=",".join(f"{name}:1-4" for name in FAMILIES))


def same(tokenizer: Tokenizer, batch: list[str]) -> bool:
    ours, theirs = BulkEncoder(tokenizer)(batch), tokenizer.encode_batch(batch)
    return len(ours) == len(theirs) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(texts | with_odd, max_size=8), st.sampled_from(VOCABULARIES))
@example(["", " ", "", "\n\n", "  x"], "facts")
@example(["x  <MUL_2_3_6>", "  <MUL_2_3_6>  ", "<MUL_2_3_6><MUL_2_3_6>", "\x05<MUL_2_3_6>"], "facts")
@example([" a\n \n b \n", "a \x07", " \n\t", "\u2003 \u2003b"], "digits")
def test_bulk_ids_are_the_tokenizers(tokenizer, batch, vocabulary):
    assert same(replace(tokenizer, vocabulary=vocabulary), batch)


def test_every_fact_of_every_family_is_one_id(tokenizer):
    tokens = [fact.token for fact in tokenizer.facts.facts]
    assert len({fact.family for fact in tokenizer.facts.facts}) == len(FAMILIES)
    ids = BulkEncoder(tokenizer)([f"so {token}." for token in tokens])
    assert [int(i) for found in ids for i in found if i >= tokenizer.facts.first_id] == [
        tokenizer.facts.first_id + i for i in range(len(tokens))
    ]


def test_the_texts_that_compare_libraries_are_the_same_in_bulk(tokenizer):
    assert same(tokenizer, list(sample_texts(tokenizer.bpe)))


def test_gpt2s_merges_and_real_texts_are_the_same_in_bulk(shared_data):
    import gzip
    import json

    gpt2 = Tokenizer.build(shared_data.parent / "tokenizers" / "gpt2")
    with gzip.open(shared_data / "english" / "docs.jsonl.gz") as lines:
        some = [gpt2.prepare(json.loads(line)["text"]) for _, line in zip(range(150), lines, strict=False)]
    assert same(gpt2, some) and same(gpt2, list(sample_texts(gpt2.bpe)))


def test_another_library_is_as_good(tokenizer):
    batch = ["6*9 = 54  and\n\nmore", "<MUL_2_3_6>  "]
    assert same(replace(tokenizer, library="tokenizers"), batch)


def test_one_bad_text_is_named_and_harms_no_other(tokenizer):
    with pytest.raises(BadInput, match="surrogate"):
        BulkEncoder(tokenizer)(["fine", "\ud800"])
    encoded = Encoder(tokenizer)(["fine", "\ud800", "so 2*3=6"])
    assert [*encoded.failures] == [1] and "surrogate" in encoded.failures[1]
    assert encoded.entries["tokens"].tolist()[1] == 0
    pieces = encoded.pieces()
    assert [tokenizer.decode(pieces[i][1:]) for i in (0, 2)] == ["fine", "so <MUL_2_3_6>"] and len(pieces[1]) == 0
    assert encoded.entries["facts"].tolist() == [0, 0, 1]
