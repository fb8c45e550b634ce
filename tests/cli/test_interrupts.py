"""Ctrl-C and SIGTERM: a command that is stopped closes what it opened, and says so in its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Shell

root = Path(__file__).parent.parent.parent
end_s = 60


@contextmanager
def running(directory: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command of a group of its own, as a terminal starts it. Its temporary files go to ``directory``."""
    command = [sys.executable, "-m", "cli.main", *words]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONUNBUFFERED": "1", "TMPDIR": str(directory)}
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], said: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if said in line:
            return
    raise AssertionError(f"never said {said!r}: {process.communicate(timeout=end_s)[1]}")


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    os.killpg(process.pid, number)
    said = process.communicate(timeout=end_s)[1]
    assert process.returncode == 128 + number
    assert said == "interrupted\n"


@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting them", signal.SIGINT), ("listening at", signal.SIGHUP), ("is killed", signal.SIGTERM)],
)
def test_demo_that_is_stopped_leaves_nothing_behind(moment: str, number: signal.Signals, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with running(tmp_path, "demo") as demo:
        read_until(demo, moment)
        os.killpg(demo.pid, number)
        said = demo.communicate(timeout=end_s)[1]
        assert demo.returncode in (0, 128 + number), said
        assert said in ("", "interrupted\n")
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in commands()


def commands() -> str:
    """The command lines of all processes."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return listed.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_follows_for_ever_ends_when_it_is_told_to(number: signal.Signals, prepared: Shell) -> None:
    with running(prepared.directory, "log", "show", "--follow") as follower:
        read_until(follower, "TASK_CREATED")
        stop(follower, number)
    assert prepared("log", "verify").returncode == 0
