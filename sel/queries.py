"""Named SQL: the ``sql/*.sql`` files, each statement under its ``-- name:`` line. No SQL is written in Python."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def named(file: str) -> dict[str, str]:
    """Name -> statement of ``sel/sql/<file>.sql``."""
    text = (files("sel") / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    statements: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, body = part.partition("\n")
        assert name not in statements, f"{file}.sql names {name} twice"
        statements[name.strip()] = body.strip()
    return statements
