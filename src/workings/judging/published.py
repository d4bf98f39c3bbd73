"""A published table × what its authors conclude → verdicts: what the counts allow, and what explains them without the model.

Of a published result only shares and their n are known, and not which items were right. Every interval is a score interval of a sum
of shares with signs (Wilson 1927 for one, Newcombe 1998 for a difference, Zou and Donner 2008 for any sum), and p is the level at
which it touches zero. Of two counts p is Fisher's; an interval that it does not bear out is shown reaching to zero. All use the
number of *independent units*: sixteen layers that read the same 200 problems are 200.

Verdicts: `holds`; `explained by NAME`, where what sees no model shows the same; `fails`; `undecided`; `not judged`, where no number
of the table bears on the claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, exp, isnan, log, nan, sqrt
from typing import Literal

import numpy as np
from scipy import optimize, stats

from workings.errors import BadInput, suggestion
from workings.judging.statistics import (
    ALPHA,
    Interval,
    fisher,
    holm,
    mcnemar,
    minimum_detectable_difference,
    required_n,
)
from workings.report.wording import interval, number

MARGIN = 0.05
"""Of a difference from a rival, as a fraction: below it a rival explains a figure. It is the judge's own margin for "no"."""
Kind = Literal["share", "more", "best", "same", "not judged"]
VerdictWord = Literal["holds", "explained", "fails", "undecided", "not judged"]


@dataclass(frozen=True)
class Row:
    """One published share.

    Attributes:
        name: What was judged, such as an arm, a layer or a predictor.
        share: The share that was right, a fraction.
        n: Judgements that it is a share of.
        units: Independent units among them, where one unit (a problem) was judged several times; n, by default.
        measure: What counts as right; shares are compared within a measure only.
    """

    name: str
    share: float
    n: float
    units: float | None = None
    measure: str = "accuracy"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise BadInput(f"'{self.name}': {self.share:g} is no share; give a fraction from 0 to 1, or a percentage")
        if not self.n >= 1 or not 1 <= self.n_units <= self.n:
            raise BadInput(f"'{self.name}': n is {self.n:g} and its units {self.n_units:g}; give 1 ≤ units ≤ n")

    @property
    def n_units(self) -> float:
        """Independent units."""
        return self.n if self.units is None else self.units

    @property
    def count(self) -> int | None:
        """How many were right, where every judgement is a unit; None where that is not known."""
        return round(self.share * self.n) if self.n_units == self.n and self.n == int(self.n) else None


@dataclass(frozen=True)
class Claim:
    """What somebody concludes from a table, in a form that can be tested.

    Attributes:
        says: The conclusion, in words.
        kind: `share`: the share of `rows[0]` is more than `rivals` give. `more`: `rows[0]` is more than `rows[1]`. `best`:
            `rows[0]` is better than the other `rows`. `same`: `rows[0]` and `rows[1]` differ by less than `margin`. `not judged`:
            the numbers do not bear on it.
        rows: Names of rows.
        rivals: Rows that could give the same without the model: for `share` any number of them, each a rival by itself; for `more`
            one for each of the two rows.
        measure: Of the rows; the table's first, by default.
        margin: The smallest difference that would matter, a fraction.
        same_items: Whether both rows were judged on the same items, which was then not used.
        why: For `not judged`, the reason; otherwise what should be known beside the numbers.
    """

    says: str
    kind: Kind
    rows: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    measure: str = ""
    margin: float | None = None
    same_items: bool = False
    why: str = ""


@dataclass(frozen=True)
class PublishedTable:
    """A published result and its conclusions; the content of a JSON file that `workings rejudge` reads.

    Attributes:
        title, source: What it is, and where it stands.
        rows: Its shares.
        claims: Its conclusions; `default_claims`, where none are given.
        notes: Limits that the reader should know, a sentence each.
    """

    title: str
    rows: tuple[Row, ...]
    source: str = ""
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows:
            raise BadInput(f"'{self.title}' has no rows: there is nothing to judge")
        seen: set[tuple[str, str]] = set()
        for row in self.rows:
            if (row.measure, row.name) in seen:
                raise BadInput(
                    f"'{row.name}' stands there twice with the measure '{row.measure}'; rename one of the two"
                )
            seen.add((row.measure, row.name))

    def row(self, name: str, measure: str = "") -> Row:
        """The row of a name and a measure (the first, by default). BadInput where there is none."""
        measure = measure or self.rows[0].measure
        found = {row.name: row for row in self.rows if row.measure == measure}
        if name not in found:
            hint = suggestion(name, found) or f"; there are {', '.join(list(found)[:8]) or 'none'}"
            raise BadInput(f"no row '{name}' with the measure '{measure}'{hint}")
        return found[name]


