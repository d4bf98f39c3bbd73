"""Batches are windows of the training stream: each once an epoch, the same whoever asks, document bounds known."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workings.errors import BadInput, Failed
from workings.text.corpus import Corpus
from workings.text.manifest import BadRows, BuildOutcome, CorpusManifest, FactRate, Split, SplitName, TokenizerIdentity
from workings.text.shards import DOCUMENT, Shard, ShardWriter, differences, open_ids, open_index

EOT = 0
UINT16 = np.dtype(np.uint16)


def corpus_of(folder: Path, lengths: list[int], shard_tokens: int) -> tuple[Corpus, np.ndarray]:
    """A corpus of documents of these lengths (end of text included), whose other ids count up from 1; and its stream."""
    ids = iter(range(1, 60_000))
    pieces = [np.array([EOT, *islice(ids, n - 1)], UINT16) for n in lengths]
    writer = ShardWriter(folder, "train", UINT16, shard_tokens)
    half = len(pieces) // 2
    for part in (pieces[:half], pieces[half:]):
        writer.append(part, np.zeros(len(part), DOCUMENT))
    writer.finish()
    tokenizer = TokenizerIdentity("digits", "strict", "", width=60_000, eot=EOT, embedding_width=60_032)
    splits: dict[SplitName, Split] = {"train": Split(shards=tuple(writer.closed))}
    manifest = CorpusManifest({}, "uint16", tokenizer, (), BuildOutcome(splits, FactRate(0.0, 0.0), {}, BadRows(), {}))
    return Corpus(folder, manifest), np.concatenate([np.empty(0, UINT16), *pieces])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    lengths = np.random.default_rng(1).integers(1, 40, 200).tolist()
    return corpus_of(tmp_path_factory.mktemp("corpus"), lengths, 500)


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)
few = settings(max_examples=15, deadline=None)  # every shard goes to the disk
tolerant = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@tolerant
@given(LENGTHS, st.integers(1, 120), st.integers(1, 25))
def test_windows_lay_the_stream_end_to_end_and_leave_only_the_remainder(
    tmp_path_factory, lengths, shard_tokens, length
):
    corpus, stream = corpus_of(tmp_path_factory.mktemp("c"), lengths, shard_tokens)
    n = corpus.n_windows(length)
    windows = [corpus.window(number, length) for number in range(n)]
    targets = np.concatenate([np.empty(0, int), *(window[1:] for window in windows)])
    left = (len(stream) - 1) % length
    assert np.array_equal(targets, stream[1 : len(stream) - left]), "every token but the remainder is a target once"
    assert all(np.array_equal(window[:-1], stream[i * length : (i + 1) * length]) for i, window in enumerate(windows))


@tolerant
@given(st.integers(0, 5), st.integers(1, 7), st.integers(1, 4), st.integers(5, 60))
def test_an_epoch_holds_every_window_once_whatever_the_ranks(corpus, seed, rows, world, length):
    corpus, _ = corpus
    n = corpus.n_windows(length)
    known = {tuple(corpus.window(i, length)[:-1]): i for i in range(n)}
    streams = [corpus.batches(seed, rows, length, rank, world) for rank in range(world)]
    order = []
    while len(order) < 2 * n:
        for stream in streams:
            order += [known[tuple(row)] for row in next(stream).inputs]
    assert sorted(order[:n]) == sorted(order[n : 2 * n]) == list(range(n))
    assert n < 8 or order[:n] != order[n : 2 * n], "every epoch has an order of its own"


@tolerant
@given(st.integers(0, 3), st.integers(1, 6), st.integers(2, 4), st.integers(0, 80))
def test_ranks_part_the_batch_that_one_rank_would_have(corpus, seed, rows, world, start):
    corpus, _ = corpus
    whole = list(islice(corpus.batches(seed, rows * world, 32, start=start), 3))
    parts = [list(islice(corpus.batches(seed, rows, 32, rank, world, start), 3)) for rank in range(world)]
    for i, batch in enumerate(whole):
        assert np.array_equal(batch.inputs, np.concatenate([part[i].inputs for part in parts]))
        assert {part[i].index for part in parts} == {batch.index} == {start + i}


@tolerant
@given(st.integers(0, 3), st.integers(0, 60), st.integers(1, 5))
def test_a_batch_is_the_same_after_a_restart(corpus, seed, at, rows):
    corpus, _ = corpus
    *_, last = islice(corpus.batches(seed, rows, 24), at + 1)
    following = next(corpus.batches(seed, rows, 24, start=last.index + 1))
    (same,) = islice(corpus.batches(seed, rows, 24), at + 1, at + 2)
    for one, other in ((following, same), (last, next(corpus.batches(seed, rows, 24, start=at)))):
        assert one.index == other.index
        assert all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("inputs", "targets", "documents"))


@tolerant
@given(st.integers(0, 20), st.integers(3, 50))
def test_documents_are_numbered_within_a_row(corpus, index, length):
    corpus, _ = corpus
    batch = next(corpus.batches(0, 4, length, start=index))
    assert (batch.inputs.dtype, batch.targets.dtype, batch.documents.dtype) == (np.int64, np.int64, np.int32)
    for inputs, targets, documents in zip(batch.inputs, batch.targets, batch.documents, strict=True):
        number, expected = 0, []
        for place, token in enumerate(inputs):
            number += token == EOT and place > 0
            expected.append(number)
        assert documents.tolist() == expected
        assert np.array_equal(inputs[1:], targets[:-1])


def test_seeds_order_windows_differently(corpus):
    corpus, _ = corpus
    first, second = (next(corpus.batches(seed, 16, 16)).inputs for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_batches_that_cannot_be_are_refused(corpus, tmp_path):
    corpus, stream = corpus
    for wrong in ({"rank": 2, "world": 2}, {"rows": 0}, {"start": -1}):
        with pytest.raises(BadInput):
            next(corpus.batches(**{"seed": 0, "rows": 1, "length": 8} | wrong))
    with pytest.raises(BadInput, match="not one window"):
        next(corpus.batches(0, 1, len(stream)))
    assert corpus.n_windows(len(stream) - 1) == 1


# ── shards ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def documents(n: int, start: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    pieces = [np.array([EOT, *([1 + start + i] * (i % 5))], UINT16) for i in range(n)]
    rows = np.zeros(n, DOCUMENT)
    rows["bytes"] = rows["hash"] = np.arange(start, start + n)
    return pieces, rows


@few
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 60))
def test_a_shard_ends_with_the_document_that_fills_it(tmp_path_factory, counts, target):
    folder = tmp_path_factory.mktemp("s")
    writer = ShardWriter(folder, "train", UINT16, target)
    made = [documents(n, 100 * i) for i, n in enumerate(counts)]
    for pieces, rows in made:
        writer.append(pieces, rows)
    writer.finish()
    writer.forget_parts()
    assert len(list(folder.iterdir())) == 2 * len(writer.closed), "nothing is left but shards and their indexes"
    every = [piece for pieces, _ in made for piece in pieces]
    joined = np.concatenate([open_ids(folder, shard, UINT16) for shard in writer.closed])
    assert np.array_equal(joined, np.concatenate(every))
    for shard in writer.closed:
        rows = open_index(folder, shard)
        assert rows["offset"][-1] < target, "the document before the last did not fill it"
        assert list(differences(folder, shard, UINT16, 60_000, EOT)) == []
    assert all(shard.n_tokens >= target for shard in writer.closed[:-1])
    assert [int(h) for s in writer.closed for h in open_index(folder, s)["hash"]] == [
        int(h) for _, rows in made for h in rows["hash"]
    ]


@few
@given(st.lists(st.integers(1, 12), min_size=2, max_size=8), st.integers(1, 60), st.data())
def test_a_writer_restored_writes_the_same_bytes(tmp_path_factory, counts, target, data):
    straight, broken = tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")
    made = [documents(n, 100 * i) for i, n in enumerate(counts)]
    whole = ShardWriter(straight, "train", UINT16, target)
    for pieces, rows in made:
        whole.append(pieces, rows)
    whole.finish()
    kept = data.draw(st.integers(0, len(made) - 1), label="journaled after so many blocks")
    lost = data.draw(st.integers(kept, len(made)), label="killed after so many")
    first = ShardWriter(broken, "train", UINT16, target)
    for pieces, rows in made[:kept]:
        first.append(pieces, rows)
    state = first.state()
    first.forget_parts()
    for pieces, rows in made[kept:lost]:
        first.append(pieces, rows)
    first.release()
    second = ShardWriter(broken, "train", UINT16, target)
    second.restore(state)
    for pieces, rows in made[kept:]:
        second.append(pieces, rows)
    second.finish()
    second.forget_parts()
    whole.forget_parts()
    assert second.closed == whole.closed
    assert {f.name: f.read_bytes() for f in broken.iterdir()} == {f.name: f.read_bytes() for f in straight.iterdir()}


def test_a_shard_that_lost_what_was_journaled_is_not_gone_on_with(tmp_path):
    writer = ShardWriter(tmp_path, "train", UINT16, 1000)
    writer.append(*documents(5))
    state = writer.state()
    writer.release()
    (tmp_path / "train_000000.bin").write_bytes(b"\0\0")
    with pytest.raises(Failed, match="2 bytes where"):
        ShardWriter(tmp_path, "train", UINT16, 1000).restore(state)


def test_ids_of_another_type_are_not_written(tmp_path):
    writer = ShardWriter(tmp_path, "train", UINT16, 1000)
    with pytest.raises(Failed, match="int64"):
        writer.append([np.array([0, 1])], np.zeros(1, DOCUMENT))


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda f: f["bin"].write_bytes(f["bin"].read_bytes()[:-2]), "bytes, not"),
        (lambda f: f["bin"].write_bytes(b"\1" + f["bin"].read_bytes()[1:]), "changed"),
        (lambda f: f["bin"].unlink(), "missing"),
        (lambda f: f["npy"].unlink(), "missing"),
        (lambda f: f["npy"].write_bytes(b"nonsense"), "cannot be read"),
    ],
)
def test_harm_to_a_shard_is_found(tmp_path, harm, complaint):
    writer = ShardWriter(tmp_path, "train", UINT16, 1000)
    writer.append(*documents(5))
    writer.finish()
    (shard,) = writer.closed
    harm({"bin": tmp_path / shard.file, "npy": tmp_path / shard.documents_file})
    assert any(complaint in line for line in differences(tmp_path, shard, UINT16, 60_000, EOT))


def test_an_id_beyond_the_vocabulary_and_a_lost_document_are_found(tmp_path):
    writer = ShardWriter(tmp_path, "train", UINT16, 1000)
    writer.append(*documents(5))
    writer.finish()
    (shard,) = writer.closed
    assert any("vocabulary" in line for line in differences(tmp_path, shard, UINT16, 3, EOT))
    fewer = Shard(shard.file, shard.n_tokens, 4, shard.sha256, shard.documents_sha256)
    assert any("5 documents, the manifest 4" in line for line in differences(tmp_path, fewer, UINT16, 60_000, EOT))
    assert any("ends of text" in line for line in differences(tmp_path, shard, UINT16, 60_000, 1))
