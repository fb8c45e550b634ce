"""``node up``, ``down``, ``status`` and ``wattswarm-node``: the daemon as people start, see and stop it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cli.node_daemon import words
from tests.cli.conftest import Shell
from tests.sizes import root


@pytest.fixture
def node(fresh: Shell) -> Iterator[Shell]:
    """An empty directory whose daemon, if a test started one, is stopped afterwards."""
    yield fresh
    fresh("node", "down")


def status(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell("node", "status", "--json").stdout)
    return found


def test_up_starts_it_status_shows_it_and_down_stops_it(node: Shell) -> None:
    up = json.loads(node("node", "up", "--json").stdout)
    found = status(node)
    assert (found["running"], found["process"], found["phase"]) == (True, up["process"], "ready")
    head = json.loads(node("log", "head", "--json").stdout)
    assert {name: found[name] for name in ("events", "fingerprint", "state_root", "node_id", "network_id")} == {
        name: head[name] for name in ("events", "fingerprint", "state_root", "node_id", "network_id")
    }
    assert (found["peers"], found["forks"], found["alarms"]) == ([], [], [])
    assert "runs already" in node("node", "up").stderr
    assert "stopped" in node("node", "down").stderr
    assert not status(node)["running"]
    assert "no daemon runs" in node("node", "down").stderr


def test_status_reads_well_for_a_person(node: Shell) -> None:
    node("node", "up")
    said = node("node", "status").stdout
    lines = dict(line.split(None, 1) for line in said.splitlines())
    assert lines["running"].startswith("yes  ready, process ")
    assert lines["alarms"] == lines["forks"] == lines["conflicts"] == lines["peers"] == lines["missing"] == "none"
    assert lines["decides"] == "1 finalizer decides alone: without it nothing is decided"
    assert "None" not in said


def test_up_that_fails_says_why_with_the_last_words_of_the_daemon(fresh: Shell) -> None:
    done = fresh("--pg-url", "postgresql://x@127.0.0.1:1/x", "node", "up", ok=False)
    assert done.returncode == 1
    assert "did not become ready" in done.stderr
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize(("flag", "value"), [("--listen", "nowhere"), ("--bootstrap", "a,b"), ("--observers", "70000")])
def test_wrong_setting_is_told_before_anything_starts(flag: str, value: str, fresh: Shell) -> None:
    done = fresh("node", "up", flag, value, ok=False)
    assert done.returncode == 1
    assert value in done.stderr
    assert not list(fresh.directory.iterdir())


def test_killed_daemon_is_known_to_be_gone(node: Shell) -> None:
    pid = json.loads(node("node", "up", "--json").stdout)["process"]
    os.kill(pid, signal.SIGKILL)
    found = status(node)
    while found["running"]:  # the kernel takes a moment
        found = status(node)
    assert any(f"process {pid}" in alarm and "without saying so" in alarm for alarm in found["alarms"])
    assert json.loads(node("node", "up", "--json").stdout)["process"] != pid
    assert status(node)["alarms"] == []


def test_watch_follows_a_task_to_its_end_and_says_what_it_waits_for(node: Shell, runtime_url: str) -> None:
    (node.directory / "t.json").write_text(node("task", "sample", "--task-id", "t-1").stdout)
    node("task", "submit", "t.json")
    watcher = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "task", "watch", "t-1"],
        cwd=node.directory,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    first = [watcher.stdout.readline() for _ in range(2)]
    node("executors", "add", "rt", runtime_url)
    node("node", "up")
    rest, said = watcher.communicate(timeout=60)
    assert "OPEN" in first[0]
    assert "waiting for a candidate: node " in first[1]
    assert "FINALIZED" in rest.splitlines()[-1]
    assert "`wattswarm node up` starts it" in said


def test_flags_of_up_reach_the_daemon_as_they_were_said() -> None:
    flags = {
        "state_dir": "here",
        "pg_url": None,
        "listen": "127.0.0.1:1",
        "bootstrap": "a:1,b:2",
        "udp_announce_enabled": "false",
        "autopilot": "true",
    }
    said = "--state-dir here --listen 127.0.0.1:1 --bootstrap a:1 --bootstrap b:2 --no-udp --autopilot"
    assert " ".join(words(flags)) == said


def test_daemon_has_help_and_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.node_daemon", "--help"], capture_output=True, text=True, check=True, cwd=root
    )
    assert "Usage:" in done.stdout
    assert "Example: wattswarm-node" in done.stdout
