"""Four daemons as processes, found by multicast alone or by one address alone: one task, one decision everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.daemons import clean_environment, wattswarm
from tests.sizes import root
from tests.swarms import Swarm, becomes, free_udp_port, meshed, of_two, open_swarm, state_of, totals

connected_s_max = 4.0
"""One announcement is enough: the next one would come after 5 s. On a quiet machine it takes half a second."""


@pytest.fixture(params=["udp", "bootstrap"])
def swarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    monkeypatch.setitem(clean_environment, "WATTSWARM_UDP_ANNOUNCE_PORT", str(free_udp_port()))
    monkeypatch.setitem(clean_environment, "WATTSWARM_LOG_FORMAT", "json")
    with open_swarm(4, udp=request.param == "udp") as made:
        yield made


def connected_after_s(swarm: Swarm) -> float:
    """From the moment the last daemon was ready to the last pair's connection, by the daemons' own logs."""
    ready: list[datetime] = []
    joined: list[datetime] = []
    for each in swarm.daemons:
        said = [json.loads(line) for line in each.said().splitlines()]
        met: dict[str, datetime] = {}
        for line in said:
            if line["event"] == "joined":
                met.setdefault(line["about"], datetime.fromisoformat(line["timestamp"]))
            elif line["event"] == "ready":
                ready.append(datetime.fromisoformat(line["timestamp"]))
        joined += met.values()
    assert len(ready) == len(swarm.daemons)
    assert len(joined) == len(ready) * (len(ready) - 1)
    took: timedelta = max(joined) - max(ready)
    return took.total_seconds()


def test_a_task_is_decided_alike_on_all_and_proved_to_anybody(swarm: Swarm, tmp_path: Path) -> None:
    meshed(swarm.places)
    assert connected_after_s(swarm) <= connected_s_max
    file = tmp_path / "task.json"
    file.write_text(json.dumps(of_two("both")))
    wattswarm(swarm.places[1], "task", "submit", str(file))
    becomes(lambda: state_of(swarm.places[1], "both"), "FINALIZED")
    for where in swarm.places:
        becomes(partial(totals, where), totals(swarm.places[0]))
        assert state_of(where, "both") == "FINALIZED"
    assert {peer["in_sync"] for peer in wattswarm(swarm.places[2], "peers", "list")["peers"]} == {True}

    task = wattswarm(swarm.places[3], "task", "decision", "both")["task"]
    peer = swarm.listens(3)
    anybody = [
        sys.executable, "-m", "cli.main", "--state-dir", str(tmp_path / "none"), "--json",
        "proof", "fetch", task, "--peer", peer, "--network", swarm.network.hex(),
    ]  # fmt: skip
    asked = subprocess.run(
        anybody, env={**clean_environment, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    if "0.0.0.0" in swarm.daemons[3].ready:
        assert "not_a_member" in asked.stderr
        assert asked.returncode == 1
    else:
        assert asked.returncode == 0, asked.stderr
        assert json.loads(asked.stdout)["network_pinned"] is True
        assert not (tmp_path / "none").exists()
