"""One prepared node and one reference runtime for the tests of the command line; commands run as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sel.embedded import EmbeddedPostgres
from wattswarm.runtime.local import reference_runtime

command_s = 60


@dataclass(frozen=True)
class Shell:
    """Runs ``wattswarm`` in a directory, as a user's shell would."""

    directory: Path

    def __call__(self, *words: str, ok: bool = True, feed: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command; ``ok``: it must end with 0."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WATTSWARM_")}
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *words],
            cwd=self.directory,
            env={**environment, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            input=feed,
            capture_output=True,
            text=True,
            check=False,
            timeout=command_s,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if ok:
            assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done


@pytest.fixture(scope="session")
def runtime_url() -> Iterator[str]:
    """A reference runtime."""
    with reference_runtime() as url:
        yield url


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, runtime_url: str) -> Iterator[Shell]:
    """A directory whose node has two executors and tasks to steer."""
    directory = tmp_path_factory.mktemp("prepared")
    directory.chmod(0o755)
    shell = Shell(directory)
    shell("task", "sample")
    with EmbeddedPostgres(directory / ".wattswarm"):
        shell("executors", "add", "rt", runtime_url)
        shell("executors", "add", "rt-2", runtime_url)
        for task_id in ("task-stop", "task-suspend", "task-kill"):
            (directory / f"{task_id}.json").write_text(shell("task", "sample", "--task-id", task_id).stdout)
            shell("task", "submit", f"{task_id}.json")
        yield shell


@pytest.fixture
def fresh(tmp_path: Path) -> Shell:
    """An empty directory."""
    tmp_path.chmod(0o755)
    return Shell(tmp_path)
