"""A reference to problems is a file, a preset of the generator, or a hub id, and what is none of these is said so."""

from __future__ import annotations

import gzip

import polars as pl
import pytest

from workings.errors import BadInput
from workings.hub import hub_errors
from workings.progress import quietly
from workings.text.datasets import announce, load_problems, read_rows


def test_generated_problems_come_by_preset_and_seed():
    a, b = load_problems("generated:ring11", limit=20, seed=3), load_problems("generated:ring11", limit=20, seed=3)
    assert [p.id for p in a.problems] == [p.id for p in b.problems] and len(a.problems) == 20
    assert [p.id for p in load_problems("generated:ring11", limit=20, seed=4).problems] != [p.id for p in a.problems]


def test_generated_problems_to_train_on_share_no_structure_with_those_to_be_asked():
    parts = {
        split: load_problems("generated", split=split, limit=500).problems for split in ("train", "test", "validation")
    }
    structures = {split: {p.structure for p in problems} for split, problems in parts.items()}
    assert structures["train"].isdisjoint(structures["test"]) and parts["test"] == parts["validation"]


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(BadInput, match=r"no preset 'rings'.*ring11"):
        load_problems("generated:rings")


def test_a_file_is_read_by_its_content(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text('{"question": "How many?", "answer": "<<6*9=54>>54\\n#### 54"}\nnot json\n')
    read = load_problems(path)
    assert [p.answer for p in read.problems] == ["54"]
    assert [m.line for m in read.malformed] == [2]
    with pytest.raises(BadInput, match=r"some\.jsonl:2"):
        load_problems(path, strict=True)


@pytest.mark.parametrize("reference", ["/nowhere/at/all.jsonl", "missing.jsonl", "what is this"])
def test_a_missing_file_is_said_so(reference):
    with pytest.raises(BadInput, match="no such file"):
        load_problems(reference)


def test_a_hub_id_that_cannot_be_had_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadInput, match="is not a local path, and the hub cannot be reached"):
        load_problems("nobody/no-such-data-set")


def test_a_config_or_split_that_the_hub_has_not_is_said_in_one_line():
    complaint = r"'owner/data:nope' .* nothing usable of that name: Bad split: test\. Check"
    with pytest.raises(BadInput, match=complaint), hub_errors("owner/data:nope", unusable=(Exception,)):
        raise ValueError("Bad split: test\nTraceback of the library")


def test_packed_problems_and_rows_are_unpacked(tmp_path):
    row = b'{"question": "How many?", "answer": "<<6*9=54>>54\\n#### 54"}\n'
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(row))
    assert [p.answer for p in load_problems(tmp_path / "test.jsonl.gz").problems] == ["54"]
    assert [place for place, _ in read_rows(tmp_path, "test")] == [f"{tmp_path / 'test.jsonl.gz'}:1"]
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(row)[:-9])
    for read in (load_problems, lambda path: list(read_rows(path, "test"))):
        with pytest.raises(BadInput, match=r"test\.jsonl\.gz cannot be read"):
            read(tmp_path / "test.jsonl.gz")


def test_a_folder_has_a_file_for_each_split_in_parquet_too(tmp_path):
    rows = [{"question": f"{n} and 1?", "answer": f"<<{n}+1={n + 1}>>\n#### {n + 1}"} for n in range(3)]
    pl.DataFrame(rows[:2]).write_parquet(tmp_path / "test-00000-of-00001.parquet")
    pl.DataFrame(rows[2:]).write_parquet(tmp_path / "train-00000-of-00001.parquet")
    assert [p.answer for p in load_problems(tmp_path, split="test").problems] == ["1", "2"]
    assert [p.n_steps for p in load_problems(tmp_path, split="train").problems] == [1]
    assert list(read_rows(tmp_path, "train")) == [(f"{tmp_path}/train-00000-of-00001.parquet, row 1", rows[2])]
    with pytest.raises(BadInput, match="holds 0 JSON-lines or Parquet files for the split 'valid'"):
        load_problems(tmp_path, split="valid")
    (tmp_path / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    for read in (load_problems, lambda path: list(read_rows(path, "test"))):
        with pytest.raises(BadInput, match="is a damaged Parquet file"):
            read(tmp_path)


def test_fields_are_named_for_files_and_not_for_generated_problems(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"ask": "How many?", "gold": 54}\n')
    assert load_problems(path, fields=["question=ask", "answer=gold"]).problems[0].answer == "54"
    with pytest.raises(BadInput, match="generated problems have no fields to name"):
        load_problems("generated", fields=["question=ask"])


def test_what_was_read_is_said(tmp_path, capsys):
    path = tmp_path / "told.jsonl"
    path.write_text('{"question": "q?", "cot": "Six times 9. So 54.", "answer": "54 or 55"}\n' + "{\n" * 12)
    announce(load_problems(path))
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"left out: {path}:2: not JSON")
    assert said[10:] == [
        "left out: 12 of 13 rows in all are no problems",
        "0 of 1 problems have steps",
        "1 of 1 problems have a chain in words",
        "1 of 1 answers hold several numbers, of which one is read",
    ]
    with quietly():  # notes are not wanted, but without steps most of what follows is in vain
        announce(load_problems(path))
    assert capsys.readouterr().err.splitlines()[11:] == ["0 of 1 problems have steps"]


def test_the_real_gsm8k_reads_whole(shared_data):
    read = load_problems(shared_data / "gsm8k" / "test.jsonl")
    assert len(read.problems) == 1319 and not read.malformed
