"""Files that results are published in → `PublishedTable`: CSV, Markdown, JSON of several makes, samples of lm-evaluation-harness.

A table is read by its cells. `12/500` is a count. `18.43%`, or a number under a header with a %, is a percentage. A fraction such
as .3034 is a share where the header says so (accuracy, top-1, exact match, …). A column called n, samples, items or problems says
how many; one whose numbers carry a sign is a difference, and not read. The first column names the rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workings.arithmetic.problems import numbered_lines, text_in
from workings.config import from_dict
from workings.errors import BadInput, suggestion
from workings.judging.published import PublishedTable, Row

_N = {"n", "samples", "items", "problems", "examples", "questions", "total", "size", "count", "support", "num_samples"}
_MARKS = re.compile(r"[*_`✓✅⭐~≈]|<[^>]*>")
_COUNT = re.compile(r"(\d[\d,]*)\s*/\s*(\d[\d,]*)(?:\s*\(.*\))?")
_NUMBER = re.compile(r"([+−-]?)\s*(\d[\d,]*(?:\.\d+)?|\.\d+)\s*(%?)(?:\s*(?:±|\(|\[).*)?")
_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*")


@dataclass(frozen=True)
class HowToRead:
    """What a file does not say of itself.

    Attributes:
        n: Judgements behind each share, where no column and no cell says it.
        units: Independent units, where one was judged several times.
        measures: Columns to judge; all that hold shares, by default.
        table: Which of several tables of a Markdown file, from 1.
    """

    n: int | None = None
    units: int | None = None
    measures: tuple[str, ...] = ()
    table: int | None = None


def read_published(path: Path, how: HowToRead | None = None) -> tuple[PublishedTable, dict[str, int]]:
    """Read a published result.

    Args:
        path: A .json, .jsonl, .csv, .tsv or .md file.
        how: What the file does not say of itself.

    Returns:
        The table, and the decimals that percentages were published with, by row.

    Raises:
        BadInput: The file holds no table of shares, several of which none was chosen, or does not say n.
    """
    how = how or HowToRead()
    text = text_in(path)
    if path.suffix == ".json":
        return _from_json(text, path, how)
    if path.suffix == ".jsonl":
        return PublishedTable(path.name, _from_samples(path, text)), {}
    if path.suffix in (".csv", ".tsv"):
        lines = list(csv.reader(io.StringIO(text), delimiter="\t" if path.suffix == ".tsv" else ","))
        return _from_cells([line for line in lines if any(line)], path, how)
    tables = _markdown_tables(text)
    if not tables:
        raise BadInput(f"{path} holds no table: give Markdown with a | table |, CSV, or JSON")
    if how.table is None and len(tables) > 1:
        heads = "; ".join(f"{i}: {' | '.join(table[0])[:50]}" for i, table in enumerate(tables, start=1))
        raise BadInput(f"{path} holds {len(tables)} tables; choose one with --which. They are {heads}")
    if not 1 <= (how.table or 1) <= len(tables):
        raise BadInput(f"{path} holds {len(tables)} tables; there is no table {how.table}")
    return _from_cells(tables[(how.table or 1) - 1], path, how)


# ---- tables of text ----------------------------------------------------------------------------------------------


def _markdown_tables(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text: lines of cells, the header first."""
    tables: list[list[list[str]]] = []
    lines = text.split("\n")
    for at, line in enumerate(lines):
        if "|" in line and _RULE.fullmatch(line) and at and "|" in lines[at - 1]:
            below = []
            for row in lines[at + 1 :]:
                if "|" not in row:
                    break
                below.append(row)
            tables.append([_cells(each) for each in [lines[at - 1], *below]])
    return tables


def _cells(line: str) -> list[str]:
    return [_MARKS.sub("", cell).strip() for cell in line.strip().strip("|").split("|")]


@dataclass(frozen=True)
class _Value:
    """What a cell says: a number, as a fraction of `n` where it is a count; its decimals, where it is a percentage."""

    number: float
    n: int | None = None
    decimals: int | None = None
    is_signed: bool = False


