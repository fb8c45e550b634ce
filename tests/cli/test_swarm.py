"""Four daemons as processes, found by multicast alone or by one address alone: one task, one decision everywhere."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Daemon, clean_environment, contract, daemon, patience_s, place, wattswarm
from tests.sizes import root
from wattswarm.home import open_home
from wattswarm.kernel.genesis import make_genesis

everything = frozenset({"proposer", "verifier", "committer", "finalizer"})


def founded(places: list[Path]) -> bytes:
    """One network of a node in each place; its id."""
    from wattswarm.node import now_ms

    homes = []
    for where in places:
        homes.append(open_home(where, now_ms()))
        (where / "network.cbor").unlink()
    members = {home.keys.node_id: everything for home in homes}
    genesis = make_genesis(
        name="swarm",
        created_at=now_ms() - 1_000,
        fault_model="byzantine",
        members=members,
        signers=[home.keys for home in homes],
    )
    for where in places:
        open_home(where, now_ms(), genesis)
    return genesis.network_id


@contextmanager
def runtime() -> Iterator[str]:
    """The reference runtime as a process; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "wattswarm.runtime.reference", "--listen", "127.0.0.1:0", "--task-types", "swarm"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**clean_environment, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.communicate()


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def eventually(what: Any, wanted: Any, within_s: float = patience_s) -> None:
    """Ask until the answer is the wanted one."""
    deadline = time.monotonic() + within_s
    while (found := what()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} is not {wanted!r}"
        time.sleep(0.05)


def peers_of(where: Path) -> set[str]:
    said = json.loads((where / "node_state.json").read_bytes())
    return {peer["node_id"] for peer in said["peers"]}


def totals(where: Path) -> tuple[Any, ...]:
    head = wattswarm(where, "log", "head")
    return head["events"], head["fingerprint"], head["state_root"]


@dataclass
class Swarm:
    places: list[Path]
    daemons: list[Daemon]
    network: bytes

    def listens(self, number: int) -> str:
        port = self.daemons[number].ready.rsplit(":", 1)[1]
        return f"127.0.0.1:{port}"


@pytest.fixture(params=["udp", "bootstrap"])
def swarm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    with ExitStack() as stack:
        places = [stack.enter_context(place()) for _ in range(4)]
        network = founded(places)
        url = stack.enter_context(runtime())
        for where in places:
            wattswarm(where, "executors", "add", "rt", url)
        monkeypatch.setitem(clean_environment, "WATTSWARM_UDP_ANNOUNCE_PORT", str(free_udp_port()))
        flags = ["--udp"] if request.param == "udp" else ["--listen", "127.0.0.1:0"]
        daemons = []
        for where in places:
            daemons.append(stack.enter_context(daemon(where, *flags)))
            if request.param == "bootstrap":
                flags = ["--bootstrap", daemons[0].ready.rsplit("=", 1)[1]]
        yield Swarm(places, daemons, network)


def test_a_task_is_decided_alike_on_all_and_proved_to_anybody(swarm: Swarm, tmp_path: Path) -> None:
    ids = {one.ready.split("node_id=")[1][:64] for one in swarm.daemons}
    for where, one in zip(swarm.places, swarm.daemons, strict=True):
        me = one.ready.split("node_id=")[1][:64]
        eventually(lambda where=where: peers_of(where), ids - {me})
    document = contract("both")
    document["acceptance"] |= {"quorum_threshold": 2, "da_quorum_threshold": 2}
    document["assignment"]["verify"]["max_verifiers"] = 2
    document["assignment"]["claim"]["max_concurrency"]["verify"] = 2
    file = tmp_path / "task.json"
    file.write_text(json.dumps(document))
    wattswarm(swarm.places[1], "task", "submit", str(file))

    def decided(where: Path) -> str:
        return str(wattswarm(where, "task", "watch", "both", "--once")["state"])

    eventually(lambda: decided(swarm.places[1]), "FINALIZED")
    for where in swarm.places:
        eventually(lambda where=where: totals(where), totals(swarm.places[0]))
        assert decided(where) == "FINALIZED"
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