@dataclass(frozen=True)
class Judged:
    """A claim and what the numbers say of it.

    Attributes:
        verdict: The verdict; `rival` names what explains it.
        estimate, low, high: The difference that decided, with its interval: 95 % by itself, in a family at Holm's level.
        p: Two-sided; nan where nothing was tested. `p_holm` is adjusted for all tested claims of the table.
        detectable: The smallest difference that these n show with 80 % power; nan where there is none.
        needed: Units a row that would show the published difference with 80 % power; None where there is none to show.
        says: The verdict in a sentence.
    """

    claim: Claim
    verdict: VerdictWord
    says: str
    estimate: float = nan
    low: float = nan
    high: float = nan
    p: float = nan
    p_holm: float = nan
    detectable: float = nan
    needed: int | None = None
    rival: str = ""

    @property
    def in_points(self) -> str:
        """ "+1.4 points [−0.3, 3.1]", or a dash where nothing was tested."""
        if isnan(self.estimate):
            return "–"
        return f"{number(self.estimate, 'points')} points {interval(self.low, self.high, 'share')}"

    @property
    def word(self) -> str:
        """The verdict as it is printed."""
        return f"explained by {self.rival}" if self.verdict == "explained" else self.verdict


def rejudge(table: PublishedTable) -> list[Judged]:
    """Judge every conclusion of a published table by its numbers alone.

    The tested claims are one family: p-values are Holm's, and each interval is at the level of its own test, so that it excludes
    zero exactly where the adjusted p is at most .05.

    Raises:
        BadInput: A claim names a row that is not there, or lacks what its kind needs.

    >>> rows = (Row("ordinary", 12 / 500, 500), Row("facts", 19 / 500, 500))
    >>> table = PublishedTable("after the curriculum", rows, claims=(Claim("facts help", "more", ("facts", "ordinary")),))
    >>> [found] = rejudge(table)
    >>> found.verdict, found.in_points, round(found.p, 2), found.needed
    ('undecided', '+1.4 points [−0.8, 3.7]', 0.27, 2405)
    """
    claims = table.claims or default_claims(table)
    tests = [_Test.of(claim, table) for claim in claims]
    tested = [test for test in tests if test is not None]
    ps = [test.p for test in tested]
    adjusted = holm(ps) if ps else []
    n_found = sum(p <= ALPHA for p in adjusted)
    ranks = np.argsort(np.argsort(ps, kind="stable"))
    level_of = {
        id(test): (p, ALPHA / (len(ps) - min(int(rank), n_found)))
        for test, p, rank in zip(tested, adjusted, ranks, strict=True)
    }
    found = []
    for claim, test in zip(claims, tests, strict=True):
        if test is None:
            found.append(Judged(claim, "not judged", claim.why or "No number of the table bears on it."))
        else:
            p_holm, level = level_of[id(test)]
            found.append(test.judged(p_holm, level))
    return found


def default_claims(table: PublishedTable) -> tuple[Claim, ...]:
    """What a reader of a bare table would ask: is the second of two rows more than the first; is the best of many the best?"""
    claims = []
    for measure in dict.fromkeys(row.measure for row in table.rows):
        names = [row.name for row in table.rows if row.measure == measure]
        if len(names) == 2:
            claims.append(Claim(f"{names[1]} is better than {names[0]}", "more", (names[1], names[0]), measure=measure))
        elif len(names) > 2:
            best = max(names, key=lambda name: table.row(name, measure).share)
            others = tuple(name for name in names if name != best)
            claims.append(Claim(f"{best} is the best of {len(names)}", "best", (best, *others), measure=measure))
    if not claims:
        raise BadInput(f"'{table.title}' has one row: name a rival, or another row, to compare it with")
    return tuple(claims)


# ---- sums of shares ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """A sum of shares, each with a sign or a weight: the difference of two, or how much a difference is more than another."""

    terms: tuple[tuple[float, Row], ...]

    @property
    def estimate(self) -> float:
        return sum(weight * row.share for weight, row in self.terms)

    def interval(self, level: float = ALPHA) -> Interval:
        """Score interval with an error rate of `level`; independent rows are assumed.

        Wilson's limits of the single shares, their distances added in quadrature (Zou and Donner 2008): for the difference of
        two this is Newcombe's method 10, for one it is Wilson's own.
        """
        below = above = 0.0
        for weight, row in self.terms:
            low, high = _wilson(row, level)
            down, up = weight * (row.share - low), weight * (high - row.share)
            below += (down if weight > 0 else up) ** 2
            above += (up if weight > 0 else down) ** 2
        return Interval(self.estimate - sqrt(below), self.estimate + sqrt(above))

    @property
    def p(self) -> float:
        """The level at which the interval touches zero, two-sided; 0 where that is below 1e-100."""
        if self.estimate == 0:
            return 1.0
        sign = 1 if self.estimate > 0 else -1

        def excess(x: float) -> float:
            found = self.interval(exp(x))
            return -found.low if sign > 0 else found.high

        tiny = log(1e-100)
        return 0.0 if excess(tiny) <= 0 else exp(float(optimize.brentq(excess, tiny, -1e-12, xtol=1e-12)))