def _value(cell: str) -> _Value | None:
    if counted := _COUNT.fullmatch(cell):
        k, n = (int(part.replace(",", "")) for part in counted.groups())
        if not 0 <= k <= n or n == 0:
            raise BadInput(f"'{cell}' is no count of some items: give k/n with k at most n")
        return _Value(k / n, n)
    if found := _NUMBER.fullmatch(cell):
        sign, digits, percent = found.groups()
        number = float(digits.replace(",", "")) * (-1 if sign in ("−", "-") and sign else 1)
        decimals = len(digits.partition(".")[2])
        return _Value(number / 100 if percent else number, None, decimals if percent else None, bool(sign))
    return None


def _from_cells(lines: Sequence[Sequence[str]], path: Path, how: HowToRead) -> tuple[PublishedTable, dict[str, int]]:
    """A table whose first line is its header and whose first column names the rows."""
    if len(lines) < 2 or len(lines[0]) < 2:
        raise BadInput(f"{path} holds no table: it needs a header, a column of names and one of shares")
    header = list(lines[0])
    columns = {
        name: [_value(line[at]) if at < len(line) else None for line in lines[1:]]
        for at, name in enumerate(header)
        if at
    }
    of_n = next((name for name in columns if name.strip().lower().lstrip("# ") in _N), None)
    shares = {name: _as_shares(name, values) for name, values in columns.items() if name != of_n}
    shares = {name: values for name, values in shares.items() if values is not None}
    if unknown := [name for name in how.measures if name not in shares]:
        hint = suggestion(unknown[0], shares) or f"; there are {', '.join(shares) or 'none'}"
        raise BadInput(f"{path} has no column of shares '{unknown[0]}'{hint}")
    chosen = how.measures or tuple(shares)
    if not chosen:
        raise BadInput(f"{path} has no column of shares among {', '.join(header[1:])}: write 12/500, 2.4% or 0.024")
    rows, decimals = [], {}
    for measure in chosen:
        for at, value in enumerate(shares[measure]):
            if value is None:
                continue
            name = _row_name(header[0], lines[at + 1][0])
            said = columns[of_n][at] if of_n else None
            n = value.n or (int(said.number) if said else None) or how.n
            if n is None:
                raise BadInput(
                    f"{path} does not say of how many items '{name}' is a share: add a column n, or give --n"
                )
            rows.append(Row(name, value.number, n, how.units and min(how.units, n), measure))
            if value.decimals is not None and measure == chosen[0]:
                decimals[name] = value.decimals
    return PublishedTable(path.name, tuple(rows)), decimals


def _row_name(header: str, cell: str) -> str:
    """A name that says what it is: `9` under the header Layer is `layer 9`."""
    return f"{header.lower()} {cell}".strip() if _NUMBER.fullmatch(cell) else cell


def _as_shares(header: str, values: Sequence[_Value | None]) -> list[_Value | None] | None:
    """The values of a column as fractions; None for a column that holds no shares, such as a loss or a difference."""
    known = [value for value in values if value is not None]
    if not known or any(value.is_signed for value in known):
        return None
    if any(value.n or value.decimals is not None for value in known):
        return list(values)
    if "%" in header and all(value.number <= 100 for value in known):
        return [value and replace(value, number=value.number / 100, decimals=None) for value in values]
    is_named = re.search(r"acc|top|hit|exact|match|share|rate|correct|accuracy|pass", header.lower())
    if is_named and all(value.number <= 1 for value in known):
        return list(values)
    return None


# ---- JSON of several makes -----------------------------------------------------------------------------------------


