"""What tests of several rooms share: one embedded server for the whole session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sel.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """One embedded server for the session. The directory is short: a socket lies in it."""
    with tempfile.TemporaryDirectory(prefix="ws") as directory, EmbeddedPostgres(Path(directory)) as server:
        yield server.dsn
