"""Encoding in bulk gives the ids that the tokenizer gives; processes give results in order, and the death of one is heard."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from textwrap import dedent

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workings.arithmetic.facts import FAMILIES
from workings.errors import BadInput, Failed
from workings.text.bpe import sample_texts
from workings.text.encoding import BulkEncoder, Encoder, Workers
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


# ── in several processes ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("n", [1, 3])
def test_results_come_in_the_order_of_the_work(n):
    with Workers(100, n) as workers:
        works = [(label, partial(operator.add, label)) for label in range(40)]
        assert list(workers.in_order(works, ahead=7)) == [(label, 100 + label) for label in range(40)]


def test_two_streams_share_processes_and_one_of_them_has_no_end():
    with Workers(3, 2) as workers:
        endless = workers.in_order(((i, partial(pow, 2)) for i in iter(int, 1)), ahead=3)
        other = workers.in_order([(i, partial(operator.mul, i)) for i in range(9)], ahead=4)
        assert [(result, next(endless)[1]) for _, result in other] == [(3 * i, 8) for i in range(9)]


def test_no_more_is_under_way_than_allowed():
    taken = []

    def works():
        for i in range(20):
            taken.append(i)
            yield i, partial(operator.add, i)

    with Workers(0, 2) as workers:
        for label, _ in workers.in_order(works(), ahead=5):
            assert len(taken) - label <= 5


def test_an_error_comes_at_its_turn():
    with Workers(2, 2) as workers:
        results = workers.in_order(
            [(d, partial(operator.floordiv, d)) for d in (8, 6)] + [("x", partial(len, ()))], ahead=3
        )
        assert list(islice(results, 2)) == [(8, 4), (6, 3)]
        with pytest.raises(Failed, match="TypeError in an encoding process"):
            next(results)
    with Workers("no table", 1) as workers, pytest.raises(BadInput):
        list(workers.in_order([(0, _refuse)], ahead=1))


def _refuse(tool: str) -> None:
    raise BadInput(tool)


@pytest.mark.parametrize("when", ["before any work", "in the middle of a large result"])
def test_the_death_of_a_process_ends_the_work(when):
    with Workers(7, 2) as workers:
        process, pipe = workers._idle.get()
        if when == "before any work":
            process.kill()
        else:
            pipe = _Killing(process, pipe)
        workers._idle.put((process, pipe))
        results = workers.in_order(((i, partial(np.full, 10**7)) for i in range(50)), ahead=4)
        with pytest.raises(Failed, match=r"an encoding process died \(exit code -9\) without an error message"):
            for _, result in results:
                assert result.shape == (10**7,)


class _Killing:
    """A pipe whose process is killed when a result lies in it that is too large for it."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process, self.pipe, self.send = process, pipe, pipe.send

    def recv(self) -> object:
        assert self.pipe.poll(30)
        self.process.kill()
        return self.pipe.recv()


ENDLESS = dedent("""
    import multiprocessing
    from functools import partial
    from workings.text.encoding import Workers

    if __name__ == "__main__":
        with Workers(3, 2) as workers:
            for n, _ in enumerate(workers.in_order(((i, partial(pow, 2)) for i in iter(int, 1)), ahead=3)):
                if n == 10:
                    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
""")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_no_process_outlives_its_parent(tmp_path, end):
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = [sys.executable, str(tmp_path / "endless.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as parent:
        try:
            assert parent.stdout
            children = [int(pid) for pid in parent.stdout.readline().split()]
            (os.killpg if end == signal.SIGINT else os.kill)(parent.pid, end)  # a terminal signals the whole group
            assert parent.wait(30) == -end
            assert len(children) == 2 and parent.stdout.read() == b"", "the end of their pipe is the end of all of them"
        finally:
            for pid in (parent.pid, *children):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
