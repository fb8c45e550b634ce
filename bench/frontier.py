"""Two nodes connect that hold the same 100,000 events, or all but one: what they say until both know, byte by byte.

Two machines back to back, frames carried by hand; what it costs to say what a node holds is the handshake's own bytes.
Where one event is missing, its chain's end says so: the frontier, and then one range.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from pathlib import Path

from bench.figure import Figure
from net.proto import frame
from net.proto import message as m
from net.proto import values as v
from net.proto.handshake import Me
from net.proto.items import Items
from net.proto.machine import Machine, Ways
from net.proto.message import Standing, Total
from wattswarm.kernel import codec
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import LOCAL_PROTOCOL_VERSION

size = 100_000
author_count = 16
start_s = 1_700_000_000
network_id = sha256(b"bench")
equal_bytes_goal = 100.0
bytes_an_author_goal = 64.0
more_bytes_goal = 100.0
keys = [Keypair(sha256(bytes([number]))) for number in range(2)]
Entry = tuple[bytes, int, int, bytes]
"""Author, seq, seconds, id."""


def made() -> list[Entry]:
    """Events of sixteen authors in turn."""
    source = random.Random(1)
    authors = [source.randbytes(32) for _ in range(author_count)]
    return [(authors[at % author_count], at // author_count, start_s + at, source.randbytes(32)) for at in range(size)]


def machine(number: int, log: list[Entry]) -> Machine:
    """A node that holds ``log``."""
    total = sum(int.from_bytes(event_id, "little") for *_, event_id in log) % (1 << 256)
    standing = Standing(
        Total(len(log), total.to_bytes(32, "little")), Total(0, bytes(32)), bytes(32), LOCAL_PROTOCOL_VERSION
    )
    chains = {author: (seq, event_id) for author, seq, _, event_id in log}
    stock = v.Stock(Items((seconds, event_id) for _, _, seconds, event_id in log), [], [], chains, standing)
    return Machine(Ways(Me(keys[number], network_id, 1), lambda _: True), stock, random.Random(number), 0)


def spoken(one: Machine, other: Machine) -> tuple[dict[str, int], int]:
    """Bytes by message until the two have nothing to say or ask the log, and those of the fingerprints among them."""
    said: dict[str, int] = defaultdict(int)
    fingerprint_bytes = 0
    waiting: deque[tuple[Machine, v.Input]] = deque(
        [(one, v.Opened(1, "b:1", keys[1].node_id)), (other, v.Opened(1, "a:1", None))]
    )
    while waiting:
        node, given = waiting.popleft()
        for output in node.handle(given, 0):
            if isinstance(output, v.Send):
                message = frame.decode(output.frame)
                said[type(message).__name__] += len(output.frame)
                if isinstance(message, m.Welcome):
                    totals = [
                        [total.count, total.sum] for total in (message.standing.events, message.standing.certificates)
                    ]
                    fingerprint_bytes = len(codec.encode(totals))
                waiting.append((other if node is one else one, v.Received(1, output.frame)))
    return said, fingerprint_bytes


async def measure(_directory: Path) -> list[Figure]:
    """Four figures: messages and bytes for equal logs; bytes and messages of the frontier where one is missing."""
    log = made()
    handshake = {"Hello", "Welcome", "PeersGet", "Peers", "Ping", "Pong"}
    same, fingerprint_bytes = spoken(machine(0, log), machine(1, log))
    more = [name for name in same if name not in handshake]
    lacking, _ = spoken(machine(0, log[:-1]), machine(1, log))
    frontier = (lacking["FrontierGet"] + lacking["Frontier"]) / 2  # each asked the other
    goal = bytes_an_author_goal * author_count + more_bytes_goal
    basis = f"{size:,} events of {author_count} authors"
    found = f"{frontier / author_count:.0f} B an author, each way; then one RANGE_GET of {lacking['RangeGet']} B"
    return [
        Figure("equal logs, messages beside the handshake", len(more), 0.0, basis, least=False),
        Figure("equal logs, bytes that say so", fingerprint_bytes, equal_bytes_goal, basis, least=False),
        Figure("1 missing, bytes of the frontier", frontier, goal, found, least=False),
        Figure("1 missing, ranges asked for", float("RangeGet" in lacking), 1.0, basis),
    ]
