"""Announcing oneself on the local network, and hearing others do (docs/network.md §2).

A datagram is CBOR ``[body, signature]``, the body ``[kind, network, node id, listen port, boot id, counter, time]``.
It is a hint and nothing else: it says that a node may be dialled at the host that the datagram came from. Trust begins
with the handshake. So everything that is wrong with one is a reason to drop it, never an error; and the dear part, the
signature, is looked at last, and only for nodes that would be dialled at all.

Knows no socket: hosts are texts, times unix ms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from net.proto.address import Port, join
from net.proto.budget import Buckets, Rate, TokenBucket
from wattswarm.kernel import codec, identity, limits
from wattswarm.kernel.genesis import UnixMs
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads.fields import Hash, NodeId, Signature
from wattswarm.kernel.refusal import Malformed

kind: Final = "wattswarm_udp_announce_v1"
multicast_host = "239.255.42.99"
port_default = 37_931
signature_context = b"wattswarm/announce/v1\0"
datagram_bytes_max = 512
every_ms = 5_000
prompted_ms_min = 1_000
skew_ms_max = 30_000
silence_ms_max = 30_000
expire_every_ms = 1_000
entries_max = 1_024
entries_a_source_max = 16
sources_max = 1_024
checks_kept_max = 256
per_source: Final = Rate(5, 1_000, 5)
checks_in_all: Final = Rate(200, 1_000, 200)  # source addresses are easily made up; the cost of them all is bounded

Dropped = Literal[
    "source_budget", "check_budget", "too_large", "malformed", "other_network", "own", "time", "stranger",
    "old_counter", "source_entries", "entries", "bad_signature",
]  # fmt: skip


class Announcement(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a node says: that it listens at ``port`` of wherever this comes from. ``counter`` grows within a boot."""

    kind: Literal["wattswarm_udp_announce_v1"]
    network_id: Hash
    node_id: NodeId
    port: Port
    boot_id: Annotated[int, Meta(ge=0)]
    counter: Annotated[int, Meta(ge=0, le=limits.counter_max)]
    time_ms: UnixMs


class Heard(msgspec.Struct, frozen=True):
    """A node that may be dialled at ``address``. ``new``: it was silent before, has restarted, or is elsewhere now."""

    node_id: bytes
    address: str
    new: bool


class Announcer:
    """When this node announces itself, and what it says. ``boot_id``: greater at every start."""

    def __init__(self, keys: Keypair, network_id: bytes, port: int, boot_id: int) -> None:
        self._keys = keys
        self._network_id = network_id
        self._port = port
        self._boot_id = boot_id
        self._counter = 0
        self._last_ms: int | None = None
        self._prompted = False

    def prompt(self) -> None:
        """A member was newly heard, and may not have heard this node yet: announce sooner."""
        self._prompted = True

    def next_ms(self, now_ms: int) -> int:
        """When ``due`` has something to send."""
        if self._last_ms is None:
            return now_ms
        self._last_ms = min(self._last_ms, now_ms)  # a clock that went back does not silence the node
        return self._last_ms + (prompted_ms_min if self._prompted else every_ms)

    def due(self, now_ms: int) -> bytes | None:
        """The datagram to send now, if it is time: at the start, every 5 s, once more a second if prompted."""
        if now_ms < self.next_ms(now_ms):
            return None
        self._last_ms = now_ms
        self._prompted = False
        self._counter += 1
        return write(
            self._keys,
            Announcement(kind, self._network_id, self._keys.node_id, self._port, self._boot_id, self._counter, now_ms),
        )


def write(keys: Keypair, said: Announcement) -> bytes:
    """The datagram of an announcement."""
    body = codec.encode(msgspec.to_builtins(said, builtin_types=(bytes,)))
    datagram = codec.encode([body, keys.sign(signature_context + body)])
    assert len(datagram) <= datagram_bytes_max
    return datagram


@lru_cache(checks_kept_max)
def read(datagram: bytes) -> tuple[Announcement, bytes, bytes]:
    """(announcement, its body, signature), the signature not checked. Raises ``Malformed``.

    Nodes in one process hear the same datagrams: the last are remembered, and the last checks of them.
    """
    body, signature = _typed(codec.decode(datagram), tuple[bytes, Signature])
    return _typed(codec.decode(body), Announcement), body, signature


