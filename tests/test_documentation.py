"""What the documents say of the code is so: files, pictures and commands that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workings.cli import GROUPS, VERBS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "workings"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_map_names_every_module_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named, room = set(), ""
    for line in text.partition("## The map")[2].splitlines():
        if heading := re.match(r"### `([\w/]+?)/?`", line):
            room = heading[1].removeprefix("src/workings").strip("/")
        elif row := re.match(r"\| `(\w+\.py)` \|", line):
            named.add(f"{room}/{row[1]}".strip("/"))
    modules = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if not path.name.startswith("__")}
    assert named == modules


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:docs|benchmarks|src|tests)/[\w./-]+|[A-Z]+\.(?:md|cff))`", text)
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    places = [ROOT / name for name in named] + [document.parent / name for name in linked]
    # `docs/decisions/0005` stands for the one page whose name begins so
    missing = [place for place in places if not place.exists() and not list(place.parent.glob(f"{place.name}-*"))]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_that_a_document_names_are_verbs(document: Path) -> None:
    known = {*VERBS, *GROUPS}
    commands = re.findall(
        r"(?:^    |-m )workings ((?:[a-z][\w-]*)(?: [a-z][\w-]*)?)", document.read_text("utf-8"), re.M
    )
    assert not [words for words in commands if words not in known and words.partition(" ")[0] not in VERBS]
