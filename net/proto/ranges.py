"""What a Negentropy v1 message says, byte for byte: the version, then ranges, each reaching from the last one's bound.

Read strictly and written minimally (docs/network.md §6). A bound is the beginning of a record (``net.proto.items``):
eight bytes of seconds and 0 to 32 of an id. Nothing here knows a set of items or whose turn it is.

Source: the Negentropy protocol, version 1, https://github.com/hoytech/negentropy/blob/master/docs/negentropy-protocol-v1.md
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from net.proto.items import id_bytes, infinity, seconds_bytes, seconds_max
from wattswarm.kernel.refusal import Malformed

version = 0x61
versions = range(0x60, 0x70)  # first bytes that are a version of this protocol at all

fingerprint_bytes = 16
message_bytes_max = 1 << 20
message_bytes_min_max = 4096  # a smaller limit could not hold one answer
reserve_bytes = 200  # of the limit, kept free for the range that covers the rest
ranges_max = 1 << 17
varint_bytes_max = 10

_skip, _fingerprint, _id_list = range(3)


class Skip(msgspec.Struct, frozen=True, gc=False):
    """Nothing to do up to ``upper``."""

    upper: bytes


class Fingerprint(msgspec.Struct, frozen=True, gc=False):
    """The fingerprint of what the sender has up to ``upper``."""

    upper: bytes
    fingerprint: bytes


class IdList(msgspec.Struct, frozen=True, gc=False):
    """All that the sender has up to ``upper``: ids of 32 bytes, one after the other."""

    upper: bytes
    ids: bytes

    def each(self) -> list[bytes]:
        """The ids as the sender listed them."""
        return [self.ids[at : at + id_bytes] for at in range(0, len(self.ids), id_bytes)]


Range = Skip | Fingerprint | IdList


def varint(number: int) -> bytes:
    """Base 128, most significant digit first, the high bit set on all but the last."""
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def minimal_bound(before: bytes, after: bytes) -> bytes:
    """The shortest bound between two neighbouring records: above ``before``, not above ``after``."""
    if before[:seconds_bytes] != after[:seconds_bytes]:
        return after[:seconds_bytes]
    length = next(at for at in range(seconds_bytes, len(after)) if before[at] != after[at])
    return after[: length + 1]


def read(message: bytes) -> Iterator[Range]:
    """The ranges of a message that begins with our version, in order. Malformed as soon as that is seen."""
    reader = _Reader(message, 1)
    upper = bytes(seconds_bytes)
    for count in range(ranges_max + 1):
        if reader.at == len(message):
            return
        if count == ranges_max:
            break
        lower, upper = upper, reader.bound()
        if upper < lower:
            raise Malformed("negentropy_bounds", "a negentropy range ends before it begins")
        yield reader.payload(upper)
    raise Malformed("negentropy_ranges", f"a negentropy message of more than {ranges_max} ranges")


class _Reader:
    """A place in a message. Every count is held against the bytes that are there before anything is made for it."""

    def __init__(self, message: bytes, at: int) -> None:
        self.at = at
        self._message = message
        self._seconds = 0

    def payload(self, upper: bytes) -> Range:
        """Mode and payload of a range."""
        match self._varint():
            case 0:
                return Skip(upper)
            case 1:
                return Fingerprint(upper, self._bytes(fingerprint_bytes))
            case 2:
                return IdList(upper, self._bytes(self._varint() * id_bytes))
            case mode:
                raise Malformed("negentropy_mode", f"negentropy range mode {mode}: expected 0, 1 or 2")

    def bound(self) -> bytes:
        """The upper bound of a range."""
        step = self._varint()
        seconds = self._seconds + step - 1
        length = self._varint()
        if length > id_bytes:
            raise Malformed(
                "negentropy_bound", f"a negentropy bound with {length} bytes of an id: expected ≤ {id_bytes}"
            )
        if step == 0:
            self._bytes(length)
            return infinity
        if seconds > seconds_max:
            raise Malformed("negentropy_bound", "a negentropy bound beyond the end of time")
        self._seconds = seconds
        return seconds.to_bytes(seconds_bytes, "big") + self._bytes(length)

    def _varint(self) -> int:
        """A number of at most ten digits; what it may be is bounded where it is used."""
        number = 0
        for at in range(self.at, min(self.at + varint_bytes_max, len(self._message))):
            digit = self._message[at]
            if at == self.at and digit == 0x80:
                break  # a leading zero
            number = number << 7 | digit & 0x7F
            if digit < 0x80:
                self.at = at + 1
                return number
        raise Malformed("negentropy_varint", "a negentropy number that is cut off, not minimal or too long")

    def _bytes(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self._message):
            raise Malformed("negentropy_short", f"a negentropy message that lacks {end - len(self._message)} bytes")
        taken = self._message[self.at : end]
        self.at = end
        return taken


class Writer:
    """A message in the making. Neighbouring skips merge, and are written only before something that is not one."""

    def __init__(self, bytes_max: int) -> None:
        assert message_bytes_min_max <= bytes_max
        self._out = bytearray([version])
        self._room = bytes_max - reserve_bytes
        self._bytes_max = bytes_max
        self._seconds = 0
        self._skip: bytes | None = None

    @property
    def full(self) -> bool:
        """Whether what was written reaches into the reserve: the rest is to be covered by one range."""
        return len(self._out) > self._room

    @property
    def ids_left(self) -> int:
        """How many ids a list that is written now may have: the last of them may reach into the reserve."""
        return max(0, self._room - len(self._out)) // id_bytes + 1

    def put(self, range_: Range) -> None:
        """Write a range, whatever room is left."""
        match range_:
            case Skip():
                self._skip = range_.upper
            case Fingerprint():
                self._head(range_.upper, _fingerprint)
                self._out += range_.fingerprint
            case IdList():
                self._head(range_.upper, _id_list)
                self._out += varint(len(range_.ids) // id_bytes) + range_.ids

    def put_all(self, ranges: list[Range]) -> bool:
        """Write ranges if all of them fit; else none, and False."""
        length, seconds, skip = len(self._out), self._seconds, self._skip
        for range_ in ranges:
            self.put(range_)
        if not self.full:
            return True
        del self._out[length:]
        self._seconds, self._skip = seconds, skip
        return False

    def message(self) -> bytes | None:
        """What was written, or None if there was no range but skips."""
        assert len(self._out) <= self._bytes_max
        return bytes(self._out) if len(self._out) > 1 else None

    def _head(self, upper: bytes, mode: int) -> None:
        if self._skip is not None:
            skipped, self._skip = self._skip, None
            self._head(skipped, _skip)
        if upper == infinity:
            self._out += b"\0\0"
        else:
            seconds = int.from_bytes(upper[:seconds_bytes], "big")
            self._out += varint(seconds - self._seconds + 1) + varint(len(upper) - seconds_bytes)
            self._out += upper[seconds_bytes:]
            self._seconds = seconds
        self._out += varint(mode)