def _wilson(row: Row, level: float) -> tuple[float, float]:
    """Wilson's limits at any level; 0 and 1 are limits of their own shares."""
    z, n, p = float(stats.norm.isf(level / 2)), row.n_units, row.share
    centre, reach = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    return (0.0 if p <= 0 else low), (1.0 if p >= 1 else high)


# ---- the tests ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Test:
    """The test of one claim: what is estimated, and what it is compared with."""

    claim: Claim
    rows: tuple[Row, ...]
    rivals: tuple[Row, ...]
    main: Contrast
    p: float
    detectable: float = nan
    needed: int | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, claim: Claim, table: PublishedTable) -> _Test | None:
        """The test of a claim; None where nothing is to be tested."""
        if claim.kind == "not judged":
            return None
        rows = tuple(table.row(name, claim.measure) for name in claim.rows)
        rivals = tuple(table.row(name, claim.measure) for name in claim.rivals)
        least = {"share": 1, "more": 2, "same": 2, "best": 3}[claim.kind]
        if len(rows) < least or (claim.kind != "best" and len(rows) > least):
            raise BadInput(
                f"the claim '{claim.says}' is of the kind '{claim.kind}', which takes {least} rows; it has {len(rows)}"
            )
        if claim.kind == "share":
            return cls._share(claim, rows, rivals)
        if claim.kind == "best":
            return cls._best(claim, rows)
        if rivals and len(rivals) != 2:
            raise BadInput(
                f"the claim '{claim.says}' needs a rival for each of its two rows, or none; it has {len(rivals)}"
            )
        if claim.kind == "same" and not claim.margin:
            raise BadInput(f"the claim '{claim.says}' is of the kind 'same', which needs a margin above 0")
        a, b = rows
        main = Contrast(((1, a), (-1, b)))
        notes = [_pairings(a, b)] if claim.same_items and a.count is not None and b.count is not None else []
        return cls(claim, rows, rivals, main, _p(main, a, b), *_power(a, b), tuple(notes))

    @classmethod
    def _share(cls, claim: Claim, rows: tuple[Row, ...], rivals: tuple[Row, ...]) -> _Test:
        """A share against the rival that comes nearest: it must be above every one (intersection–union)."""
        if not rivals:
            raise BadInput(
                f"the claim '{claim.says}' needs a rival: a share is only as good as what gives it for nothing"
            )
        against = {rival.name: Contrast(((1, rows[0]), (-1, rival))) for rival in rivals}
        nearest = min(rivals, key=lambda rival: against[rival.name].interval().low)
        main = against[nearest.name]
        return cls(claim, rows, (nearest,), main, _p(main, rows[0], nearest), *_power(rows[0], nearest))

    @classmethod
    def _best(cls, claim: Claim, rows: tuple[Row, ...]) -> _Test:
        """The largest of m shares against the mean of the others; p is that of the largest of m equal ones."""
        best, others = rows[0], rows[1:]
        n = min(row.n_units for row in rows)
        pooled = sum(row.share for row in rows) / len(rows)
        at_least = ceil(best.share * n - 1e-9)
        below = float(stats.binom.cdf(at_least - 1, int(n), pooled))
        counts = np.arange(int(n) + 1)
        expected = float((1 - stats.binom.cdf(counts, int(n), pooled) ** len(rows)).sum()) / int(n)
        main = Contrast(((1, best), *((-1 / len(others), row) for row in others)))
        note = f"The best of {len(rows)} equal ones is expected at {number(expected, 'share')} %."
        return cls(claim, rows, (), main, 1 - below ** len(rows), notes=(note,))

    def judged(self, p_holm: float, level: float) -> Judged:
        found = self.main.interval(level)
        # the p of "best" is one-sided: it says nothing of a row that is below the others
        is_one_sided = self.claim.kind == "best" and found.high < 0
        if p_holm > ALPHA and 0 not in found and not is_one_sided:  # the test is the more conservative of the two
            found = replace(found, low=min(found.low, 0.0), high=max(found.high, 0.0))
        verdict, says, rival = self._verdict(found, p_holm, level)
        return Judged(
            claim=self.claim,
            verdict=verdict,
            says=" ".join([says, *self.notes, *([self.claim.why] if self.claim.why else [])]),
            estimate=self.main.estimate,
            low=found.low,
            high=found.high,
            p=self.p,
            p_holm=p_holm,
            detectable=self.detectable,
            needed=self.needed,
            rival=rival,
        )

    def _verdict(self, found: Interval, p_holm: float, level: float) -> tuple[VerdictWord, str, str]:
        is_shown = p_holm <= ALPHA and self.main.estimate > 0
        claim = self.claim
        if claim.kind == "same":
            assert claim.margin is not None
            if -claim.margin < found.low and found.high < claim.margin:
                return "holds", f"They differ by less than {number(claim.margin, 'share')} points.", ""
            if p_holm <= ALPHA:
                return "fails", "They differ.", ""
            return "undecided", "No difference is shown, and none as large as the margin is excluded.", ""
        if claim.kind == "share":
            [rival] = self.rivals
            if is_shown:
                return "holds", "It is above every rival.", ""
            if found.high < (claim.margin or MARGIN):
                return "explained", f"{rival.name} alone gives {number(rival.share, 'share')} %.", rival.name
            return (
                "undecided",
                f"It is not shown to be above {rival.name}, which gives {number(rival.share, 'share')} %.",
                "",
            )
        if not is_shown:
            if p_holm <= ALPHA or found.high < 0 or (claim.margin is not None and found.high < claim.margin):
                return "fails", "The difference is not what is claimed.", ""
            return "undecided", self._what_n_allows(), ""
        if self.rivals:
            return self._beside_rivals(level)
        return "holds", "More than chance gives.", ""

    def _beside_rivals(self, level: float) -> tuple[VerdictWord, str, str]:
        """Of a difference that is there: is it more than the rivals' own?"""
        one, other = self.rivals
        net = Contrast((*self.main.terms, (-1, one), (1, other)))
        left, theirs = net.interval(level), Contrast(((1, one), (-1, other)))
        name = one.name if one.name == other.name else f"{one.name} and {other.name}"
        same = f"The rivals' own difference is {number(theirs.estimate, 'points')} points."
        if left.low > 0:
            return "holds", f"{same} What is left is more than chance gives.", ""
        if left.high < max(self.claim.margin or MARGIN, self.main.estimate / 2):
            return "explained", same, name
        return "undecided", f"{same} What is left is not decided.", ""

    def _what_n_allows(self) -> str:
        if self.needed is None:
            return "Chance gives as much."
        return f"Chance gives as much; {self.needed:,} units a row would show it with 80 % power."


