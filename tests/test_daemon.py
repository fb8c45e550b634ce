"""The daemon as a process: tasks end without anybody's help, whatever is killed, and it ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sel.liveness import postmaster
from tests.daemons import Daemon, contract, daemon, eventually, kinds, place, states, submit, wattswarm
from wattswarm.runtime.local import reference_runtime

idle_s = 10.0  # slept in earnest: what idleness costs shows in time that passes


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with place() as path:
        yield path


def finalized(state_dir: Path, *labels: str) -> bool:
    return all(states(state_dir).get(label) == "FINALIZED" for label in labels)


def test_task_that_is_submitted_is_finalized_and_every_byte_of_it_holds(state_dir: Path) -> None:
    with reference_runtime() as url, daemon(state_dir) as node:
        wattswarm(state_dir, "executors", "add", "rt", url)
        submit(state_dir, contract("t-1"))
        eventually(lambda: finalized(state_dir, "t-1"), node.said())
        assert kinds(state_dir, "t-1")[-1] == "DECISION_FINALIZED"
        assert wattswarm(state_dir, "log", "verify")["ok"]


def test_task_of_before_the_daemon_and_executor_of_after_it_meet(state_dir: Path) -> None:
    wattswarm(state_dir, "task", "sample")
    submit(state_dir, contract("early"))
    with reference_runtime() as url, daemon(state_dir):
        assert "is the first of 1 in line" in wattswarm(state_dir, "task", "watch", "early", "--once")["waits_for"]
        wattswarm(state_dir, "executors", "add", "rt", url)
        eventually(lambda: finalized(state_dir, "early"))


def test_task_that_nobody_here_can_work_on_is_left_and_others_are_not(state_dir: Path) -> None:
    with reference_runtime() as url, daemon(state_dir):
        wattswarm(state_dir, "executors", "add", "rt", url)
        strange = contract("strange")
        strange["task_type"] = "something nobody serves"
        submit(state_dir, strange, contract("usual"))
        eventually(lambda: finalized(state_dir, "usual"))
        assert kinds(state_dir, "strange") == ["TASK_CREATED"]


def test_daemon_that_is_killed_in_mid_task_goes_on_where_it_was(state_dir: Path) -> None:
    with reference_runtime("--latency-ms", "700") as url:
        with daemon(state_dir) as first:
            wattswarm(state_dir, "executors", "add", "rt", url)
            submit(state_dir, contract("t-1"))
            eventually(lambda: "TASK_CLAIMED" in kinds(state_dir, "t-1"))
            first.kill()
        assert not finalized(state_dir, "t-1")
        with daemon(state_dir):
            eventually(lambda: finalized(state_dir, "t-1"))
            assert kinds(state_dir, "t-1").count("FINALITY_VOTE") == 1
            assert wattswarm(state_dir, "log", "verify")["ok"]


def test_daemon_lives_through_the_death_of_its_postgres(state_dir: Path) -> None:
    with reference_runtime("--latency-ms", "300") as url, daemon(state_dir) as node:
        wattswarm(state_dir, "executors", "add", "rt", url)
        submit(state_dir, *(contract(f"t-{number}") for number in range(3)))
        server = postmaster(state_dir / "pg/data")
        assert server
        os.kill(server, signal.SIGKILL)
        eventually(lambda: finalized(state_dir, "t-0", "t-1", "t-2"), node.said())
        submit(state_dir, contract("after"))
        eventually(lambda: finalized(state_dir, "after"), node.said())
        assert node.process.poll() is None
        assert wattswarm(state_dir, "log", "verify")["ok"]


def test_twenty_tasks_at_once_all_end(state_dir: Path) -> None:
    labels = [f"t-{number}" for number in range(20)]
    with ExitStack() as stack:
        url = stack.enter_context(reference_runtime("--latency-ms", "100"))
        with daemon(state_dir, "--no-autopilot"):
            wattswarm(state_dir, "executors", "add", "rt", url)
            submit(state_dir, *map(contract, labels))
        node = stack.enter_context(daemon(state_dir))
        eventually(lambda: finalized(state_dir, *labels), node.said())
        assert wattswarm(state_dir, "node", "status")["alarms"] == []


def test_executor_that_hangs_keeps_no_other_task_from_ending(state_dir: Path) -> None:
    with (
        reference_runtime("--latency-ms", "60000", "--task-types", "slow") as slow,
        reference_runtime() as quick,
        daemon(state_dir) as node,
    ):
        wattswarm(state_dir, "executors", "add", "slow", slow)
        wattswarm(state_dir, "executors", "add", "quick", quick)
        hanging = contract("hanging", time_ms=4_000, reuse_verify_time_ms=1_000)
        hanging["task_type"] = "slow"
        submit(state_dir, hanging, contract("other"))
        eventually(lambda: finalized(state_dir, "other"), node.said())
        eventually(lambda: "TASK_ERROR" in kinds(state_dir, "hanging"), node.said())
        assert node.stop() == 0


def test_executor_that_dies_is_found_again_when_it_is_back(state_dir: Path) -> None:
    with daemon(state_dir) as node:
        with reference_runtime() as url:
            wattswarm(state_dir, "executors", "add", "rt", url)
            eventually(lambda: "is well" in node.said())
        submit(state_dir, contract("t-1"))
        eventually(lambda: any("rt" in alarm for alarm in wattswarm(state_dir, "node", "status")["alarms"]))
        with reference_runtime("--listen", url.removeprefix("http://")):
            eventually(lambda: finalized(state_dir, "t-1"), node.said())


def test_second_daemon_is_refused_with_a_clear_line_and_the_first_goes_on(state_dir: Path) -> None:
    with daemon(state_dir) as first:
        second = Daemon(state_dir, wait=False)
        second.process.communicate(timeout=30)
        assert second.process.returncode == 1
        assert f"runs already (process {first.process.pid})" in second.said()
        assert "Traceback" not in second.said()
        assert wattswarm(state_dir, "node", "status")["process"] == first.process.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_cleanly_within_seconds(number: signal.Signals, state_dir: Path) -> None:
    with reference_runtime("--latency-ms", "5000") as url, daemon(state_dir) as node:
        wattswarm(state_dir, "executors", "add", "rt", url)
        submit(state_dir, contract("t-1"))
        eventually(lambda: "TASK_CLAIMED" in kinds(state_dir, "t-1"))
        began = time.monotonic()
        assert node.stop(number) == 0
        assert time.monotonic() - began < 5
        assert postmaster(state_dir / "pg/data") is None
        assert not (state_dir / "node_state.json").exists()
        assert "Traceback" not in node.said()


def test_ready_line_and_state_file_say_who_it_is(state_dir: Path) -> None:
    with daemon(state_dir) as node:
        said = dict(word.split("=") for word in node.ready.split()[1:])
        state = json.loads((state_dir / "node_state.json").read_text())
        assert (said["node_id"], said["network_id"]) == (state["node_id"], state["network_id"])
        assert (state["pid"], state["phase"]) == (node.process.pid, "ready")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024 / 1e6


def test_idle_daemon_takes_less_than_a_hundredth_of_a_core(state_dir: Path) -> None:
    with reference_runtime() as url, daemon(state_dir) as node:
        wattswarm(state_dir, "executors", "add", "rt", url)
        submit(state_dir, contract("t-1"))
        eventually(lambda: finalized(state_dir, "t-1"))
        before = cpu_s(node.process.pid)
        time.sleep(idle_s)
        share = (cpu_s(node.process.pid) - before) / idle_s
        print(f"idle: {share:.2%} of a core, RSS {rss_mb(node.process.pid):.0f} MB")
        assert share < 0.01
        assert rss_mb(node.process.pid) < 120
