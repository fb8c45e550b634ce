"""Who the daemon of a state directory is: the kernel says, and nothing that a dead process left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sizes import root
from wattswarm.kernel.refusal import Refused
from wattswarm.presence import (
    NodeState,
    ask_to_stop,
    daemon_process,
    lock_name,
    presence,
    read_state,
    state_name,
    write_state,
)

holder = """
import sys, time
from pathlib import Path
from wattswarm.presence import presence
with presence(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_by_another(state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(state_dir)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def some_state(pid: int) -> NodeState:
    return NodeState(pid, "boot", "0", "ready", 1, 2)


def test_nobody_lives_where_nobody_was(tmp_path: Path) -> None:
    assert daemon_process(tmp_path) is None
    assert ask_to_stop(tmp_path) is None
    assert read_state(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_another_process_is_seen_and_named_to_who_comes_second(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as process:
        assert daemon_process(tmp_path) == process.pid
        with pytest.raises(Refused, match=rf"runs already \(process {process.pid}\)"), presence(tmp_path):
            pass
    assert daemon_process(tmp_path) is None


def test_looking_does_not_end_it(tmp_path: Path) -> None:
    with presence(tmp_path):
        assert daemon_process(tmp_path) == os.getpid()
        with pytest.raises(Refused, match="runs already"), presence(tmp_path):
            pass
        asked = [sys.executable, "-c", "import sys; from wattswarm.presence import *; from pathlib import Path\n"]
        asked[-1] += "print(daemon_process(Path(sys.argv[1])))"
        said = subprocess.run([*asked, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root).stdout
        assert said == f"{os.getpid()}\n"
    assert daemon_process(tmp_path) is None


def test_what_a_killed_daemon_left_is_not_believed(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as process:
        write_state(tmp_path, some_state(process.pid))
        process.kill()
        process.wait(timeout=30)
        assert daemon_process(tmp_path) is None
        assert ask_to_stop(tmp_path) is None
    with presence(tmp_path):
        assert daemon_process(tmp_path) == os.getpid()


def test_process_id_that_a_file_claims_is_not_signalled(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (tmp_path / lock_name).write_text(f"{bystander.pid}\n")
        write_state(tmp_path, some_state(bystander.pid))
        assert ask_to_stop(tmp_path) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(timeout=30)


def test_daemon_is_asked_to_stop_by_name(tmp_path: Path) -> None:
    with held_by_another(tmp_path) as process:
        assert ask_to_stop(tmp_path) == process.pid
        assert process.wait(timeout=30) == -signal.SIGTERM


def test_state_file_goes_with_the_daemon(tmp_path: Path) -> None:
    with presence(tmp_path):
        write_state(tmp_path, some_state(7))
        assert read_state(tmp_path) == some_state(7)
    assert not (tmp_path / state_name).exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}', b"\xff"])
def test_damaged_state_file_is_no_state(content: bytes, tmp_path: Path) -> None:
    (tmp_path / state_name).write_bytes(content)
    assert read_state(tmp_path) is None


def test_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot be used"), presence(tmp_path / "file" / "state"):
        pass
