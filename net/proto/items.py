"""The sorted set of (seconds, id) that reconciliation compares: packed, so that a million events fit in memory.

An item is one record of 40 bytes: seconds, big-endian, then the id; so records, and the bounds between them (which are
beginnings of records), compare as plain bytes. Records lie in immutable blocks, each with the sum of its ids, so that
the sum over any range costs O(blocks) and never a scan of the set (docs/network.md §6). The set knows nothing of
messages, sessions or events.

Reading goes through a ``View``, which no later insertion changes: long work may be cut into slices around it.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise

id_bytes = 32
seconds_bytes = 8
record_bytes = seconds_bytes + id_bytes
block_items_max = 1024
bulk_items = 32_768
few_items = 16

seconds_max = (1 << 64) - 2  # the largest u64 means infinity on the wire
infinity = b"\xff" * seconds_bytes  # a bound above every record
sum_modulus = 1 << (8 * id_bytes)

_ids = struct.Struct(f"{seconds_bytes}x{id_bytes}s")
_lane_bits = 8 * record_bytes
_guard_bits = 8 * seconds_bytes
_id_lanes = int.from_bytes((bytes(seconds_bytes) + b"\xff" * id_bytes) * block_items_max, "little")


def record(seconds: int, item_id: bytes) -> bytes:
    """The item as it is stored and compared."""
    assert 0 <= seconds <= seconds_max
    assert len(item_id) == id_bytes
    return seconds.to_bytes(seconds_bytes, "big") + item_id


def sum_of_ids(packed: bytes) -> int:
    """The ids of at most a block of records, as little-endian integers, summed mod 2^256.

    All at once, in one long integer of 320-bit lanes that is folded in half until one lane is left: ten additions for
    a block instead of a thousand. Carries out of a lane run into the 64 bits that held the next record's seconds.
    """
    lanes = len(packed) // record_bytes
    whole = int.from_bytes(packed, "little") & _id_lanes
    while lanes > 1:
        lanes = (lanes + 1) // 2
        width = lanes * _lane_bits
        high = whole >> width
        whole = high + (whole ^ (high << width))
    return (whole >> _guard_bits) % sum_modulus


@dataclass(frozen=True, slots=True)
class View:
    """The set at one moment. Indexes are those of the sorted items; ranges include ``lower`` and exclude ``upper``."""

    blocks: tuple[bytes, ...]
    firsts: tuple[bytes, ...]  # the first record of each block
    counts: tuple[int, ...]  # items before each block, and in the end all
    sums: tuple[int, ...]  # the same for the sums of ids, not yet mod 2^256

    def __len__(self) -> int:
        return self.counts[-1]

    def index(self, bound: bytes) -> int:
        """How many items lie below ``bound``, which is a beginning of a record."""
        block = bisect_left(self.firsts, bound) - 1
        return 0 if block < 0 else self.counts[block] + _position(self.blocks[block], bound)

    def record(self, index: int) -> bytes:
        """The item at ``index``."""
        block, position = self._place(index)
        return _record_at(self.blocks[block], position)

    def ids(self, lower: int, upper: int) -> Iterator[bytes]:
        """The ids of a range, in the order of the items."""
        return chain.from_iterable(chain.from_iterable(map(_ids.iter_unpack, self._slices(lower, upper))))

    def sum(self, lower: int, upper: int) -> int:
        """The ids of a range as little-endian integers, summed mod 2^256."""
        if lower == upper:
            return 0
        block, position = self._place(lower)
        if upper <= self.counts[block + 1]:
            return self._part(block, position, upper - self.counts[block])
        return (self._sum_below(upper) - self._sum_below(lower)) % sum_modulus

    def _sum_below(self, index: int) -> int:
        if index == len(self):
            return self.sums[-1]
        block, position = self._place(index)
        return self.sums[block] + self._part(block, 0, position)

    def _part(self, block: int, first: int, end: int) -> int:
        """The sum over a part of a block: what is in it, or all but what is not, whichever is less work."""
        packed = self.blocks[block]
        inside = packed[first * record_bytes : end * record_bytes]
        if 2 * len(inside) <= len(packed):
            return sum_of_ids(inside)
        outside = packed[: first * record_bytes] + packed[end * record_bytes :]
        return (self.sums[block + 1] - self.sums[block] - sum_of_ids(outside)) % sum_modulus

    def _place(self, index: int) -> tuple[int, int]:
        """(block, position in it) of the item at ``index``."""
        assert 0 <= index < len(self)
        block = bisect_right(self.counts, index) - 1
        return block, index - self.counts[block]

    def _slices(self, lower: int, upper: int) -> Iterator[bytes]:
        """The records of a range, a block's worth at a time."""
        while lower < upper:
            block, position = self._place(lower)
            end = min(upper, self.counts[block + 1])
            yield self.blocks[block][position * record_bytes : (end - self.counts[block]) * record_bytes]
            lower = end


