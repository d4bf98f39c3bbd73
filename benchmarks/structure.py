"""How large is the code, and how much does it hide? Counts of the package's source, whole or by room.

python benchmarks/structure.py                  # this checkout
python benchmarks/structure.py --source OTHER/src/workings --rooms
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "src" / "workings"


@dataclass
class Counts:
    """Sums over files; `lengths` are the lines of each file, `functions` those of each function."""

    files: int = 0
    lines: int = 0
    files_under_100_lines: int = 0
    private_functions: int = 0
    private_functions_used_once: int = 0
    imports_in_functions: int = 0
    any_annotations: int = 0
    dict_str_any: int = 0
    string_subscripts: int = 0
    comment_lines: int = 0
    lengths: list[int] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Count one file."""
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        n_lines = text.count("\n")
        nodes = list(ast.walk(tree))
        defined = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        private = [node.name for node in defined if node.name.startswith("_") and not node.name.startswith("__")]
        names = [node.id for node in nodes if isinstance(node, ast.Name)]
        names += [node.attr for node in nodes if isinstance(node, ast.Attribute)]
        self.files += 1
        self.lines += n_lines
        self.lengths.append(n_lines)
        self.files_under_100_lines += n_lines < 100
        self.private_functions += len(private)
        self.private_functions_used_once += sum(names.count(name) == 1 for name in private)
        self.imports_in_functions += sum(
            isinstance(node, ast.Import | ast.ImportFrom) for one in defined for node in ast.walk(one)
        )
        self.any_annotations += names.count("Any")
        self.dict_str_any += text.count("dict[str, Any]")
        self.string_subscripts += sum(
            isinstance(node, ast.Subscript)
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
            for node in nodes
        )
        self.comment_lines += sum(
            token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(text).readline)
        )
        self.functions += [(node.end_lineno or node.lineno) - node.lineno + 1 for node in defined]

    def rows(self) -> Iterator[tuple[str, str]]:
        """(what, how much) for every count, then medians."""
        for one in fields(self):
            if one.name not in ("lengths", "functions"):
                yield one.name.replace("_", " "), f"{getattr(self, one.name):,}"
        yield "comment share", f"{self.comment_lines / self.lines:.1%}"
        yield "median file, lines", f"{statistics.median(self.lengths):.0f}"
        if self.functions:
            yield "functions: median, longest", f"{statistics.median(self.functions):.0f}, {max(self.functions)}"


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=HERE, help="the folder of the package")
    parser.add_argument("--rooms", action="store_true", help="also one line for each package inside it")
    parser.add_argument("--files", action="store_true", help="also one line for each file")
    arguments = parser.parse_args()
    whole, by_room = Counts(), {}
    for path in sorted(arguments.source.rglob("*.py")):
        whole.add(path)
        relative = path.relative_to(arguments.source)
        by_room.setdefault(relative.parts[0] if len(relative.parts) > 1 else "(top)", Counts()).add(path)
        if arguments.files:
            print(f"{path.read_text(encoding='utf-8').count(chr(10)):6,}  {relative}")
    for what, how_much in whole.rows():
        print(f"{what:32} {how_much:>10}")
    for room, counts in by_room.items() if arguments.rooms else ():
        print(
            f"{room:14} {counts.files:3} files {counts.lines:6,} lines  {counts.imports_in_functions:3} imports in functions"
            f"  {counts.any_annotations:3} Any  {counts.private_functions_used_once:3} private used once"
        )


if __name__ == "__main__":
    main()
