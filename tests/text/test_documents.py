"""Every reference becomes the documents it holds, in order, and what is no document says where it stands."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.errors import BadInput, Failed
from workings.text.documents import BadDocument, Document, Source, open_documents
from workings.text.mixing import DocumentBlock, Mixture, blocks, shuffle


def texts_of(source) -> list[str]:
    return [row.text for row in source]


def test_a_row_that_is_no_document_says_where_and_why(tmp_path):
    rows = ['{"text": "fine"}', "{broken", '{"text": 5}', '{"other": "x"}', '{"text": "\\ud800"}', '{"text": " "}']
    rows += ["[1]", '{"text": null}', "", '{"text": "last"}']
    (tmp_path / "a.jsonl").write_bytes("\n".join(rows).encode() + b'\n{"text": "\xff"}\n')
    found = list(open_documents(tmp_path / "a.jsonl"))
    assert [row.text for row in found if isinstance(row, Document)] == ["fine", "last"]
    reasons = {str(row.place): row.reason for row in found if isinstance(row, BadDocument)}
    expected = {
        2: "not JSON",
        3: "int",
        4: "no field",
        5: "surrogate",
        6: "empty",
        7: "list",
        8: "NoneType",
        11: "not JSON",
    }
    assert {place: word for place, word in expected.items() if word not in reasons[f"a.jsonl, row {place}"]} == {}
    assert len(reasons) == len(expected)


def test_fields_can_be_joined(tmp_path):
    rows = [{"question": "6*9?", "answer": answer} for answer in ("54", 3, None)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    good, number, nothing = open_documents(tmp_path / "q.jsonl", field="question+answer")
    assert good.text == "6*9?\n54" and "int" in number.reason and "NoneType" in nothing.reason


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("/no/where.jsonl", "no such file"),
        ("nonsense", "no such file"),
        ("generated:nosuch", "no preset"),
        ("owner/data.jsonl", "no such file"),
    ],
)
def test_what_is_no_reference_is_refused(reference, complaint):
    with pytest.raises(BadInput, match=complaint):
        open_documents(reference)


def test_a_stream_that_dies_says_how_far_it_came():
    def dying():
        yield "", "fine"
        raise ConnectionError("the line is dead")

    with pytest.raises(Failed, match="after row 1: the line is dead"):
        list(Source("s", "the stream", dying))


def test_a_hub_id_without_revision_is_warned_about():
    assert "names no revision" in open_documents("HuggingFaceFW/fineweb-edu:sample-10BT").warning
    pinned = open_documents("HuggingFaceFW/fineweb-edu:sample-10BT@87f0914")
    assert pinned.warning == "" and pinned.name == "fineweb-edu-sample-10bt"


def test_a_hub_data_set_that_cannot_be_had_is_the_users_to_mend():
    with pytest.raises(BadInput, match="is not a local path, and the hub cannot be reached"):
        list(open_documents("no-such-owner/no-such-data@main"))


def test_documents_made_here_are_the_same_each_time():
    problems = open_documents("generated", seed=3)
    first = [row.text for row in islice(problems, 20)]
    assert first == [row.text for row in islice(problems, 20)] and len(set(first)) == 20
    assert first != [row.text for row in islice(open_documents("generated", seed=4), 20)]
    assert all("\n#### " in text for text in first) and problems.is_endless
    strings = list(islice(open_documents("docstrings"), 200))
    assert all(isinstance(row, Document) and row.n_bytes >= 80 for row in strings)
    assert list(islice(open_documents("docstrings"), 200)) == strings


# ── mixing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def source_of(name: str, sizes: list[int]) -> Source:
    return Source(name, name, lambda: ((i, f"{name}{i}".ljust(size, ".")) for i, size in enumerate(sizes)))


@given(st.lists(st.lists(st.integers(5, 200), min_size=60, max_size=80), min_size=2, max_size=4), st.data())
def test_a_mixture_keeps_to_its_weights_in_bytes(sizes, data):
    weights = data.draw(st.lists(st.floats(0.2, 5), min_size=len(sizes), max_size=len(sizes)))
    sources = [source_of(f"s{i}_", each) for i, each in enumerate(sizes)]
    mixture = Mixture(sources, weights)
    read = 0
    for row in mixture:
        read += row.n_bytes
        if not mixture.ended:  # while all give, none is further from its share than the largest documents
            for taken, weight in zip(mixture.taken, weights, strict=True):
                fair = read * weight / sum(weights)
                assert abs(taken - fair) <= 200 * (1 + len(sources) * max(weights) / min(weights))
    assert sorted(mixture.ended) == list(range(len(sources))), "every source is read to its end"
    assert mixture.taken == [
        sum(max(size, len(f"s{i}_{j}")) for j, size in enumerate(each)) for i, each in enumerate(sizes)
    ]


@given(st.integers(1, 40), st.integers(1, 3000))
def test_a_mixture_ends_with_the_document_that_reaches_a_limit(n_documents, n_bytes):
    sources = [source_of("a", [50] * 30), source_of("b", [100] * 30)]
    mixture = Mixture(sources, [1, 1], n_documents, n_bytes)
    rows = list(mixture)
    assert mixture.is_full and sum(mixture.taken) == sum(row.n_bytes for row in rows)
    assert len(rows) == n_documents or sum(mixture.taken) >= n_bytes
    assert len(rows) <= n_documents and sum(row.n_bytes for row in rows[:-1]) < n_bytes


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 70), st.integers(1, 400), st.integers(0, 3))
def test_shuffling_loses_nothing_and_holds_no_more_than_it_may(sizes, n_documents, n_bytes, seed):
    held = []
    given_ = []

    def rows():
        for i, size in enumerate(sizes):
            given_.append(size)
            yield Document(str(i), "s", n_bytes=size)

    out = []
    for row in shuffle(rows(), n_documents, n_bytes, seed):
        out.append(row)
        held.append((len(given_) - len(out), sum(given_) - sum(row.n_bytes for row in out)))
    assert sorted(int(row.text) for row in out) == list(range(len(sizes)))
    assert all(n <= n_documents and size <= n_bytes + max(sizes) for n, size in held)
    again = list(shuffle((Document(str(i), "s", n_bytes=n) for i, n in enumerate(sizes)), n_documents, n_bytes, seed))
    assert again == out


def test_a_shuffle_that_holds_everything_is_uniform():
    firsts = [next(shuffle((Document(str(i), "s", n_bytes=1) for i in range(4)), 9, 99, seed)) for seed in range(800)]
    counts = [sum(row.text == str(i) for row in firsts) for i in range(4)]
    assert all(150 < count < 250 for count in counts), counts  # 200 expected, sd 12


def test_blocks_hold_every_row_once_and_know_themselves():
    rows = [
        BadDocument("s", None, "bad") if i % 700 == 3 else Document(str(i), "s", n_bytes=1 + i % 7 * 1000)
        for i in range(3500)
    ]
    made = list(blocks(iter(rows)))
    assert [document for block in made for document in block.documents] == [r for r in rows if isinstance(r, Document)]
    assert sum(len(block.bad) for block in made) == 5 and len(made) > 3
    assert all(len(block.documents) <= 1000 for block in made)
    changed = DocumentBlock([made[0].documents[0]._replace(n_bytes=9), *made[0].documents[1:]], [])
    assert changed.mark(0) != made[0].mark(0)
