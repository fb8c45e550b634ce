"""Hosts that are cut, lossy, and gone in the end: the harness itself, with a socket at each end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsim.cluster.lan import Lan, open_lan

answering = (
    "import socket; s = socket.create_server(('', 7000)); print('up', flush=True)\n"
    "while True: s.accept()[0].sendall(b'here')"
)
asking = "import socket, sys; print(socket.create_connection((sys.argv[1], 7000), 2).recv(4).decode())"
calling = (
    "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
    "for _ in range(2000): s.sendto(b'x', (sys.argv[1], 7001))"
)
counting = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 7001))\n"
    "s.setsockopt(socket.SOL_SOCKET, 33, 1 << 23); print('up', flush=True); s.settimeout(3); n = 0\n"
    "try:\n while True: s.recv(9); n += 1\nexcept TimeoutError: print(n)"
)


def start(lan: Lan, host: int, script: str, *words: str) -> subprocess.Popen[str]:
    command = [*lan.within(host), sys.executable, "-c", script, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(lan: Lan, asker: int) -> str:
    """What host 0 answers; or the last line of why not."""
    said, why = start(lan, asker, asking, lan.address(0)).communicate(timeout=30)
    return said.strip() or why.strip().splitlines()[-1].split(":")[0]


@pytest.fixture
def lan(hosts_can_be_made: None) -> Iterator[Lan]:
    with open_lan(3) as made, start(made, 0, answering) as server:
        assert server.stdout is not None
        server.stdout.readline()
        yield made
        server.kill()


def test_a_cut_is_silent_or_resets_and_heals(lan: Lan) -> None:
    assert answer(lan, 1) == "here"
    lan.cut([0], [1])
    assert (answer(lan, 1), answer(lan, 2)) == ("TimeoutError", "here")
    lan.heal()
    lan.cut([0], [1], "reset")
    assert (answer(lan, 1), answer(lan, 2)) == ("ConnectionRefusedError", "here")
    lan.heal()
    assert (answer(lan, 1), answer(lan, 2)) == ("here", "here")


def test_the_share_that_is_lost_is_the_share_that_was_wanted(lan: Lan) -> None:
    lan.lose(30)
    with start(lan, 0, counting) as counter:
        assert counter.stdout is not None
        counter.stdout.readline()
        start(lan, 1, calling, lan.address(0)).communicate(timeout=30)
        came = int(counter.stdout.readline())
    assert 1_200 < came < 1_600


def test_hosts_are_gone_with_their_block_and_whatever_ran_in_them(hosts_can_be_made: None) -> None:
    with open_lan(1) as made:
        server = start(made, 0, answering)
        assert Path("/run/netns", made.namespace(0)).exists()
    server.communicate(timeout=30)
    assert server.returncode < 0
    assert not [*Path("/run/netns").glob(f"{made.name}-*")]


def test_what_a_killed_run_left_is_removed_by_the_next(hosts_can_be_made: None) -> None:
    script = "import os\nfrom netsim.cluster.lan import open_lan\nwith open_lan(1): os.kill(os.getpid(), 9)"
    killed = subprocess.Popen([sys.executable, "-c", script], cwd=os.getcwd())
    killed.communicate(timeout=30)
    assert [*Path("/run/netns").glob(f"wslan-{killed.pid}-*")]
    with open_lan(1):
        assert not [*Path("/run/netns").glob(f"wslan-{killed.pid}-*")]