def _p(difference: Contrast, a: Row, b: Row) -> float:
    """Fisher's exact p of two counts; of shares of which no count is known, the level at which their interval touches zero."""
    if a.count is None or b.count is None:
        return difference.p
    return fisher(a.count, int(a.n), b.count, int(b.n))


def _power(a: Row, b: Row) -> tuple[float, int | None]:
    """(smallest gain over b that is found with 80 % power, units that the published gain needs)."""
    detectable = minimum_detectable_difference(int(min(a.n_units, b.n_units)), b.share)
    gain = a.share - b.share
    low, size = min(a.share, b.share), abs(gain)
    return detectable, (required_n(size, low) if size > 1e-9 else None)


def _pairings(a: Row, b: Row) -> str:
    """What McNemar's test could say of two counts on the same items, with the pairings that help most and least."""
    assert a.count is not None and b.count is not None
    if a.n != b.n:
        raise BadInput(f"'{a.name}' and '{b.name}' have different n, so they are not of the same items")
    more, fewer = max(a.count, b.count), min(a.count, b.count)
    most_shared = min(fewer, int(a.n) - more)  # items that only the worse one has right, at most
    ps = [mcnemar(more - fewer + shared, shared) for shared in (0, most_shared)]
    return f"Paired by item, p lies between {number(min(ps), 'p')} and {number(max(ps), 'p')}; which items were right decides."


def impossible_shares(table: PublishedTable, digits: Mapping[str, int]) -> list[str]:
    """Rows whose share, as it is rounded, no count of their n gives (the GRIM test, Brown and Heathers 2017).

    Args:
        digits: Decimals of the percentage that each row was published with, by name.
    """
    lines = []
    for row in table.rows:
        if row.name not in digits or row.n > 10 ** (digits[row.name] + 2):
            continue
        places, count = digits[row.name], row.share * row.n
        nearest = min((int(count), ceil(count)), key=lambda k: abs(k - count))
        if round(100 * nearest / row.n, places) != round(100 * row.share, places):
            lines.append(
                f"{row.name}: {100 * row.share:.{places}f} % is no share of {row.n:,.0f}; the nearest is {nearest}, "
                f"{100 * nearest / row.n:.{places}f} %"
            )
    return lines


def shares_of(table: PublishedTable) -> Sequence[tuple[Row, Interval]]:
    """Each row with its 95 % interval (Wilson, by independent units)."""
    return [(row, Contrast(((1.0, row),)).interval()) for row in table.rows]
