"""A report says what it was given: all of it, escaped, with intervals, and without asking the network for anything."""

from __future__ import annotations

import base64
import csv
import hashlib
import math
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from workings.errors import BadInput
from workings.report import (
    Axis,
    Badge,
    Column,
    Conclusion,
    ControlRow,
    Curves,
    Estimate,
    Fold,
    Guess,
    HeatMap,
    Intervals,
    Panel,
    Properties,
    Provenance,
    Reading,
    ReadingGrid,
    Report,
    Row,
    Samples,
    Series,
    Stat,
    Table,
    Text,
    write_report,
)
from workings.report.figures import colour, ink_on, round_ends, ticks
from workings.report.markdown import escaped, fenced
from workings.report.sections import BadgeKind, ConclusionKind
from workings.report.wording import SIGNS, interval, notes, number, pieces, printable, probability, visible

LAYERS = ("embed", "block1", "final_norm")
POSITIONS = ("bot", "t1", "t2")
NASTY = (
    "<script>alert(1)</script>",
    "<|endoftext|>",
    "<img src=x onerror=alert(1)>",
    "\n",
    "\x00\x1b[31m",
    "\ud83d",
    " 54",
    "  ",
    "\"'&amp;",
    "",
    "a" * 500,
    "`|*_$",
    "\u202eevil",
    "שלום",
    "]]>{{ 7*7 }}{% raw %}",
    "\uffff\x85\u2028",
)
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """The page as a browser would take it apart: elements, attributes, text; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.text.append(data)
            if {"td", "th"} & set(self.open) and "svg" not in self.open:
                self.tables[-1][-1][-1] += f"{data} "


def grid(tokens=NASTY, text="How many?") -> ReadingGrid:
    def reading(at: int) -> Reading:
        guesses = [Guess(tokens[(at + k) % len(tokens)], 0.5 / 2**k, is_target=k == at % 7) for k in range(5)]
        return Reading(guesses, target_rank=1233, target_probability=0.0004)

    cells = [[reading(3 * i + j) for j in range(3)] for i in range(3)]
    return ReadingGrid(text, text, text, text, False, LAYERS, POSITIONS, cells, targets=(" 54", None, tokens[0]))


def table() -> Table:
    rows = [
        Row("tuned lens", [Estimate(0.612, 0.582, 0.642), Estimate(1.281, 1.25, 1.31), "best", 0.0001], n=1234),
        Row("majority", [Estimate(0.183, 0.159, 0.207), Estimate(math.nan), "flat", 0.25], n=1234, note="per position"),
        Row("untrained", [Estimate(0.21), None, "", math.nan]),
    ]
    columns = [Column("top-1", "share"), Column("loss", "nats"), Column("kind"), Column("p", "p")]
    return Table("Controls", columns, rows, "Caption.", highlight="tuned lens", drawn="top-1")


def heat_map() -> HeatMap:
    values = [[None, 0.08, 0.1], [0.168, 0.196, math.nan], [0.343, 0.929, 0.777]]
    lows = [[None, 0.06, 0.09], [0.15, 0.18, None], [0.31, 0.9, 0.75]]
    highs = [[None, 0.1, 0.11], [0.19, 0.22, None], [0.37, 0.95, 0.8]]
    controls = [ControlRow("majority", [0.095, 0.17, 0.235])]
    differs = [[False, False, False], [True, False, False], [True, True, True]]
    return HeatMap(
        "By layer", LAYERS, POSITIONS, values, 1000, lows, highs, differs=differs, control="majority", controls=controls
    )


def curves() -> Curves:
    x = [1.0, 2.0, 3.0]
    series = [
        Series("train", x, [3.0, 2.0, 1.5]),
        Series("validation", x, [3.1, 2.2, math.nan], [3.0, 2.1, None], [3.2, 2.3, None]),
        Series("shuffled", x, [4.0, 4.0, 3.9], control=True),
    ]
    return Curves("Fit", Axis("epoch"), Axis("loss", "nats"), series, chosen=2.0)


def answers(text: str) -> Table:
    """A table of words, as a report begins with."""
    rows = [
        Row("step 1", [Badge(text, "in part", text), Badge("no", "no")], 410, text),
        Row("step 2", [Badge("yes", "yes"), Badge("not asked", "not asked")], 388),
    ]
    return Table(text, [Column("read"), Column("used")], rows, text, rows_are="target", highlight="step 2")


def intervals(text: str = "Gains") -> Intervals:
    points = [
        [Estimate(0.033, 0.005, 0.061), Estimate(0.17, 0.1, 0.237)],
        [Estimate(-0.004, -0.022, 0.014), Estimate(None)],
    ]
    bits = [[Estimate(0.15, 0.1, 0.2), Estimate(0.42, 0.3, 0.55)], [Estimate(0.03, -0.01, 0.06), Estimate(math.nan)]]
    panels = [Panel("gain", "points", points, {"worth having": 0.05}), Panel("gain", "bits", bits)]
    return Intervals(text, ["step 2", "step 1"], [text, "over the control"], panels, text, ["over the control"])


def report(text: str = "What is it?", tokens=NASTY) -> Report:
    return Report(
        title=text,
        question=text,
        conclusion=Conclusion(text, "read in part"),
        sections=[
            table(),
            heat_map(),
            curves(),
            Samples("Samples", [grid(tokens, text)] * 2),
            Text("Notes", text),
            answers(text),
            intervals(text),
            Fold("Step 1", [table(), curves(), heat_map(), Text(text, text)], text),
        ],
        provenance=Provenance([text], {text: text}, {"torch": text}, [text], when=text),
        headline=[Stat(text, Estimate(0.304, 0.279, 0.329), "points", text)],
        warnings=[text],
        properties=[Properties(text, {text: text})],
        limits=[text],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_report(report(), tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def html(folder) -> str:
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def markdown(folder) -> str:
    return (folder / "report.md").read_text()


def test_a_token_is_shown_and_never_obeyed(html, page):
    assert len(page.scripts) == 1
    assert "img" not in {tag for tag, _ in page.elements}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "<|endoftext|>" in page.text
    for forbidden in ("<script>alert", "<img", "\x00", "\x1b", "\u202e", "\uffff"):
        assert forbidden not in html


def test_every_string_of_a_report_is_escaped(tmp_path):
    everything = " ".join(NASTY)
    parsed = Page(write_report(report(everything), tmp_path).read_text())
    assert len(parsed.scripts) == 1
    assert {tag for tag, _ in parsed.elements} >= {"h1", "h2", "dd", "li", "pre", "article"}
    assert "img" not in {tag for tag, _ in parsed.elements}
    text = "".join(parsed.text)
    assert text.count(printable(everything)) > 10
    assert "onerror" not in {name for _, attributes in parsed.elements for name in attributes}


def test_only_the_script_of_the_template_may_run(page):
    policy = next(given["content"] for _, given in page.elements if "http-equiv" in given)
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_the_page_asks_the_network_for_nothing(html, page, folder):
    assert "://" not in html
    assert set(re.findall(r"url\(.", html)) <= {"url(#"}
    links = [given[name] for _, given in page.elements for name in ("src", "href") if name in given]
    assert {link for link in links if not link.startswith("#") and not (folder / link).is_file()} == set()
    inside = {given["id"] for _, given in page.elements if "id" in given}
    assert {link[1:] for link in links if link.startswith("#")} <= inside


def test_no_id_is_used_twice(page):
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))


def test_the_page_is_made_for_screen_readers_and_keyboards(page):
    tags = [tag for tag, _ in page.elements]
    assert ("html", {"lang": "en"}) in page.elements
    assert tags.count("h1") == 1
    assert "title" in tags
    assert all(given.get("scope") in ("row", "col") for tag, given in page.elements if tag == "th")
    labels = {given["for"] for tag, given in page.elements if tag == "label"}
    assert labels == {given["id"] for tag, given in page.elements if tag in ("select", "input", "button")} != set()
    assert all("aria-label" in given for _, given in page.elements if given.get("role") in ("region", "img"))


def test_every_number_of_the_page_is_in_the_markdown_too(page, markdown):
    numbers = {
        word for rows in page.tables for row in rows for cell in row for word in re.findall(r"\d[\d.,]*\d", cell)
    }
    assert len(numbers) > 40
    assert {word for word in numbers if word not in markdown} == set()


def test_the_verdict_stands_first_with_its_kind_in_words(page, markdown):
    text = " ".join("".join(page.text).split())
    assert text.index("read in part") < text.index("Controls")
    assert "**Verdict: read in part.**" in markdown


def test_a_number_that_is_not_known_is_a_dash(page, markdown, folder):
    cells = [cell.split() for rows in page.tables for row in rows for cell in row]
    assert ["–", "[–]"] in cells
    assert ["–"] in cells
    assert ["21.0", "[–]"] in cells
    written = "".join(page.text) + markdown + "".join(path.read_text() for path in folder.glob("figures/*.csv"))
    assert not re.search(r"\b(nan|NaN|None)\b", written)


def test_data_stand_beside_every_figure(folder):
    figures = {path.stem for path in folder.glob("figures/*.svg")}
    on_top = {"01-controls", "02-by-layer", "03-fit", "07-what-is-it"}
    assert figures == on_top | {"08-01-step-1-controls", "08-02-step-1-fit", "08-03-step-1-by-layer"}
    assert figures <= {path.stem for path in folder.glob("figures/*.csv")}
    with (folder / "figures/02-by-layer.csv").open() as lines:
        rows = {(row["layer"], row["position"]): row for row in csv.DictReader(lines)}
    cell = rows["final_norm", "t1"]
    assert [cell[name] for name in ("value", "low", "high", "n", "differs")] == ["0.929", "0.9", "0.95", "1000", "True"]
    assert rows["embed", "bot"]["value"] == ""
    assert rows["majority", "t2"]["value"] == "0.235"


def test_the_same_data_give_the_same_bytes(folder, tmp_path):
    again = write_report(report(), tmp_path).parent
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [path for path in files if (folder / path).read_bytes() != (again / path).read_bytes()] == []


def test_a_report_on_a_deep_model_stays_small(tmp_path):
    layers = [f"block{at}" for at in range(31)]
    positions = ["bot", *(f"t{at}" for at in range(1, 7))]
    cells = [[Reading([Guess(" 54", 0.2)] * 5, 40, 0.001) for _ in positions] for _ in layers]
    grids = [ReadingGrid("q " * 100, "c", "1", "2", False, layers, positions, cells)] * 8
    values = [[0.5] * 7 for _ in layers]
    steps = [float(step) for step in range(20_000)]
    loss = Series("loss", steps, [3 / (1 + step) + 0.1 * math.sin(step) for step in steps])
    sections = [
        HeatMap("Deep", layers, positions, values, 1000, values, values),
        Samples("Many", grids),
        Curves("Long", Axis("step"), Axis("loss"), [loss]),
    ]
    path = write_report(replace(report(), sections=sections), tmp_path)
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("beneath", ["", "deeper/still"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, beneath):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(BadInput, match=r"cannot write to .*taken"):
        write_report(report(), tmp_path / "taken" / beneath)
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_full_disk_is_a_failure_and_leaves_no_page(tmp_path):
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_report import report
from workings.errors import Failed
from workings.report import write_report
made = report()
import matplotlib.figure  # its font cache is not what runs out of room here
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    write_report(made, {str(tmp_path)!r})
except Failed as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "free some space" in said.stdout, said.stderr
    assert not (tmp_path / "report.html").exists()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 3000] == []


def test_matplotlib_is_not_imported_before_something_is_drawn():
    program = "import sys, workings.report; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_a_section_whose_parts_do_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="row 'a': 1 cells for 2 columns"):
        Table("T", [Column("x"), Column("y")], [Row("a", ["1"])])
    with pytest.raises(ValueError, match="highlight names the row 'b'"):
        Table("T", [Column("x")], [Row("a", ["1"])], highlight="b")
    with pytest.raises(ValueError, match="has no column 'z'"):
        Table("T", [Column("x")], [Row("a", ["1"])], drawn="z")
    with pytest.raises(ValueError, match="row 'embed': 2 lows for 3 columns"):
        replace(heat_map(), lows=[[0.1, 0.2]] * 3)
    with pytest.raises(ValueError, match="3 y for 2 x"):
        Series("s", [1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="2 cells for 3 layers"):
        replace(grid(), cells=grid().cells[:2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        Guess("x", 1.2)


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.937, "share", "93.7"),
        (0.0, "share", "0.0"),
        (-0.0004, "points", "0.0"),
        (0.304, "points", "+30.4"),
        (-0.0931, "points", "−9.3"),
        (2.726, "bits", "2.73"),
        (1319, "count", "1,319"),
        (0.00004, "p", "<0.001"),
        (0.27, "p", "0.270"),
        (math.inf, "nats", "∞"),
        (math.nan, "share", "–"),
        (None, "share", "–"),
    ],
)
def test_a_number_is_shown_in_its_unit(value, unit, shown):
    assert number(value, unit) == shown


def test_an_interval_with_one_open_end_says_so():
    assert interval(None, None, "share") == "[–]"
    assert interval(0.1, None, "share") == "[10.0, –]"


@pytest.mark.parametrize(
    ("share", "shown"), [(0.934, ".93"), (0.9999, "1.0"), (1.0, "1.0"), (0.0001, "<.01"), (0.005, ".01")]
)
def test_a_probability_has_two_figures(share, shown):
    assert probability(share) == shown


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" 54", "·54"),
        ("\n", "\\n"),
        ("\x00", "\\x00"),
        ("\ud83d", "\\ud83d"),
        ("", "(empty)"),
        ("a" * 30, "a" * 17 + "…"),
    ],
)
def test_a_token_shows_what_cannot_be_seen(token, shown):
    assert visible(token) == shown


@given(st.text(st.characters(), max_size=40))
def test_whatever_the_token_its_shown_form_is_printable_and_can_be_written(token):
    shown = visible(token)
    assert shown.encode()
    assert shown.isprintable()
    assert [text for text, is_mark in pieces(token) if not is_mark and " " in text] == []
    assert printable(printable(token)) == printable(token)


@given(st.text(st.characters(), max_size=60))
def test_nothing_closes_a_code_block_from_inside(text):
    first, *inside, last = fenced(text).split("\n")
    assert first == last
    assert all(first not in line for line in inside)


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
markup = st.text(st.sampled_from("ab1 \n\\`<>|$*_~[](){}#+-=!.&;:/\"'"), max_size=60) | st.text(
    st.characters(), max_size=60
)


@given(markup)
def test_markdown_finds_no_markup_in_text(text):
    for given_text in (text, f"Some words, then {text}"):
        tokens = MARKDOWN.parse(escaped(given_text))
        assert {token.type for token in tokens} <= {"paragraph_open", "paragraph_close", "inline"}
        inside = [one for token in tokens for one in token.children or []]
        assert {one.type for one in inside} <= {"text", "code_inline", "softbreak"}
        shown = "".join(one.content for one in inside)
        assert "".join(shown.split()) == "".join(printable(given_text).split())


def test_text_with_signs_reads_well_in_a_terminal_too():
    assert escaped("1. a\n# b\n- c") == "`1.` a\n`#` b\n`-` c"
    assert escaped("it cost $5 <b>, 6 * 9, a|b (or [x](y)) in final_norm") == (
        "it cost `$5 <b>`, 6 * 9, a|b (or `[x](y)`) in final_norm"
    )
    assert escaped("61.2 % [58.2, 64.2]: <<6*9=54>> <<54+1=55>>.") == "61.2 % [58.2, 64.2]: `<<6*9=54>> <<54+1=55>>`."


def test_no_backslash_is_in_the_markdown_but_those_of_the_text(markdown, tmp_path):
    assert "\\" not in re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    everything = write_report(report("a|b *c* [−0.59, −0.41]: $5 <d>"), tmp_path).with_suffix(".md").read_text()
    outside = re.sub(r"```.*?```", "", everything, flags=re.DOTALL)
    assert set(re.findall(r"\\.", outside)) == {"\\|"}  # in cells of tables, where a bar alone would end the cell


def linear(hex_colour: str) -> list[float]:
    parts = [int(hex_colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def oklab(hex_colour: str) -> tuple[float, float, float]:
    """`#rrggbb` as (lightness from 0 to 1, green-red, blue-yellow): Ottosson 2020."""
    r, g, b = linear(hex_colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def palette(scale: str, n: int) -> list[str]:
    return [colour(step / (n - 1), scale) for step in range(n)]


@pytest.mark.parametrize("scale", ["sequential", "diverging"])
def test_the_steps_of_a_colour_scale_look_equally_large(scale):
    steps = [math.dist(oklab(a), oklab(b)) for a, b in pairwise(palette(scale, 33))]
    assert max(steps) < 1.35 * min(steps)


def test_lightness_alone_orders_the_sequential_scale():
    light = [oklab(each)[0] for each in palette("sequential", 33)]
    assert light == sorted(light, reverse=True)
    assert light[0] - light[-1] > 0.55


def test_the_diverging_scale_is_palest_in_the_middle_and_even_on_both_sides():
    light = [oklab(each)[0] for each in palette("diverging", 33)]
    assert light.index(max(light)) in (15, 16, 17)
    assert all(abs(low - high) < 0.08 for low, high in zip(light[:16], reversed(light[17:]), strict=True))


@given(st.floats(0, 1), st.sampled_from(["sequential", "diverging"]))
def test_the_number_in_a_cell_can_be_read_on_its_colour(fraction, scale):
    background = colour(fraction, scale)
    ink = ink_on(background)
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(background), strict=True))
    assert (1.05 / (luminance + 0.05) if ink == "#ffffff" else (luminance + 0.05) / 0.05) >= 4.5


@given(st.floats(1e-6, 1e6), st.booleans())
def test_an_axis_ends_at_round_numbers_not_far_beyond_the_data(value, is_negative):
    ends = round_ends([0.0, -value if is_negative else value])
    near, far = sorted(map(abs, ends))
    assert near == 0
    assert value * (1 - 1e-6) <= far <= 2 * value
    low, high = round_ends([-value, value])
    assert math.isclose(low, -high)
    assert value * (1 - 1e-6) <= high <= 2 * value
    assert set(ends) <= set(ticks(ends))


@given(st.floats(-1000, 1000), st.floats(0.001, 1000))
def test_ticks_lie_on_the_axis(low, width):
    marks = ticks((low, low + width))
    assert 2 <= len(marks) <= 8
    assert all(low - 1e-6 * width <= mark <= low + width * (1 + 1e-6) for mark in marks)


def test_a_report_takes_numbers_from_numpy(tmp_path):
    import numpy as np

    values = np.asarray(heat_map().values, dtype=np.float32)
    section = HeatMap("N", LAYERS, POSITIONS, values.tolist(), np.int64(7), values, values, differs=values > 0.2)
    path = write_report(replace(report(), sections=[section]), tmp_path)
    assert "92.9" in path.read_text()
    assert "nan" not in (tmp_path / "figures/01-n.csv").read_text()


def test_a_drawn_column_of_nothing_but_zeros_is_drawn(tmp_path):
    table = Table(
        "No difference",
        [Column("difference", "points")],
        [Row("1 step", [Estimate(0.0, 0.0, 0.0)], 10)],
        drawn="difference",
    )
    report = Report("t", "q?", Conclusion("Nothing.", "undecided"), [table], Provenance(["run"]))
    assert "No difference" in write_report(report, tmp_path).read_text()


def test_a_report_leaves_no_figures_of_the_one_before(tmp_path):
    section = lambda title: Table(title, [Column("share", "share")], [Row("a", [0.5], 3)])
    report = lambda *titles: Report(
        "t", "q?", Conclusion("Yes.", "holds"), [section(t) for t in titles], Provenance(["run"])
    )
    write_report(report("one", "two"), tmp_path)
    (tmp_path / "figures" / "mine.txt").write_text("kept")
    write_report(report("three"), tmp_path)
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["01-three.csv", "mine.txt"]


def test_a_figure_in_the_page_takes_the_colours_of_its_style_sheet(html, folder):
    svg = html[html.index("<svg", html.index('<figure class="curves">')) : html.index("</figure>")]
    assert "var(--ink)" in svg and "var(--series0, #0072b2)" in svg
    assert "#1d232b" not in svg and "prefers-color-scheme: dark" in html
    assert "var(" not in (folder / "figures/03-fit.svg").read_text()


def test_sections_whose_titles_begin_alike_share_a_heading_in_the_contents(tmp_path):
    titles = ("Step 1", "Step 1: by layer", "Step 1: by position", "Costs", "Step 2: by layer")
    sections = [Text(title, "words") for title in titles]
    page = Page(write_report(replace(report(), sections=sections), tmp_path).read_text())
    contents = "".join(page.text).split("What was run")[0].splitlines()
    assert [line for line in contents if line in titles] == ["Costs", "Step 2: by layer"]
    assert "Step 1: overview · by layer · by position" in contents


def test_a_fold_is_one_entry_of_the_contents_and_one_chapter(page, markdown):
    contents = "".join(page.text).split("What was run")[0].splitlines()
    assert contents.count("Step 1") == 1
    links = {given["href"]: None for tag, given in page.elements if tag == "a" and "href" in given}
    assert "#08-step-1" in links and "#08-01-step-1-controls" not in links
    headings = re.findall(r"(?m)^#+ .*", markdown)
    chapter = headings[headings.index("## Step 1") :]
    assert chapter[1:5] == ["### Controls", "### Fit", "### By layer", "### What is it?"]
    assert "<details" not in markdown


def test_what_is_folded_away_is_closed_and_its_anchor_lies_inside(html):
    opened = re.search(r'<details class="fold"><summary>.*?</summary>\s*<div id="08-step-1"', html, re.DOTALL)
    assert opened and "open" not in opened[0].split(">")[0]
    assert html.index('id="08-01-step-1-controls"') > opened.end()


def test_a_table_of_answers_says_in_words_what_its_signs_say(page, markdown):
    cells = [" ".join(cell.split()) for rows in page.tables for row in rows for cell in row]
    assert "◐ What is it? What is it?" in cells and "● yes" in cells and "– not asked" in cells
    assert "● yes" in markdown and "◐ What is it? (What is it?)" in markdown


def test_every_kind_of_answer_has_a_sign():
    assert set(SIGNS) == {*get_args(BadgeKind), *get_args(ConclusionKind)}


def test_intervals_show_every_series_of_every_row(folder):
    with (folder / "figures/07-what-is-it.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 2 * 2 * 2
    assert [row["value"] for row in rows if row["target"] == "step 1"] == ["-0.004", "", "0.03", ""]
    svg = (folder / "figures/07-what-is-it.svg").read_text()
    assert {"step 1", "step 2", "over the control", "gain (points)", "gain (bits)"} <= set(
        re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    )


def test_the_notes_explain_the_units_that_a_report_uses():
    assert "Points are percentage points." in notes(report())
    only_text = replace(report(), sections=[Text("t", "words")], headline=[])
    assert "nat" not in notes(only_text) and "Brackets hold a 95 % interval" in notes(only_text)


def test_a_curve_of_shares_shows_nothing_below_zero_and_all_its_ends(tmp_path):
    n = 5000
    shares = Series("share", [float(at) for at in range(n)], [0.0] * n)
    write_report(replace(report(), sections=[Curves("Flat", Axis("step"), Axis("share"), [shares])]), tmp_path)
    svg = (tmp_path / "figures/01-flat.svg").read_text()
    written = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "0.00" in written and not [text for text in written if text.startswith(("−", "-"))]
    assert len((tmp_path / "figures/01-flat.csv").read_text().splitlines()) == n + 1
