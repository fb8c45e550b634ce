"""``demo`` and ``dev`` as a newcomer runs them: real daemons that show themselves, serve, and leave nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_interrupts import commands, end_s, running
from tests.daemons import eventually, wattswarm
from wattswarm.presence import daemon_process

demo_s_max = 100
"""On a busy machine; on one of two idle cores it takes a quarter of a minute."""


def test_the_demo_kills_a_node_and_ends_with_one_state_and_a_decision_proved_by_a_file_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with running(tmp_path, "demo") as demo:
        said, errors = demo.communicate(timeout=demo_s_max)
    assert (demo.returncode, errors) == (0, "")
    killed, waited, back, finalized, proven = (
        said.index(words)
        for words in ("is killed: SIGKILL", "is waiting for", "is back", "DECISION_FINALIZED", "signed by finalizer")
    )
    assert killed < waited < back < finalized < proven
    victim = said[:killed].split()[-1]
    assert f"{victim} offline for" in said
    held = [line.split(": ", 1)[1] for line in said.splitlines() if "state root" in line]
    assert len(held) == 3
    assert len(set(held)) == 1
    assert said.count("3 of 3 needed") == 3
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in commands()


class Dev:
    """``wattswarm dev --nodes 2`` that runs, and its nodes' state directories."""

    def __init__(self, process: subprocess.Popen[str], said: dict[str, Any]) -> None:
        self.process = process
        self.places = [Path(node["state_dir"]) for node in said["nodes"]]
        self.ids = [node["node_id"] for node in said["nodes"]]


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    directory = tmp_path_factory.mktemp("dev")
    directory.chmod(0o755)
    with running(directory, "dev", "--nodes", "2", "--json") as process:
        assert process.stdout is not None
        yield Dev(process, json.loads(process.stdout.readline()))
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=end_s)


def watched(dev: Dev) -> str:
    """What task ``t-1`` waits for, as the first node tells it."""
    return str(wattswarm(dev.places[0], "task", "watch", "t-1", "--once").get("waits_for", ""))


def test_nodes_of_dev_take_tasks_and_tell_who_is_there(dev: Dev, tmp_path: Path) -> None:
    first, second = dev.places
    (tmp_path / "t.json").write_text(json.dumps(wattswarm(first, "task", "sample", "--task-id", "t-0")))
    wattswarm(first, "task", "submit", str(tmp_path / "t.json"))
    eventually(lambda: wattswarm(second, "task", "watch", "t-0", "--once")["state"] == "FINALIZED")
    assert wattswarm(first, "members", "list")["now"] == {dev.ids[0]: "this node", dev.ids[1]: "in sync"}
    found = wattswarm(first, "node", "status")
    assert (found["not_connected"], found["offline"], found["alarms"]) == ({}, {}, [])
    assert [peer["node_id"] for peer in found["peers"]] == [dev.ids[1]]
    assert "all must be there" in found["fault_tolerance"]


def test_watch_and_decision_tell_who_is_offline_and_since_when(dev: Dev, tmp_path: Path) -> None:
    first, second = dev.places
    pid = daemon_process(second)
    assert pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    (tmp_path / "t.json").write_text(json.dumps(wattswarm(first, "task", "sample", "--task-id", "t-1")))
    wattswarm(first, "task", "submit", str(tmp_path / "t.json"))
    offline = f"node {dev.ids[1][:4]}… offline for "
    eventually(lambda: offline in watched(dev), "the node is told to be offline")
    assert offline in wattswarm(first, "task", "decision", "t-1")["waits_for"]
    assert wattswarm(first, "members", "list")["now"][dev.ids[1]] == "offline"
    assert list(wattswarm(first, "node", "status")["offline"]) == [dev.ids[1]]

    wattswarm(second, "node", "up")
    eventually(lambda: wattswarm(first, "task", "watch", "t-1", "--once")["state"] == "FINALIZED")
    assert wattswarm(first, "node", "status")["offline"] == {}


def test_dev_ends_on_ctrl_c_with_all_it_has_and_what_was_started_in_it(dev: Dev) -> None:
    assert daemon_process(dev.places[1])
    dev.process.send_signal(signal.SIGINT)
    said = dev.process.communicate(timeout=end_s)[1]
    assert dev.process.returncode == 0
    assert said.splitlines()[-1] == "the swarm has ended"
    home = dev.places[0].parent
    assert not home.exists()
    assert str(home) not in commands()
