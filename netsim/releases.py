"""Two releases of the program in one process: what a node's own release knows, and how a log goes over to another.

A release is the protocol version that it authors in, those that it understands, and the wire versions that it speaks.
The kernel has the former as constants of the running program, so a node sets them before it does anything that they
decide. The newer release differs from this program in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from net.proto.handshake import wire_versions
from netsim.disk import SimStore
from sel.ingest import Knowledge, Taken, take_in
from sel.memory import at_once
from sel.store import Txn, Wire
from wattswarm.kernel import limits
from wattswarm.kernel.event import Event
from wattswarm.kernel.membership import Network
from wattswarm.shared_log import sorted_out


@dataclass(frozen=True, slots=True)
class Release:
    """One release of the program."""

    protocol: str
    understood: tuple[str, ...]
    wire: tuple[int, ...]

    def runs(self) -> None:
        """What is done from here on, this release does."""
        if self.protocol != limits.LOCAL_PROTOCOL_VERSION:
            limits.LOCAL_PROTOCOL_VERSION, limits.protocol_versions = self.protocol, self.understood


this = Release(limits.LOCAL_PROTOCOL_VERSION, limits.protocol_versions, wire_versions)
newer = Release("next", (*this.understood, "next"), (*this.wire, max(this.wire) + 1))


def folded_again(store: SimStore, network: Network, decode: Callable[[Wire], Event | None], now_ms: int) -> SimStore:
    """A log as the running release reads it: what it holds is the same, what that means may not be.

    Over Postgres, ``sel.replay.upgrade`` does so. ``network``: at version 0. What binds this node stays.
    """
    fresh = SimStore()
    fresh.votes, fresh.signatures, fresh.fences = store.votes, store.signatures, store.fences
    wires = [one.wire() for one in store.certificates.values()]
    certificates, *_ = sorted_out([*wires, *store.parked_certificates], network)
    logged = _read(store.events, decode)
    waiting = _read([parked.event for parked in store.parked.values()], decode)
    latest_ms = max([now_ms, *(event.created_at for event in logged)])

    async def work(txn: Txn) -> Taken:
        return await take_in(txn, Knowledge(network), [*logged, *waiting], certificates, latest_ms)

    at_once(fresh.transact(work))
    fresh.took()
    return fresh


def _read(events: Iterable[Event], decode: Callable[[Wire], Event | None]) -> list[Event]:
    read = [decode((event.body, event.signature)) for event in events]
    return [event for event in read if event is not None]