def _typed(value: Any, wanted: Any) -> Any:
    try:
        return msgspec.convert(value, wanted, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise Malformed("announce_form", f"announcement: {str(error)[:200]}") from None


@lru_cache(checks_kept_max)
def _is_signed(node_id: bytes, body: bytes, signature: bytes) -> bool:
    """Whether the node said so."""
    return identity.holds(node_id, signature_context + body, signature)


@dataclass(slots=True)
class _Entry:
    boot_id: int
    counter: int
    source: str
    address: str
    heard_ms: int
    until_ms: int


class Ear:
    """Who was heard lately. ``is_wanted``: whether a node would be dialled, being a member or invited."""

    def __init__(self, network_id: bytes, node_id: bytes, is_wanted: Callable[[bytes], bool], now_ms: int) -> None:
        self._network_id = network_id
        self._node_id = node_id
        self._is_wanted = is_wanted
        self._entries: dict[bytes, _Entry] = {}
        self._of_source: Counter[str] = Counter()
        self._sources: Buckets[str] = Buckets(per_source, sources_max)
        self._checks = TokenBucket(checks_in_all, now_ms)
        self._expired_ms = now_ms

    def __len__(self) -> int:
        return len(self._entries)

    def here(self, now_ms: int) -> Iterator[tuple[bytes, str]]:
        """(node id, address) of those heard in the last 30 s."""
        for node_id, entry in self._entries.items():
            if abs(now_ms - entry.heard_ms) <= silence_ms_max:
                yield node_id, entry.address

    def hear(self, source: str, datagram: bytes, now_ms: int) -> Heard | Dropped:
        """Judge a datagram that came from the host ``source``; the cheap reasons to drop it come first."""
        if not self._sources.take(source, 1, now_ms):
            return "source_budget"
        if len(datagram) > datagram_bytes_max:
            return "too_large"
        try:
            said, body, signature = read(datagram)
        except Malformed:
            return "malformed"
        reason = self._against(said, source, now_ms)
        if reason is not None:
            return reason
        if not self._checks.take(1, now_ms):
            return "check_budget"
        if not _is_signed(said.node_id, body, signature):
            return "bad_signature"
        return self._note(said, source, now_ms)

    def _against(self, said: Announcement, source: str, now_ms: int) -> Dropped | None:
        if said.network_id != self._network_id:
            return "other_network"
        if said.node_id == self._node_id:
            return "own"
        if abs(said.time_ms - now_ms) > skew_ms_max:
            return "time"
        if not self._is_wanted(said.node_id):
            return "stranger"
        self._expire(now_ms)
        entry = self._entries.get(said.node_id)
        if entry is not None and (said.boot_id, said.counter) <= (entry.boot_id, entry.counter):
            return "old_counter"
        if (entry is None or entry.source != source) and self._of_source[source] >= entries_a_source_max:
            return "source_entries"
        if entry is None and len(self._entries) >= entries_max:
            return "entries"
        return None

    def _note(self, said: Announcement, source: str, now_ms: int) -> Heard:
        address = join(source, said.port)
        before = self._entries.get(said.node_id)
        new = (
            before is None
            or (before.address, before.boot_id) != (address, said.boot_id)
            or not 0 <= now_ms - before.heard_ms <= silence_ms_max
        )
        self._forget(said.node_id)
        # kept until its own time is too old: an entry that went sooner could be brought back by a replay
        until_ms = max(now_ms, said.time_ms) + silence_ms_max
        self._entries[said.node_id] = _Entry(said.boot_id, said.counter, source, address, now_ms, until_ms)
        self._of_source[source] += 1
        return Heard(said.node_id, address, new)

    def _expire(self, now_ms: int) -> None:
        if 0 <= now_ms - self._expired_ms < expire_every_ms:
            return
        self._expired_ms = now_ms
        over = [
            node_id
            for node_id, entry in self._entries.items()
            if not 0 <= entry.until_ms - now_ms <= silence_ms_max + skew_ms_max
        ]
        for node_id in over:
            self._forget(node_id)

    def _forget(self, node_id: bytes) -> None:
        entry = self._entries.pop(node_id, None)
        if entry is not None:
            self._of_source[entry.source] -= 1
            if not self._of_source[entry.source]:
                del self._of_source[entry.source]
