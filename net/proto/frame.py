"""Frames: a message as CBOR ``[type, fields…]`` in at most 1 MiB, and back (docs/network.md §4).

What a frame costs is decided before anything is built of it. ``_measure`` walks over the heads of its items: arrays,
byte strings, texts, numbers, booleans and null, of definite length, no more of them than the largest message has,
and nothing behind them. What it lets through, cbor2 builds and the message's types check. So nesting, tags, bignums,
maps and lengths that are not there cost a few bytes' reading.

A frame is an envelope for one hop and nobody hashes it: other spellings of a number's or a length's head are read as
what they say. That the *bodies* in it are canonical is checked where they are parsed, of the very bytes that came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import cbor2
import msgspec

from net.proto.message import Message, Wire, events_max, frame_bytes_max, messages
from wattswarm.kernel.refusal import Malformed

items_max = 16_400  # the largest frontier has 4,096 arrays of three, and a few around them
depth_max = 4
push_events_max = 32
push_bytes_max = 65_536
_event_overhead_bytes = 8
_error_chars_max = 200


class Unknown(msgspec.Struct, frozen=True):
    """A frame of a type that this version does not have: to be counted and ignored. Only its head was read."""

    type: int


def encode(message: Message) -> bytes:
    """The frame of a message of our own, canonical: it has neither maps nor floats, whose plain form is another."""
    frame = cbor2.dumps(msgspec.to_builtins(message, builtin_types=(bytes,)))
    assert len(frame) <= frame_bytes_max, f"{type(message).__name__} of {len(frame)} bytes: nobody would take it"
    return frame


def decode(data: bytes) -> Message | Unknown:
    """The message in a received frame. Raises ``Malformed``: the sender's fault."""
    if len(data) > frame_bytes_max:
        raise Malformed("too_large", f"frame of {len(data)} bytes, at most {frame_bytes_max}")
    number = _type(data)
    kind = messages.get(number)
    if kind is None:
        return Unknown(number)
    _measure(data)
    try:
        value = cbor2.loads(data, max_depth=depth_max, allow_indefinite=False)
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except (cbor2.CBORError, msgspec.ValidationError, ValueError) as error:
        raise Malformed("frame_form", f"{kind.__name__}: {str(error)[:_error_chars_max]}") from None


def packed(wires: Iterable[Wire], most: int = push_events_max) -> Iterator[Sequence[Wire]]:
    """Events in the portions that frames carry: at most ``most``, and 64 KiB unless one alone is larger."""
    assert 1 <= most <= events_max
    portion: list[Wire] = []
    size = 0
    for body, signature in wires:
        weight = len(body) + len(signature) + _event_overhead_bytes
        if portion and (len(portion) == most or size + weight > push_bytes_max):
            yield portion
            portion, size = [], 0
        portion.append((body, signature))
        size += weight
    if portion:
        yield portion


# -- heads of items (RFC 8949 §3) ----------------------------------------------------------------------------------

_unsigned, _bytes, _text, _array = 0x00, 0x40, 0x60, 0x80
_immediate = range(24)  # a head's low five bits: the argument itself
_following = {24: 1, 25: 2, 26: 4, 27: 8}  # or how many bytes it has


def _steps() -> tuple[int, ...]:
    """First byte -> the size of the whole item, where that byte alone tells it; else 0."""
    steps = [0] * 256
    for low in _immediate:
        steps[_unsigned + low] = 1
        steps[_bytes + low] = steps[_text + low] = 1 + low
    for low, width in _following.items():
        steps[_unsigned + low] = 1 + width
    for constant in (0xF4, 0xF5, 0xF6):  # false, true, null
        steps[constant] = 1
    return tuple(steps)


def _widths() -> tuple[int, ...]:
    """First byte -> how many bytes of length follow it, for strings and arrays that have such; else 0."""
    widths = [0] * 256
    for major in (_bytes, _text, _array):
        for low, width in _following.items():
            widths[major + low] = width
    return tuple(widths)


_step_of = _steps()
_width_of = _widths()


def _measure(data: bytes) -> None:
    """Refuse a frame that is not exactly one bounded item of the kinds that messages are made of."""
    at, left, seen = 0, 1, 1
    end = len(data)
    step_of, width_of, from_bytes = _step_of, _width_of, int.from_bytes
    while left:
        if at >= end:
            raise Malformed("frame_short", f"frame of {end} bytes: it ends within what it announces")
        left -= 1
        head = data[at]
        step = step_of[head]
        if step:
            at += step
            continue
        width = width_of[head]
        at += 1
        if width:
            length = from_bytes(data[at : at + width], "big")
            at += width
        elif _array <= head < _array + 24:
            length = head - _array
        else:
            raise Malformed("frame_item", f"frame with an item of head {head:#04x}: no message has such")
        if head < _array:
            at += length
        else:
            left += length
            seen += length
            if seen > items_max:
                raise Malformed("frame_items", f"frame of more than {items_max} items")
    if at != end:
        raise Malformed("frame_end", f"frame of {end} bytes whose item has {at}")


def _type(data: bytes) -> int:
    """A frame's first element, a message's number."""
    if len(data) >= 2 and _array < data[0] < _array + 24:
        low = data[1]
        if low in _immediate:
            return low
        width = _following.get(low)
        if width is not None and len(data) >= 2 + width:
            return int.from_bytes(data[2 : 2 + width], "big")
    raise Malformed("frame_form", "frame: expected an array that begins with the message's number")
