"""Whatever a file of documents is called, however it is packed and whatever is wrong with it: the same documents, or a message."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workings.errors import BadInput
from workings.hub import HubReference
from workings.packing import PACKINGS, packed
from workings.text.datasets import open_hub
from workings.text.documents import BadDocument, Document, Source, open_documents

TEXTS = ["one", "two\nlines", "drei é 三", 'quo"ted, with\ta tab', "<|endoftext|> is text", " spaces stay "]
MARK = b"\xef\xbb\xbf"


def texts_of(source: Source) -> list[str]:
    rows = list(source)
    assert not [row for row in rows if isinstance(row, BadDocument)]
    return [row.text for row in rows]


def json_lines(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"id": i, "text": text}).encode() + b"\n" for i, text in enumerate(texts))


def json_list(texts: list[str], indent: int | None = None) -> bytes:
    return json.dumps([{"id": i, "text": text} for i, text in enumerate(texts)], indent=indent).encode()


def separated(texts: list[str], delimiter: str = ",", line_end: str = "\n") -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=line_end).writerows(
        [["id", "text"], *([i, text] for i, text in enumerate(texts))]
    )
    return file.getvalue().encode()


def parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "id": list(range(len(texts)))}), file, row_group_size=2)
    return file.getvalue()


def arrow(texts: list[str], writer: Callable = pa.ipc.new_stream) -> bytes:
    file, table = io.BytesIO(), pa.table({"text": texts})
    with writer(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=4)
    return file.getvalue()


def parted(texts: list[str]) -> bytes:
    return "<SEP>".join(texts).encode()


KINDS = {
    "a.jsonl": json_lines(TEXTS),
    "a.ndjson": json_lines(TEXTS),
    "A.JSONL": json_lines(TEXTS),
    "list.json": json_list(TEXTS),
    "indented.json": MARK + b"\n " + json_list(TEXTS, indent=2) + b"\n\n",
    "lines.json": json_lines(TEXTS),
    "a.csv": separated(TEXTS),
    "windows.csv": MARK + separated(TEXTS, line_end="\r\n"),
    "a.tsv": separated(TEXTS, "\t"),
    "a.parquet": parquet(TEXTS),
    "stream.arrow": arrow(TEXTS),
    "file.arrow": arrow(TEXTS, pa.ipc.new_file),
    "a.txt": parted(TEXTS),
    "a.md": parted(TEXTS),
    "marked.jsonl": MARK + json_lines(TEXTS[:3]) + MARK + json_lines(TEXTS[3:]),
    "marked.txt": MARK + parted(TEXTS),
}
PACKED = {
    f"a{ending}{packing}": packed(KINDS[f"a{ending}"], packing)
    for ending in (".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".md")
    for packing in PACKINGS
} | {f"list.json{packing}": packed(KINDS["list.json"], packing) for packing in PACKINGS}
JOINED = {
    f"joined.jsonl{packing}": packed(json_lines(TEXTS[:2]), packing) + packed(json_lines(TEXTS[2:]), packing)
    for packing in PACKINGS
}


@pytest.mark.parametrize("name", [*KINDS, *PACKED, *JOINED])
def test_every_kind_of_file_gives_the_same_documents_each_time(tmp_path: Path, name: str) -> None:
    content = (KINDS | PACKED | JOINED)[name]
    assert len(content) < 2048
    (tmp_path / name).write_bytes(content)
    source = open_documents(tmp_path / name, separator="<SEP>")
    assert texts_of(source) == TEXTS
    assert texts_of(source) == TEXTS, "a second reading starts at the beginning"
    assert source.name == name.lower().partition(".")[0]
    assert source.position.n_bytes == source.bytes_on_disk == len(content)
    assert HubReference.parse(f"owner/{name.lower()}") is None, "a misspelt file is not looked for on the hub"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("object.json", b'{\n "id": 1,\n "text": "one\\ntwo"\n}\n', ["one\ntwo"]),
        ("empty.json", b"[]", []),
        ("blank.json", b" \n", []),
        ("empty.csv", b"", []),
        ("blank.jsonl", b'\n\n{"text": "x"}\n  \n', ["x"]),
        ("in-a-field.jsonl", b'{"text": "\\ufeff6*9=54"}', ["6*9=54"]),
        ("whole.txt", b"erst\r\nzwei<SEP>\n", ["erst\r\nzwei<SEP>\n"]),
        ("marked.md", MARK + b"# 6*9=54", ["# 6*9=54"]),
        ("long.csv", separated(["x" * 200_000]), ["x" * 200_000]),
        ("long.json", json_list(["é" * 700_000, "y" * 1_500_000, "z"]), ["é" * 700_000, "y" * 1_500_000, "z"]),
        (
            "many.json",
            json_list(["w" * (i % 97 + 1) for i in range(30_000)]),
            ["w" * (i % 97 + 1) for i in range(30_000)],
        ),
    ],
)
def test_odd_files_are_read_as_they_are_meant(tmp_path: Path, name: str, content: bytes, expected: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert texts_of(open_documents(tmp_path / name)) == expected


# ── what is wrong with a file ────────────────────────────────────────────────────────────────────────────────────────


ROWS = [
    ("{broken", "not JSON"),
    ('{"text": 5}', "int"),
    ('{"other": "x"}', "no field 'text'; it has other"),
    ("[1]", "list"),
]
MANY = json_lines([f"text {i * i}" for i in range(5000)])
DAMAGED = {
    **{f"cut.jsonl{packing}": (packed(MANY, packing)[:-200], "beyond row|cannot be read") for packing in PACKINGS},
    **{f"nothing.jsonl{packing}": (b"", "the archive is empty") for packing in PACKINGS},
    **{f"foreign.txt{packing}": (b"no archive at all", "cannot be read") for packing in PACKINGS},
    "cut.parquet": (parquet(TEXTS)[:-20], "cannot be read"),
    "foreign.parquet": (b'{"text": "one"}\n', "magic bytes"),
    "cut.arrow": (arrow(["x" * 99] * 40)[:-700], "cannot be read"),
    "foreign.arrow": (b"no Arrow file", "cannot be read"),
    "cut.json": (json_list(TEXTS)[:-20], "beyond row 5 .*the JSON list breaks"),
    "broken.json": (b'[{"text": "one"}, {"text": oops}, {"text": "three"}]' + b" " * 50, "beyond row 1 .*list breaks"),
    "unmarked.json": (b'[{"text": "one"} {"text": "two"}]', "neither ',' nor"),
    "behind.json": (b'[{"text": "one"}] and more', "something follows"),
    "utf16.csv": ("id,text\n1,one\n".encode("utf-16"), "UTF-16"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_breaks_off_is_named_and_may_be_skipped_and_counted(tmp_path: Path, name: str) -> None:
    content, complaint = DAMAGED[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.jsonl").write_bytes(json_lines(["last"]))
    with pytest.raises(BadInput, match=complaint) as error:
        list(open_documents(tmp_path))
    assert str(tmp_path / name) in str(error.value) and "--skip-bad" in str(error.value)
    *before, bad, last = open_documents(tmp_path, skip_bad=True)
    assert all(isinstance(row, Document) for row in before) and last.text == "last"
    assert isinstance(bad, BadDocument) and bad.place.file == name and "cannot be read" in bad.reason


def test_a_row_that_is_no_document_says_where_and_why(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\n1,one\n2\n3,"thr"ee\n4,\xff\n\n5,five\n6,"six')
    found = list(open_documents(tmp_path / "a.csv"))
    assert [str(row.place) for row in found] == [f"a.csv, row {n}" for n in (2, 3, 4, 5, 7, 8)]
    reasons = [row.reason for row in found if isinstance(row, BadDocument)]
    expected = ("1 fields", "not CSV", "not UTF-8", "not CSV: unexpected end")
    assert all(words in reason for words, reason in zip(expected, reasons, strict=True))
    (tmp_path / "b.json").write_bytes(b'[{"text": "one"}, {"text": 2}, [3], {"other": 4}]')
    places = [(str(row.place), isinstance(row, Document)) for row in open_documents(tmp_path / "b.json")]
    assert places == [(f"b.json, row {n}", n == 1) for n in (1, 2, 3, 4)]


def test_what_git_lfs_leaves_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("a.jsonl", "b.parquet"):
        (tmp_path / name).write_bytes(pointer)
    with pytest.raises(BadInput, match=r"a\.jsonl is a Git LFS pointer"):
        list(open_documents(tmp_path))
    assert [row.reason.endswith("or download it again") for row in open_documents(tmp_path, skip_bad=True)] == [
        True
    ] * 2


def test_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes('{"text": "one"}\n'.encode("utf-16"))
        first, *_ = open_documents(tmp_path / name)
        assert isinstance(first, BadDocument) and "UTF-16" in first.reason


@pytest.mark.parametrize("name", ["a.jsonl", "list.json", "a.csv", "a.parquet", "stream.arrow"])
def test_the_wrong_field_is_named_with_those_there_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(KINDS[name])
    with pytest.raises(BadInput, match=r"no field 'body'; it has .*text.*--field"):
        list(open_documents(tmp_path / name, field="body"))
    assert all(isinstance(row, BadDocument) for row in open_documents(tmp_path / name, field="body", skip_bad=True))


# ── separators ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    st.lists(st.text("ab|\n", min_size=1).filter(str.strip), min_size=1, max_size=8),
    st.sampled_from(["||", "\n", "|\n|"]),
)
def test_separators_part_a_text_as_split_does(tmp_path_factory, texts: list[str], separator: str) -> None:
    folder = tmp_path_factory.mktemp("t")
    content = separator.join([*texts, ""])
    expected = [piece for piece in content.split(separator) if piece.strip()]
    for name, line_end in (("unix.txt", "\n"), ("windows.txt", "\r\n")):
        (folder / name).write_bytes(content.replace("\n", line_end).encode())
        found = texts_of(open_documents(folder / name, separator=separator))
        assert [text.replace("\r\n", "\n") for text in found] == expected


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_separator_that_lies_across_two_chunks_is_found(tmp_path: Path, line_end: str) -> None:
    for shift in range(4):
        texts = ["x" * ((1 << 20) - 4 + shift), "y" * 10, "z" * 3_000_000]
        (tmp_path / "t.txt").write_bytes((line_end * 2).join(texts).encode())
        assert texts_of(open_documents(tmp_path / "t.txt", separator="\n\n")) == texts


def test_a_separator_that_occurs_nowhere_is_an_error_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_bytes(json_lines(["a row has no separator"]))
    with pytest.raises(BadInput, match=r"the separator '\\n\\n' does not occur in .*a\.txt"):
        next(iter(open_documents(tmp_path, separator="\n\n")))
    assert texts_of(open_documents(tmp_path / "b.jsonl", separator="\n\n")) == ["a row has no separator"]
    (tmp_path / "c.txt").write_text("three\n\nfour")
    assert texts_of(open_documents(tmp_path, separator="\n\n"))[0] == "one\ntwo\n", "one of its files has it"
    with pytest.raises(BadInput, match="separator of documents is empty"):
        open_documents(tmp_path, separator="")


# ── folders and patterns ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One document in each file that is read, called as it."""
    folder = tmp_path / "data"
    for name in ("b.jsonl", "sub/c.ndjson", "a.jsonl.gz", "sub/deep/d.md", "sub/README.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = name.encode() if name.endswith(".md") else json_lines([name])
        path.write_bytes(packed(content, name))
    for name in (".ipynb_checkpoints/b.jsonl", ".hidden.jsonl", ".DS_Store", "README.md", "e.pdf", "sub/f.zip"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not a document")
    return folder


def test_a_folder_is_its_files_by_name_and_says_what_it_leaves_out(folder: Path) -> None:
    source = open_documents(folder)
    assert texts_of(source) == ["a.jsonl.gz", "b.jsonl", "sub/README.md", "sub/c.ndjson", "sub/deep/d.md"]
    assert source.left_out == (".hidden.jsonl", ".ipynb_checkpoints/", "README.md", "e.pdf", "sub/f.zip")
    assert source.notes == [
        f"{folder}: 5 entries left out: .hidden.jsonl, .ipynb_checkpoints/, README.md, e.pdf and 1 more"
    ]
    assert [row.place.file for row in source] == texts_of(source)
    assert texts_of(open_documents(folder / "README.md")) == ["not a document"], "what is named is read"


@pytest.mark.parametrize(
    ("pattern", "expected", "name"),
    [
        ("*.jsonl*", ["a.jsonl.gz", "b.jsonl"], "data"),
        ("*/*.ndjson", ["sub/c.ndjson"], "data"),
        ("**/*.md", ["not a document", "sub/README.md", "sub/deep/d.md"], "data"),
        ("s?b", ["sub/README.md", "sub/c.ndjson", "sub/deep/d.md"], "data"),
        ("**", ["not a document", "a.jsonl.gz", "b.jsonl", "sub/README.md", "sub/c.ndjson", "sub/deep/d.md"], "data"),
        ("sub/[bc].ndjson", ["sub/c.ndjson"], "sub"),
        ("*/c.ndjson", ["sub/c.ndjson"], "c"),
    ],
)
def test_a_pattern_is_the_files_that_match(folder: Path, pattern: str, expected: list[str], name: str) -> None:
    source = open_documents(folder / pattern)
    assert texts_of(source) == expected and source.name == name


def test_links_are_followed_and_no_folder_is_read_twice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "g.jsonl").write_bytes(json_lines(["g"]))
    (folder / "link").symlink_to(tmp_path / "linked")
    (folder / "round").symlink_to(folder)
    (folder / "lost.jsonl").symlink_to(tmp_path / "nowhere")
    source = open_documents(folder)
    assert texts_of(source) == ["a.jsonl.gz", "b.jsonl", "g", "sub/README.md", "sub/c.ndjson", "sub/deep/d.md"]
    assert {"round/", "lost.jsonl"} <= set(source.left_out)


def test_what_cannot_be_documents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for reference, complaint in [
        (tmp_path / "a.pdf", r"end in \.jsonl"),
        (tmp_path, r"holds no file that ends in .*there is a\.pdf, pipe\.jsonl"),
        (tmp_path / "*.jsonl", "holds no file"),
        (tmp_path / "*.txt", "no file matches"),
        (tmp_path / "pipe.jsonl", "a pipe or a device"),
        ("/dev/null", "a pipe or a device"),
        ("x" * 5000 + ".jsonl", "no documents at"),
    ]:
        with pytest.raises(BadInput, match=complaint):
            open_documents(reference)


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_config_and_split_of_a_data_set_reach_its_loader(tmp_path: Path) -> None:
    """The loader is the real one, on a folder: what stands on the hub is such a folder."""
    for config in ("main", "other"):
        for split in ("train", "validation"):
            path = tmp_path / config / f"{split}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(json_lines([f"{config} {split}"]))
    files = "".join(
        f"- config_name: {config}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {config}/{split}.jsonl\n" for split in ("train", "validation"))
        for config in ("main", "other")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    for reference, expected in [
        ("x:main", "main train"),
        ("x:other:split=validation", "other validation"),
        ("x:config=other:split=validation@v1", "other validation"),
    ]:
        parsed = HubReference.parse(reference)
        assert parsed is not None
        here = HubReference(str(tmp_path), parsed.config, None, parsed.split)
        assert [row["text"] for row in open_hub(here, "train")] == [expected]


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("owner/name", ("owner/name", None, None, None)),
        ("owner/name:split=validation", ("owner/name", None, None, "validation")),
        ("owner/name:main:split=test@v1", ("owner/name", "main", "v1", "test")),
        ("owner/name:config=main@refs/pr/1", ("owner/name", "main", "refs/pr/1", None)),
    ],
)
def test_a_reference_to_the_hub_is_read_and_written_alike(reference: str, parts: tuple[str | None, ...]) -> None:
    parsed = HubReference.parse(reference)
    assert parsed == HubReference(*parts) and HubReference.parse(str(parsed)) == parsed
    assert open_documents(reference).name.startswith("name")


@pytest.mark.parametrize(
    "reference", ["owner/name:split=", "owner/name:split=train[:10]", "owner/name:a:b", "owner/na me"]
)
def test_what_is_no_reference_to_the_hub_is_refused(reference: str) -> None:
    with pytest.raises(BadInput, match=r"no documents at|no file matches"):
        open_documents(reference)
