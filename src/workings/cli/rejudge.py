"""The judge of published tables: no model, no data, only the numbers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from workings.cli.options import Printing, option, positional
from workings.errors import BadInput, suggestion
from workings.files import plain
from workings.judging.paired import PairedDifference, paired_difference
from workings.judging.published import (
    Claim,
    Judged,
    PublishedTable,
    VerdictWord,
    impossible_shares,
    rejudge,
    shares_of,
)
from workings.judging.published_files import HowToRead, read_published, read_samples
from workings.judging.statistics import p_in_words
from workings.judging.trivial_predictors import MAJORITY, STRUCTURE, read_targets, trivial_rows
from workings.report.wording import SIGNS, interval, number

SHIPPED = Path(__file__).parent.parent / "published"
_SIGN: dict[VerdictWord, str] = {
    "holds": SIGNS["holds"],
    "explained": SIGNS["explained by a control"],
    "fails": SIGNS["fails"],
    "undecided": SIGNS["undecided"],
    "not judged": SIGNS["not judged"],
}


@dataclass(frozen=True, kw_only=True)
class Rejudge(Printing):
    """Say what a published table shows, by its numbers alone.

    Intervals, tests, power, and a verdict on each conclusion. TABLE is CSV, Markdown, JSON (rows and claims, or a result of
    lm-evaluation-harness), a samples file (.jsonl), or the name of a table that comes with the package; without it those are
    listed. Shares are 12/500, 2.4% or 0.024.
    """

    table: str = positional("", help="published table: a file, or the name of one that comes with the package")
    against: str | None = option(None, "second samples file of lm-evaluation-harness, on the same documents")
    compare: tuple[str, ...] = option((), "two rows, or two columns, to compare: the new one, then the old one")
    same_items: bool = option(False, "the two that are compared were judged on the same items")
    n: int | None = option(None, "number of judged items, where the table does not say it", at_least=1)
    units: int | None = option(
        None, "independent units among them, where one problem was judged several times", at_least=1
    )
    measure: tuple[str, ...] = option((), "columns to judge; all that hold shares, by default")
    which: int | None = option(None, "which table of a Markdown file that holds several, from 1", at_least=1)
    targets: str | None = option(None, "table of the targets that were read (column target), for trivial predictors")
    margin: float | None = option(None, "smallest difference that would matter, as a fraction", above=0, at_most=1)

    def __call__(self) -> None:
        if not self.table:
            for name, about in shipped().items():
                print(f"{name:24}  {about.title}")
            return
        if self.against is not None:
            self._paired(Path(self.table), Path(self.against))
            return
        table, decimals = self._read()
        found = rejudge(table)
        doubtful = impossible_shares(table, decimals)
        if self.json:
            print(
                json.dumps(plain({"table": table, "claims": [_fields(one) for one in found], "impossible": doubtful}))
            )
            return
        print(in_lines(table, found, doubtful))

    def _read(self) -> tuple[PublishedTable, dict[str, int]]:
        known = shipped()
        if self.table in known:
            return known[self.table], {}
        path = Path(self.table).expanduser()
        if not path.exists():
            hint = suggestion(self.table, known) or f"; the tables that come with the package are {', '.join(known)}"
            raise BadInput(f"no table at {self.table}{hint}")
        table, decimals = read_published(path, HowToRead(self.n, self.units, self.measure, self.which))
        if self.targets is not None:
            table = _beside_trivial(table, Path(self.targets), self.margin)
        return (self._compared(table) if self.compare else table), decimals

    def _compared(self, table: PublishedTable) -> PublishedTable:
        """The table with two rows compared by every measure; or with two of its columns compared, row by row."""
        if len(self.compare) != 2:
            raise BadInput(f"--compare takes two rows or two columns, not {len(self.compare)}")
        new, old = self.compare
        measures = list(dict.fromkeys(row.measure for row in table.rows))
        if not {new, old} <= set(measures):
            claims = [self._claim((new, old), measure) for measure in measures]
            return replace(table, claims=tuple(claims))
        arms = [row for row in table.rows if row.measure in self.compare]
        rows = tuple(replace(row, name=f"{row.name}, {row.measure}", measure="") for row in arms)
        names = [row.name for row in table.rows if row.measure == new]
        return replace(
            table, rows=rows, claims=tuple(self._claim((f"{each}, {new}", f"{each}, {old}")) for each in names)
        )

    def _claim(self, names: tuple[str, str], measure: str = "") -> Claim:
        says = f"{names[0]} is better than {names[1]}"
        return Claim(says, "more", names, measure=measure, margin=self.margin, same_items=self.same_items)

    def _paired(self, one: Path, other: Path) -> None:
        """Two samples files on the same documents: paired by document."""
        a, b = read_samples(one), read_samples(other)
        shared = [key for key in a if key in b]
        if not shared:
            raise BadInput(f"{one} and {other} have no metric and filter in common")
        found = {}
        for key in shared:
            if a[key].keys() != b[key].keys() or any(a[key][doc][1] != b[key][doc][1] for doc in a[key]):
                raise BadInput(f"{one} and {other} did not judge the same documents: they cannot be paired")
            documents = list(a[key])
            found[" ".join(key)] = paired_difference(
                [b[key][doc][0] for doc in documents], [a[key][doc][0] for doc in documents]
            )
        if self.json:
            fields = ("treatment", "baseline", "difference", "interval", "p", "n_items")
            print(json.dumps(plain({name: {f: getattr(one, f) for f in fields} for name, one in found.items()})))
            return
        for name, difference in found.items():
            print(_paired_line(name, difference, (one.stem, other.stem)))


def shipped() -> dict[str, PublishedTable]:
    """The tables that come with the package, by name."""
    return {path.stem: read_published(path)[0] for path in sorted(SHIPPED.glob("*.json"))}


def _beside_trivial(table: PublishedTable, path: Path, margin: float | None) -> PublishedTable:
    """The table with what trivial predictors score on its targets, and each share as a claim to be above them."""
    rivals = trivial_rows(read_targets(path))
    names = {row.name for row in rivals}
    claims, of_measure = [], {}
    for row in table.rows:
        found = re.search(r"top[_ -]?(\d+)", row.measure.lower())
        measure = f"top-{found[1] if found else 1}"
        if not any(rival.measure == measure for rival in rivals):
            continue
        place = re.search(r"position (\S+)$", row.name)
        end = f" at position {place[1]}" if place else ""
        beside = tuple(name for name in (f"{MAJORITY}{end}", f"{STRUCTURE}{end}") if name in names)
        if beside:
            of_measure[row.measure] = measure
            claims.append(Claim(f"{row.name}: read", "share", (row.name,), beside, row.measure, margin))
    if not claims:
        raise BadInput(
            f"no row of the table is about the targets in {path}: name rows 'position 0', or columns 'top-1'"
        )
    renamed = [
        replace(rival, measure=own)
        for own, measure in of_measure.items()
        for rival in rivals
        if rival.measure == measure
    ]
    return replace(table, rows=(*table.rows, *renamed), claims=tuple(claims))


# ---- words -------------------------------------------------------------------------------------------------------


def in_lines(table: PublishedTable, found: list[Judged], doubtful: list[str]) -> str:
    """The shares that conclusions are about, with their intervals, then each conclusion with its verdict."""
    used = {
        (row, one.claim.measure or table.rows[0].measure)
        for one in found
        for row in (*one.claim.rows, *one.claim.rivals)
    }
    shown = [(row, limits) for row, limits in shares_of(table) if (row.name, row.measure) in used]
    lines = [table.title, *([f"Source: {table.source}"] if table.source else []), ""]
    width = max((len(row.name) for row, _ in shown), default=0)
    for row, limits in shown:
        units = "" if row.n_units == row.n else f", {row.n_units:,.0f} of them independent"
        share = f"{number(row.share, 'share'):>5} % {interval(limits.low, limits.high, 'share'):14}"
        lines.append(f"  {row.name:{width}}  {row.measure}: {share} n = {row.n:,.0f}{units}")
    if len(shown) < len(table.rows):
        lines.append(f"  and {len(table.rows) - len(shown)} rows that no conclusion is about")
    for one in found:
        lines += ["", f"{_SIGN[one.verdict]} {one.claim.says}", f"  {one.word}: {one.says}"]
        if one.verdict != "not judged":
            lines.append(f"  {_numbers(one)}")
    lines += ["", *(f"Note: {note}" for note in table.notes), *(f"Check: {line}" for line in doubtful)]
    return "\n".join(lines).rstrip()


def _numbers(one: Judged) -> str:
    parts = [f"difference {one.in_points}", f"p {number(one.p, 'p')}"]
    if abs(one.p_holm - one.p) > 1e-9:
        parts.append(f"Holm {number(one.p_holm, 'p')}")
    if one.detectable == one.detectable:
        parts.append(f"{number(one.detectable, 'share')} points would be found with 80 % power")
    return ", ".join(parts)


def _fields(one: Judged) -> dict[str, object]:
    return {
        "claim": one.claim.says,
        "verdict": one.word,
        "says": one.says,
        "difference": one.estimate,
        "low": one.low,
        "high": one.high,
        "p": one.p,
        "p_holm": one.p_holm,
        "detectable": one.detectable,
        "needed": one.needed,
    }


def _paired_line(name: str, found: PairedDifference, names: tuple[str, str]) -> str:
    better = names[1] if found.difference > 0 else names[0]
    return (
        f"{name}: {number(found.baseline, 'share')} % → {number(found.treatment, 'share')} %, difference {found.in_points}, "
        f"n = {found.n_items:,} paired, {found.test} p {number(found.p, 'p')}: {p_in_words(found.p, better)}"
    )