def _from_json(text: str, path: Path, how: HowToRead) -> tuple[PublishedTable, dict[str, int]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {error}") from None
    if isinstance(content, list) and content and all(isinstance(row, Mapping) for row in content):
        header = list(dict.fromkeys(name for row in content for name in row))
        return _from_cells([header, *([_text(row.get(name)) for name in header] for row in content)], path, how)
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} holds no table: give a list of rows, or an object with 'rows'")
    if "rows" in content:
        return from_dict(PublishedTable, {"title": path.stem} | dict(content)), {}
    if "results" in content:
        return _from_lm_eval(content, path), {}
    groups = {name: group for name, group in content.items() if isinstance(group, Mapping) and _are_entries(group)}
    if not groups:
        raise BadInput(
            f"{path} is no result that is known: it has {', '.join(map(str, list(content)[:6])) or 'no fields'}. "
            "Give rows, results of lm-evaluation-harness, or performance by layer and position"
        )
    rows = [row for name, group in groups.items() for row in _entries(str(name), group, path, how)]
    return PublishedTable(path.name, tuple(rows)), {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _from_lm_eval(content: Mapping[str, Any], path: Path) -> PublishedTable:
    """A results file of lm-evaluation-harness: `acc,none` of each task, and how many samples it had."""
    rows = []
    for task, metrics in content["results"].items():
        sizes = content.get("n-samples", {}).get(task, {})
        n = sizes.get("effective") or metrics.get("sample_len")
        for key, value in metrics.items():
            metric, comma, named = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, float | int) or not 0 <= value <= 1:
                continue
            if not n:
                raise BadInput(f"{path} does not say how many samples the task '{task}' had: 'n-samples' lacks it")
            rows.append(Row(task, float(value), n, measure=metric if named == "none" else f"{metric}, {named}"))
    if not rows:
        raise BadInput(f"{path} has results, and no share among them")
    return PublishedTable(path.name, tuple(rows), source=str(content.get("model_name", "")))


def _are_entries(group: Mapping[str, Any]) -> bool:
    return bool(group) and all(isinstance(entry, Mapping) for entry in group.values())


def _entries(group: str, entries: Mapping[str, Any], path: Path, how: HowToRead) -> Iterable[Row]:
    """Rows of `{"layer_performance": {"0": {"top1_accuracy": .178, "num_samples": 1200}}}`."""
    what = re.sub(r"_?(performance|results|accuracy)$", "", group).replace("_", " ")
    for name, entry in entries.items():
        numbers = {
            key: value for key, value in entry.items() if isinstance(value, int | float) and not isinstance(value, bool)
        }
        n = next((int(numbers[key]) for key in numbers if key.lower() in _N or "sample" in key.lower()), how.n)
        for key, value in numbers.items():
            found = re.search(r"top[_ -]?(\d+)|acc", key.lower())
            if not found:
                continue
            if n is None:
                raise BadInput(f"{path} does not say of how many items {group}/{name} is a share: give --n")
            share = value / 100 if value > 1 else value
            measure = f"top-{found[1]}" if found[1] else key
            if how.measures and measure not in how.measures:
                continue
            yield Row(f"{what} {name}".strip(), share, n, how.units and min(how.units, n), measure)


# ---- samples of lm-evaluation-harness ------------------------------------------------------------------------------


def _from_samples(path: Path, text: str) -> tuple[Row, ...]:
    """The share that each metric and filter of a samples file has, and beside it what the commonest target would."""
    samples = read_samples(path, text)
    rows = []
    for (metric, named), values in samples.items():
        n, measure = len(values), metric if named == "none" else f"{metric}, {named}"
        rows.append(Row("model", sum(right for right, _ in values.values()) / n, n, measure=measure))
        targets = [target for _, target in values.values()]
        most = max(map(targets.count, set(targets)))
        rows.append(Row("the commonest target", most / n, n, measure=measure))
    return tuple(rows)


def read_samples(path: Path, text: str | None = None) -> dict[tuple[str, str], dict[str, tuple[float, str]]]:
    """A samples file of lm-evaluation-harness: {(metric, filter): {document id: (right or wrong, target)}}.

    Metrics that are no right and wrong are left out. BadInput where there is none.
    """
    found: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    for number, line in numbered_lines(text_in(path) if text is None else text):
        try:
            sample = json.loads(line)
            document, metrics = str(sample["doc_id"]), sample["metrics"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise BadInput(
                f"{path}:{number}: no sample of lm-evaluation-harness, which has 'doc_id' and 'metrics'"
            ) from None
        for metric in metrics:
            if isinstance(sample.get(metric), int | float):
                key = str(metric), str(sample.get("filter", "none"))
                found.setdefault(key, {})[document] = float(sample[metric]), str(sample.get("target"))
    binary = {key: values for key, values in found.items() if all(right in (0, 1) for right, _ in values.values())}
    if not binary:
        raise BadInput(f"{path} holds no metric of right and wrong")
    return binary