class Items:
    """The set itself. Insertion and removal copy one block; a bulk update copies each block that it touches once."""

    def __init__(self, items: Iterable[tuple[int, bytes]] = ()) -> None:
        self._blocks: list[bytes] = []
        self._firsts: list[bytes] = []
        self._sums: list[int] = []
        self._count = 0
        self._sum = 0
        self._view: View | None = None
        self.update(items)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: tuple[int, bytes]) -> bool:
        block, position, wanted = self._find(*item)
        return block >= 0 and _record_at(self._blocks[block], position) == wanted

    @property
    def total(self) -> tuple[int, bytes]:
        """(count, sum of the ids as 32 little-endian bytes): two sets with the same are taken for equal."""
        return self._count, self._sum.to_bytes(id_bytes, "little")

    def view(self) -> View:
        """The set as it is now. Costs O(blocks) after a change, nothing without one."""
        if self._view is None:
            counts = accumulate((len(block) // record_bytes for block in self._blocks), initial=0)
            sums = accumulate(self._sums, initial=0)
            self._view = View(tuple(self._blocks), tuple(self._firsts), tuple(counts), tuple(sums))
        return self._view

    def insert(self, seconds: int, item_id: bytes) -> bool:
        """Add an item; False if it was there."""
        block, position, new = self._find(seconds, item_id)
        if block < 0:
            self._replace(0, 0, new)
            return True
        packed, cut = self._blocks[block], position * record_bytes
        if _record_at(packed, position) == new:
            return False
        grown = packed[:cut] + new + packed[cut:]
        if len(grown) > block_items_max * record_bytes:
            self._replace(block, block + 1, grown)
            return True
        number = int.from_bytes(item_id, "little")
        self._blocks[block], self._firsts[block] = grown, grown[:record_bytes]
        self._sums[block] = (self._sums[block] + number) % sum_modulus
        self._count, self._sum, self._view = self._count + 1, (self._sum + number) % sum_modulus, None
        return True

    def remove(self, seconds: int, item_id: bytes) -> bool:
        """Take an item out; False if it was not there."""
        block, position, old = self._find(seconds, item_id)
        if block < 0 or _record_at(self._blocks[block], position) != old:
            return False
        packed, cut = self._blocks[block], position * record_bytes
        left, first, end = packed[:cut] + packed[cut + record_bytes :], block, block + 1
        if first > 0 and _small(self._blocks[first - 1], left):
            left, first = self._blocks[first - 1] + left, first - 1
        if end < len(self._blocks) and _small(left, self._blocks[end]):
            left, end = left + self._blocks[end], end + 1
        self._replace(first, end, left)
        return True

    def update(self, items: Iterable[tuple[int, bytes]]) -> int:
        """Add items, sorted or not, some of them perhaps there already; how many were new. A few go in one by one."""
        before, source = self._count, iter(items)
        few = list(islice(source, few_items + 1))
        if len(few) <= few_items:
            for seconds, item_id in few:
                self.insert(seconds, item_id)
            return self._count - before
        source = chain(few, source)
        while records := sorted(record(seconds, item_id) for seconds, item_id in islice(source, bulk_items)):
            self._merge(records)
        return self._count - before

    def _merge(self, records: list[bytes]) -> None:
        """Add sorted records: to each block those from its first record up to the next block's."""
        starts = [0, *(bisect_left(records, first) for first in self._firsts[1:]), len(records)]
        for block, (start, end) in reversed(list(enumerate(pairwise(starts)))):
            if start < end:
                packed = self._blocks[block] if self._blocks else b""
                there = (packed[at : at + record_bytes] for at in range(0, len(packed), record_bytes))
                merged = dict.fromkeys(sorted(chain(there, records[start:end])))
                self._replace(block, block + 1, b"".join(merged))

    def _find(self, seconds: int, item_id: bytes) -> tuple[int, int, bytes]:
        """(block, position in it) where the item is or belongs, and its record; block -1 in an empty set."""
        wanted = record(seconds, item_id)
        if not self._blocks:
            return -1, 0, wanted
        block = max(0, bisect_right(self._firsts, wanted) - 1)
        return block, _position(self._blocks[block], wanted), wanted

    def _replace(self, first: int, end: int, packed: bytes) -> None:
        """Put ``packed`` where the blocks ``first`` to ``end`` are: as no block, one, or several of nearly one size."""
        items = len(packed) // record_bytes
        pieces = -(-items // block_items_max)
        cuts = [items * piece // pieces * record_bytes for piece in range(pieces + 1)] if pieces else []
        blocks = [packed[start:stop] for start, stop in pairwise(cuts)]
        sums = [sum_of_ids(block) for block in blocks]
        self._count += items - sum(len(block) // record_bytes for block in self._blocks[first:end])
        self._sum = (self._sum + sum(sums) - sum(self._sums[first:end])) % sum_modulus
        self._blocks[first:end] = blocks
        self._firsts[first:end] = [block[:record_bytes] for block in blocks]
        self._sums[first:end] = sums
        self._view = None


def _small(one: bytes, other: bytes) -> bool:
    """Whether two neighbours are better one block; it has room for twice as many, so that it is not soon cut again."""
    return len(one) + len(other) <= block_items_max * record_bytes // 2


def _record_at(packed: bytes, position: int) -> bytes:
    return packed[position * record_bytes : (position + 1) * record_bytes]


def _position(packed: bytes, bound: bytes) -> int:
    """How many records of a block lie below ``bound``. (``bisect`` with a key takes twice as long.)"""
    least, most = 0, len(packed) // record_bytes
    while least < most:
        middle = (least + most) >> 1
        start = middle * record_bytes
        if packed[start : start + record_bytes] < bound:
            least = middle + 1
        else:
            most = middle
    return least
