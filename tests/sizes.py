"""``python -m tests.sizes``: the largest files and functions beside their bounds; non-zero if one is over."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

root = Path(__file__).parent.parent
file_lines_max = 400
test_file_lines_max = 700
function_lines_max = 70
shown = 5


def python_files() -> list[Path]:
    """The project's own Python files."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return [root / name for name in listed.stdout.split() if (root / name).exists()]


def file_sizes() -> list[tuple[int, str]]:
    """(lines, file), largest first."""
    return sorted(
        ((len(path.read_text(encoding="utf-8").splitlines()), str(path.relative_to(root))) for path in python_files()),
        reverse=True,
    )


def function_sizes() -> list[tuple[int, str]]:
    """(lines, file:function), largest first."""
    return sorted(_functions(), reverse=True)


def _functions() -> Iterator[tuple[int, str]]:
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{path.relative_to(root)}:{node.name}"


def main() -> int:
    """Print the report."""
    over = 0
    for title, sizes, bound in (
        ("files", file_sizes(), file_lines_max),
        ("functions", function_sizes(), function_lines_max),
    ):
        print(f"largest {title} (at most {bound} lines, test files {test_file_lines_max}):")
        for lines, name in sizes[:shown]:
            print(f"  {lines:>4}  {name}")
        over += sum(lines > (test_file_lines_max if name.startswith("tests/") else bound) for lines, name in sizes)
    if over:
        print(f"{over} over the bound", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
