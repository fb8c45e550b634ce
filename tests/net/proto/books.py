"""Books of places for tests: some that are filled, and how their dials end."""

from __future__ import annotations

import random

from net.proto.conduct import Ledger
from net.proto.peers import PeerBook
from net.proto.places import Source, Target

now = 1_700_000_000_000
minute = 60_000
me = b"\x00" * 32


def node(number: int) -> bytes:
    return number.to_bytes(32, "big")


def place(number: int) -> str:
    return f"10.0.{number // 256}.{number % 256}:4000"


def book(known: int = 0, source: Source = "stored", seed: int = 1, ledger: Ledger | None = None) -> PeerBook:
    """A book in which ``known`` nodes, numbered from 1, are written."""
    made = PeerBook(me, Ledger() if ledger is None else ledger, random.Random(seed))
    for number in range(1, known + 1):
        assert made.learn(place(number), source, node(number))
    return made


def connect(made: PeerBook, target: Target, at_ms: int) -> None:
    assert target.node_id is not None
    made.answered(target.address, target.node_id, at_ms)
    made.joined(target.node_id, target.address, at_ms, member=True)


def links(made: PeerBook, rounds: int = 10) -> list[Target]:
    """Let every dial succeed until nobody is dialled any more."""
    dialled: list[Target] = []
    for _ in range(rounds):
        for target in made.dial(now):
            connect(made, target, now)
            dialled.append(target)
    return dialled
