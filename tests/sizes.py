"""``python -m tests.sizes``: the largest files and functions beside their bounds; non-zero if one is over.

The report of ``make check``, and what ``tests/test_tidy.py`` asks.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

root = Path(__file__).parent.parent
file_lines_max = 400
function_lines_max = 70
shown = 5
Size = tuple[int, str]


def project_files() -> Iterator[Path]:
    """The project's own files, whatever else lies in the clone: environments, builds, caches, state directories."""
    for path in sorted(root.iterdir()):
        if path.is_file() and path.name != ".git":
            yield path
        elif path.is_dir() and (path.name == ".ci" or _is_a_room(path)):
            yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _is_a_room(path: Path) -> bool:
    made = path.name.startswith(".") or path.name in ("build", "dist") or path.name.endswith(".egg-info")
    return not made and not (path / "pyvenv.cfg").exists()


def python_files() -> list[Path]:
    """The project's own Python files."""
    return [path for path in project_files() if path.suffix == ".py"]


def name_of(path: Path) -> str:
    """A file as people call it: from the top of the clone."""
    return path.relative_to(root).as_posix()


def file_sizes() -> list[Size]:
    """(lines, file), largest first."""
    sizes = ((len(path.read_text(encoding="utf-8").splitlines()), name_of(path)) for path in python_files())
    return sorted(sizes, reverse=True)


def function_sizes() -> list[Size]:
    """(lines, file:function), largest first."""
    return sorted(_functions(), reverse=True)


def _functions() -> Iterator[Size]:
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                yield node.end_lineno - node.lineno + 1, f"{name_of(path)}:{node.name}"


def over() -> list[Size]:
    """What is larger than it may be."""
    files = [size for size in file_sizes() if size[0] > file_lines_max]
    return files + [size for size in function_sizes() if size[0] > function_lines_max]


def main() -> int:
    """Print the report."""
    for title, sizes, bound in (
        ("files", file_sizes(), file_lines_max),
        ("functions", function_sizes(), function_lines_max),
    ):
        print(f"largest {title} (at most {bound} lines):")
        for lines, name in sizes[:shown]:
            print(f"  {lines:>4}  {name}")
    found = over()
    for lines, name in found:
        print(f"over its bound: {name}, {lines} lines", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
