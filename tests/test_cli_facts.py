"""The verbs about facts, as a user types them."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workings.cli import main
from workings.packing import PACKINGS, packed


def run(*words: str) -> int:
    return main(["facts", *words])


@pytest.fixture
def typed(monkeypatch):
    """Sets what standard input holds."""

    def type_(text: str | bytes) -> None:
        raw = text.encode() if isinstance(text, str) else text
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))

    return type_


def test_the_table_lists_ids_tokens_and_equations(capsys):
    assert run("table") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[38].split() == ["50342", "<MUL_6_9_54>", "6*9=54"] and len(lines) == 46
    assert "width 50349, padded to 50432" in lines[-1] and "1155" in lines[-1]
    assert run("table", "--facts", "ADD:0-1,SQUARE:2-2", "--base-size", "100", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in table["facts"]] == [128, 129, 130, 131] and table["facts"][3]["equation"] == "2^2=4"


def test_standard_input_goes_to_standard_output(typed, capsys):
    typed("She pays 6 * 9 = $54.\r\nA 2x4.")
    assert run("rewrite", "-") == 0
    out, err = capsys.readouterr()
    assert out == "She pays $<MUL_6_9_54>.\r\nA 2x4." and err == "rewritten 1; kept 1 (no result 1)\n"
    typed(out)
    assert run("expand", "-") == 0
    assert capsys.readouterr().out == "She pays 6*9=$54.\r\nA 2x4."


def test_mode_and_facts_are_chosen(typed, capsys):
    for options, expected in [
        (["--mode", "weak"], "<MUL_6_9_54>; 2+3=5; 1.5*3"),
        (["--mode", "legacy-weak"], "<MUL_6_9_54>; 2+3=5; 1.<MUL_3_5_15>"),
        (["--facts", "ADD:0-9"], "6*9; <ADD_2_3_5>; 1.5*3"),
    ]:
        typed("6*9; 2+3=5; 1.5*3")
        assert run("rewrite", "-", "--quiet", *options) == 0
        assert capsys.readouterr() == (expected, "")


def test_json_lines_change_only_in_their_fields(tmp_path, capsys):
    lines = [
        '{"question": "6*9=54",  "answer": "2*3=6 \u2028 \\ud800", "n": 1}',
        "",
        '{"question": "none", "answer":   "é"}',
    ]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    assert run("rewrite", str(file), "--field", "answer") == 0
    out = capsys.readouterr().out.split("\n")
    assert json.loads(out[0]) == json.loads(lines[0]) | {"answer": "<MUL_2_3_6> \u2028 \ud800"}
    assert out[1:] == lines[1:], "what does not change keeps its spelling"
    assert run("rewrite", str(file), "--field", "answer", "question", "--quiet") == 0
    assert json.loads(capsys.readouterr().out.split("\n")[0])["question"] == "<MUL_6_9_54>"


def test_a_folder_goes_into_another_or_over_itself(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("6*9=54")
    (folder / "b.bin").write_text("6*9=54")
    (folder / "deep" / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "2*3=6"}\n'))
    assert run("rewrite", str(folder)) == 2 and "--in-place" in capsys.readouterr().err
    assert run("rewrite", str(folder), "--out", str(out), "--quiet") == 0
    assert sorted(str(file.relative_to(out)) for file in out.rglob("*.*")) == ["a.txt", "deep/c.jsonl.gz"]
    assert (out / "a.txt").read_text() == "<MUL_6_9_54>" and (folder / "a.txt").read_text() == "6*9=54"
    assert gzip.decompress((out / "deep" / "c.jsonl.gz").read_bytes()) == b'{"text": "<MUL_2_3_6>"}\n'
    assert run("expand", str(out), "--in-place") == 0
    assert (out / "a.txt").read_text() == "6*9=54" and (folder / "b.bin").read_text() == "6*9=54"


def test_one_file_goes_to_a_file_or_into_a_folder(tmp_path):
    file = tmp_path / "a.md"
    file.write_text("6*9=54")
    assert run("rewrite", str(file), "--out", str(tmp_path / "new" / "b.md"), "--quiet") == 0
    assert (tmp_path / "new" / "b.md").read_text() == "<MUL_6_9_54>"
    assert run("rewrite", str(file), "--out", str(tmp_path / "new"), "--quiet") == 0
    assert (tmp_path / "new" / "a.md").read_text() == "<MUL_6_9_54>"


def test_the_report_names_every_candidate(tmp_path, typed):
    typed('{"text": "6*9=54 and 6*9=55"}\n')
    report = tmp_path / "report.jsonl"
    assert run("rewrite", "-", "--field", "text", "--report", str(report), "--quiet") == 0
    first, second = map(json.loads, report.read_text().splitlines())
    assert first == {
        "from": "-, line 1, text",
        "span": [0, 6],
        "text": "6*9=54",
        "action": "rewritten",
        "reason": "",
        "token": "<MUL_6_9_54>",
    }
    assert second["action"] == "kept" and second["reason"] == "wrong result" and second["token"] is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"text": "a"}\n{"text": ', "line 2: not JSON"),
        ('{"text": "a"}\n[1]', "line 2: not a JSON object"),
        ('{"answer": "a"}', "line 1: no text in field 'text'; it has 'answer' (--field)"),
        ('{"text": 5}', "line 1: no text in field 'text'"),
        (b'{"text": "\xff"}', "not UTF-8"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_written(tmp_path, capsys, content, complaint):
    file, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run("rewrite", str(file), "--out", str(out)) == 2
    assert complaint in capsys.readouterr().err and not out.exists()


def test_what_cannot_be_meant_is_refused(tmp_path, capsys):
    file = tmp_path / "a.txt"
    file.write_text("6*9=54")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.txt.gz").write_bytes(gzip.compress(b"6*9=54")[:-9])
    for words, complaint in [
        (["rewrite", "/no/where"], "no such file or folder"),
        (["rewrite", str(tmp_path / "empty")], "holds no file that ends in .txt"),
        (["rewrite", str(tmp_path / "broken.txt.gz")], "cannot be read"),
        (["rewrite", str(file), "--out", str(file)], "--in-place"),
        (["rewrite", str(file), "--out", "x", "--in-place"], "leave out --out"),
        (["rewrite", "-", "--in-place"], "standard input"),
        (["rewrite", str(file), str(file), "--out", str(tmp_path / "out")], "two files"),
        (["rewrite", str(file), "--facts", "MUL"], "not a range"),
        (["rewrite", str(file), "--mode", "strickt"], "--mode must be"),
        (["expand", str(file), "--out", "/dev/null/x"], "cannot write"),
    ]:
        assert run(*words) == 2, words
        assert complaint in capsys.readouterr().err
    assert file.read_text() == "6*9=54"


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("packing", ["", *PACKINGS])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", MARK + b"6*9=54\r\n6*9=54", b"<MUL_6_9_54>\r\n<MUL_6_9_54>"),
        ("a.md", "é 6*9=54".encode(), "é <MUL_6_9_54>".encode()),
        ("a.ndjson", MARK + b'{"text": "6*9=54"}\n' * 2, b'{"text": "<MUL_6_9_54>"}\n' * 2),
        ("a.jsonl", (MARK + b'{"text": "6*9=54"}\n') * 2, b'{"text": "<MUL_6_9_54>"}\n' * 2),
    ],
)
def test_a_byte_order_mark_hides_nothing_in_any_kind_of_file(
    tmp_path: Path, name: str, content: bytes, expected: bytes, packing: str
) -> None:
    file = tmp_path / (name + packing)
    file.write_bytes(packed(content, file.name))
    assert run("rewrite", str(file), "--in-place", "--quiet") == 0
    assert file.read_bytes() == packed(expected, file.name)


def test_what_a_folder_or_a_pattern_leaves_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.txt", "b.csv", "deep/c.md", ".git/d.txt", ".e.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("6*9=54")
    assert run("rewrite", str(folder), "--out", str(out)) == 0
    assert f"note: {folder}: 3 entries left out: .e.txt, .git/, b.csv\n" in capsys.readouterr().err
    assert run("rewrite", str(folder / "**/*.md"), str(folder / "a.t?t"), "--out", str(out), "--quiet") == 0
    found = {str(file.relative_to(out)): file.read_text() for file in out.rglob("*.*")}
    assert found == dict.fromkeys(("a.txt", "deep/c.md"), "<MUL_6_9_54>")


def test_in_place_a_file_stays_what_it_was(tmp_path: Path) -> None:
    """Mode, owner, time of what does not change, symbolic and hard links; nothing is left beside it."""
    file, same, other, link = (tmp_path / name for name in ("a.txt", "hard.txt", "plain.txt", "link.txt"))
    file.write_text("6*9=54.\n" * 3)
    other.write_text("nothing to do")
    os.link(file, same)
    link.symlink_to(file)
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    os.utime(other, (1, 1))
    before = file.stat()
    assert run("rewrite", str(tmp_path), "--in-place", "--mode", "legacy-weak", "--quiet") == 0
    assert file.read_text() == same.read_text() == link.read_text() == "<MUL_6_9_54>.\n" * 3
    after = file.stat()
    assert link.is_symlink() and after.st_ino == same.stat().st_ino
    assert [after.st_mode, after.st_uid, after.st_gid] == [before.st_mode, before.st_uid, before.st_gid]
    assert other.stat().st_mtime == 1
    same.unlink()
    assert run("expand", str(link), "--in-place") == 0
    after = file.stat()
    assert [after.st_mode, after.st_uid, after.st_gid] == [before.st_mode, before.st_uid, before.st_gid]
    assert link.is_symlink() and link.read_text() == "6*9=54.\n" * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "link.txt", "plain.txt"]


def test_write_protected_files_are_refused_before_any_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("6*9=54")
    (tmp_path / "b.txt").chmod(0o444)
    assert run("rewrite", str(tmp_path), "--in-place") == 2
    assert "b.txt is write-protected" in capsys.readouterr().err
    assert run("rewrite", str(tmp_path / "a.txt"), "--out", str(tmp_path / "b.txt")) == 2
    assert [file.read_text() for file in sorted(tmp_path.glob("*.txt"))] == ["6*9=54", "6*9=54"]


def test_a_device_is_written_into_and_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.txt"
    file.write_text("6*9=54")
    assert run("rewrite", str(file), "--out", "/dev/null", "--report", "/dev/null", "--quiet") == 0
    assert run("rewrite", str(file), "--out", "/dev/full") == 1
    assert "the disk is full at /dev/full" in capsys.readouterr().err
    assert not Path("/dev/null").is_file() and not Path("/dev/full").is_file()


def test_text_is_utf8_whatever_the_locale_says() -> None:
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "workings", "facts", "rewrite", "-"]
    done = subprocess.run(
        words, input="é 6*9=54 汉".encode(), env=os.environ | locale, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "é <MUL_6_9_54> 汉".encode()), done.stderr
