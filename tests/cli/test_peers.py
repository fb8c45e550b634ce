"""What people see of peers and order about them, over a swarm of real daemons that follow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import clean_environment, contract, daemon, wattswarm
from tests.sizes import root
from tests.swarms import Swarm, becomes, meshed, node_id_of, open_swarm, peers_of
from wattswarm import discovered
from wattswarm.node import now_ms

offset = "WATTSWARM_TEST_CLOCK_OFFSET_MS"


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    with open_swarm(4, executors=False) as made:
        meshed(made.places)
        yield made


def peer(where: Path, node_id: str) -> dict[str, object]:
    """What a node's list says of another."""
    return next((one for one in wattswarm(where, "peers", "list")["peers"] if one["node_id"] == node_id), {})


def told(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command as a person sees it."""
    command = [sys.executable, "-m", "cli.main", "--state-dir", str(where), *words]
    environment = {**clean_environment, "PYTHONPATH": str(root)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_a_friend_is_asked_for_shown_to_its_operator_and_accepted(swarm: Swarm) -> None:
    here, there = swarm.places[:2]
    me, other = node_id_of(here), node_id_of(there)
    assert wattswarm(here, "peers", "befriend", other[:12]) == {"node_id": other, "friend": "asked"}
    becomes(lambda: peer(there, me).get("friend"), "asks you")
    shown = told(there, "peers", "list")
    assert f"`wattswarm peers befriend {me}`" in shown.stderr
    assert "asks you" in shown.stdout
    assert wattswarm(there, "peers", "befriend", me)["friend"] == "friend"
    becomes(lambda: peer(here, other).get("friend"), "friend")
    assert wattswarm(here, "peers", "befriend", "--remove", other)["friend"] == ""
    assert peer(here, other)["friend"] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("befriend", "ab" * 32), "no member"),
        (("befriend", "--remove", "ab" * 32), "neither of you asked"),
        (("add", "nowhere:"), "no address"),
        (("remove", "00000000"), "names no node"),
    ],
)
def test_what_cannot_be_ordered_is_refused_with_a_reason(words: tuple[str, ...], said: str, swarm: Swarm) -> None:
    done = told(swarm.places[0], "peers", *words)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_an_address_that_is_removed_is_let_go_and_one_that_is_added_is_dialled(swarm: Swarm) -> None:
    last, first = swarm.places[2], swarm.places[0]
    address = swarm.listens(0)
    assert peer(last, node_id_of(first))["direction"] == "out"
    wattswarm(last, "peers", "remove", address)
    becomes(lambda: node_id_of(first) in peers_of(last), False)
    assert wattswarm(last, "peers", "list")["removed"] == [address]
    wattswarm(last, "peers", "add", address)
    becomes(lambda: wattswarm(last, "peers", "list")["added"], [address])


def test_who_is_away_is_listed_and_found_again_from_what_was_kept(swarm: Swarm) -> None:
    where, others = swarm.places[1], (swarm.places[0], swarm.places[3])
    me = node_id_of(where)
    swarm.daemons[1].stop()
    becomes(lambda: me in peers_of(swarm.places[0]), False)
    away = peer(swarm.places[0], me)
    assert (away["connected"], bool(away["last_seen"]), away["roles"]) == (False, True, peer(others[1], me)["roles"])
    gone_ms = now_ms()
    becomes(lambda: int(str(peer(swarm.places[0], me)["last_seen"])) > gone_ms - 5_000, True)
    assert {one.node_id for one in discovered.read(where)} >= {node_id_of(other) for other in others}
    with daemon(where, "--listen", "127.0.0.1:0"):
        becomes(lambda: {node_id_of(other) for other in others} <= peers_of(where), True)
    (where / discovered.name).write_text("{")
    with daemon(where, "--listen", "127.0.0.1:0", "--bootstrap", swarm.listens(0)) as restarted:
        becomes(lambda: node_id_of(others[0]) in peers_of(where), True)
        assert "what was discovered before is forgotten" in restarted.said()
        becomes(lambda: node_id_of(others[0]) in {one.node_id for one in discovered.read(where)}, True)


def test_a_node_whose_clock_is_ahead_says_so_and_authors_nothing_until_it_is_mended(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    where = swarm.places[3]
    swarm.daemons[3].stop()
    file = tmp_path / "task.json"
    file.write_text(json.dumps(contract("wrong-clock")))
    with monkeypatch.context() as wrong, daemon(swarm.places[1], "--bootstrap", swarm.listens(0)):
        wrong.setitem(clean_environment, offset, "10000")
        with daemon(where, "--bootstrap", swarm.listens(0)):
            becomes(lambda: len(peers_of(where)), 3)
            becomes(lambda: _alarmed(where), True)
            refused = told(where, "task", "submit", str(file))
            assert refused.returncode == 1
            assert "authors nothing" in refused.stderr
    with daemon(where, "--bootstrap", swarm.listens(0)):
        becomes(lambda: len(peers_of(where)) >= 2, True)
        assert not _alarmed(where)
        wattswarm(where, "task", "submit", str(file))


def _alarmed(where: Path) -> bool:
    return any("ahead of those of this node's peers" in alarm for alarm in wattswarm(where, "node", "status")["alarms"])
