"""Signatures in numbers: who checks them makes no difference, and a helper process that dies costs nothing but time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from msgspec.structs import replace

from bench.swarm import Swarm, history
from sel import signatures, verifier
from sel.signatures import bad_signatures, claims_of, claims_within, open_checker
from wattswarm.kernel import identity
from wattswarm.kernel.event import Event
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network


def forged(said: Event) -> Event:
    """The event with a signature of somebody else's."""
    return replace(said, signature=Keypair(b"\x99" * 32).sign(said.id))


def helpers() -> list[int]:
    """The processes that check signatures for this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == os.getpid() and b"sel.verifier" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


async def test_the_bad_ones_are_found_by_threads_and_helper_and_without_the_helper_that_died() -> None:
    swarm = Swarm()
    network = Network.of(swarm.genesis)
    events = [said for told in history(swarm, 3 * signatures.many_claims) for said in told]
    events[5], events[70] = forged(events[5]), forged(events[70])
    wanted = [events[5].id, events[70].id]

    async def found() -> list[bytes]:
        return [said.id for said in await bad_signatures(events, (), network, checker.check)]

    with trio.fail_after(30):
        async with open_checker() as checker:
            assert await found() == wanted
            while checker.helper is None:
                await trio.lowlevel.checkpoint()
            assert await found() == wanted
            (helper,) = helpers()
            os.kill(helper, signal.SIGKILL)
            assert await found() == wanted
    assert helpers() == []


async def test_votes_and_proofs_are_known_when_the_rules_ask() -> None:
    swarm = Swarm()
    network = Network.of(swarm.genesis)
    (events,) = history(swarm, 13)
    within = set(claims_within(events, (), network))
    assert len(within) == 3, "three finalizers, each in a vote and in the proof"
    assert await bad_signatures(events, (), network) == []
    assert all(identity.remembers(*claim) for claim in [*claims_of(events), *within])


@pytest.mark.parametrize("sent", [0.01, 0.3, 0.999, 1.0])
def test_the_helper_ends_without_a_word_when_who_started_it_is_gone_in_the_midst(sent: float) -> None:
    claim = Keypair(b"\x01" * 32).node_id, bytes(64), b"message"
    request = verifier.count.pack(500) + b"".join(
        verifier.record.pack(len(message), node_id, signature) + message
        for node_id, signature, message in [claim] * 500
    )
    helper = subprocess.Popen(
        [sys.executable, "-m", "sel.verifier"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert helper.stdout is not None
    helper.stdout.close()
    _, said = helper.communicate(request[: round(sent * len(request))], timeout=30)
    assert said == b""
    assert helper.returncode == (0 if sent < 1 else -signal.SIGPIPE)
