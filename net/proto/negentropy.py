"""Both sides of a Negentropy v1 session: two nodes find which items only one of them has, and nothing more is sent.

A message is read whole, compared with the set as it is now, and answered in one pass; each side keeps nothing of the
set between messages, so items may come and go meanwhile (docs/network.md §6). Every message is taken for hostile: what
one can cost is bounded by its own length, the number of blocks and the frame limit. Nothing here sends, waits or
looks at a clock.

``answering`` is the same as ``answer`` in slices: a generator that yields after every piece of well under a
millisecond (a few, for a frame full of ids). Whoever drives it decides how many to take at a time.

Between our own nodes (``Style``) a range that differs by a single item is solved from its fingerprint alone: if leaving
out one of my items gives exactly the peer's fingerprint, the peer lacks that one and nothing else. On the wire that is
a shorter answer, and nothing that another implementation would not understand.

Source: the Negentropy protocol, version 1, https://github.com/hoytech/negentropy/blob/master/docs/negentropy-protocol-v1.md
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import TypeVar

from net.proto import ranges
from net.proto.items import Items, View, id_bytes, infinity, sum_modulus
from net.proto.ranges import Fingerprint, IdList, Range, Skip, Writer, minimal_bound, varint
from wattswarm.kernel.refusal import Malformed, Refused

frame_bytes_max = ranges.message_bytes_max - 16  # leaves room for what a frame adds to a message
frame_bytes_strangers = 60_000
rounds_max = 32
found_max = 1 << 17  # ids an initiator reports in one session; the next session finds the rest
buckets_max = 16
guess_items_min = 32  # ranges up to this size are always worth a guess
slice_items = 512  # items a slice hashes or compares
slice_ranges = 16  # ranges a slice reads

Slices = Generator[None, None, None]
Outcome = TypeVar("Outcome")


@dataclass(frozen=True, slots=True)
class Style:
    """How a side words what it says; any two understand each other.

    Fewer than ``leaf`` items are listed; more are cut into at most 16 buckets of at least ``bucket_items_min``.
    ``guesses``: hashes that a message may cost in search of the one item that a range differs by.
    """

    leaf: int
    bucket_items_min: int
    guesses: int

    def __post_init__(self) -> None:
        assert 2 <= 2 * self.bucket_items_min <= self.leaf <= 64  # one bucket alone would be no progress


reference = Style(leaf=32, bucket_items_min=2, guesses=0)
ours = Style(leaf=8, bucket_items_min=4, guesses=8_192)


@dataclass(frozen=True, slots=True)
class Step:
    """What a message brought: the reply to send, if the session goes on, and ids that no earlier step named.

    ``have``: ids that only this side has; ``need``: only the other. ``complete``: every difference was found; a session
    that ended otherwise ran out of rounds or of ids, and a next one finds more.
    """

    reply: bytes | None
    have: tuple[bytes, ...]
    need: tuple[bytes, ...]
    complete: bool


def fingerprint(view: View, lower: int, upper: int) -> bytes:
    """The first 16 bytes of SHA-256(sum of the ids ‖ varint(count))."""
    return _fingerprint(view.sum(lower, upper), varint(upper - lower))


def _fingerprint(total: int, count: bytes) -> bytes:
    return sha256(total.to_bytes(id_bytes, "little") + count).digest()[: ranges.fingerprint_bytes]


class Initiator:
    """The side that asks, and that learns the differences."""

    def __init__(
        self, items: Items, style: Style = ours, frame_bytes: int = frame_bytes_max, rounds: int = rounds_max
    ) -> None:
        self._items = items
        self._style = style
        self._frame_bytes = frame_bytes
        self._rounds_left = rounds
        self._found = _Found()

    def open(self) -> bytes:
        """The first message."""
        view = self._items.view()
        writer = Writer(self._frame_bytes)
        fits = writer.put_all(_split(view, 0, len(view), infinity, self._style))
        message = writer.message()
        assert fits
        assert message is not None
        return message

    def answer(self, message: bytes) -> Step:
        """Take the responder's message. Raises Malformed, and Refused if it wants another version."""
        return _drain(self.answering(message))

    def answering(self, message: bytes) -> Generator[None, None, Step]:
        """``answer`` in slices."""
        if _version_of(message) != ranges.version:
            raise Refused("negentropy_version", f"the peer wants negentropy version byte {message[0]:#04x}")
        self._rounds_left -= 1
        found, have, need = self._found, len(self._found.have), len(self._found.need)
        reply = yield from _Answer(self._items.view(), self._style, self._frame_bytes, found).to(message)
        stopped = found.full or self._rounds_left <= 0
        return Step(
            reply=None if stopped else reply,
            have=tuple(islice(found.have, have, None)),
            need=tuple(islice(found.need, need, None)),
            complete=reply is None and not found.full,
        )


class Responder:
    """The side that answers, and learns nothing but what it is asked."""

    def __init__(
        self, items: Items, style: Style = ours, frame_bytes: int = frame_bytes_max, rounds: int = rounds_max
    ) -> None:
        self._items = items
        self._style = style
        self._frame_bytes = frame_bytes
        self._rounds_left = rounds

    def answer(self, message: bytes) -> bytes:
        """The reply to an initiator's message. Raises Malformed, and Refused when the rounds are used up."""
        return _drain(self.answering(message))

    def answering(self, message: bytes) -> Generator[None, None, bytes]:
        """``answer`` in slices."""
        reply = None
        if self._rounds_left <= 0:
            raise Refused("negentropy_rounds", "a negentropy session of too many rounds")
        self._rounds_left -= 1
        if _version_of(message) == ranges.version:
            reply = yield from _Answer(self._items.view(), self._style, self._frame_bytes, None).to(message)
        return bytes([ranges.version]) if reply is None else reply


class _Found:
    """The differences of a session, each once: a range that overflow makes a side ask again names them again."""

    def __init__(self) -> None:
        self.have: dict[bytes, None] = {}
        self.need: dict[bytes, None] = {}

    @property
    def full(self) -> bool:
        """Whether these are as many as one session reports."""
        return len(self.have) + len(self.need) >= found_max

    def compare(self, view: View, lower: int, upper: int, listed: IdList) -> Slices:
        """A range of ours with all that the responder has in it."""
        if self.full:
            return
        theirs = dict.fromkeys(listed.each())
        for count, item_id in enumerate(view.ids(lower, upper), 1):
            if item_id in theirs:
                del theirs[item_id]
            else:
                self.have[item_id] = None
            if count % slice_items == 0:
                yield
                if self.full:
                    return
        self.need.update(theirs)


class _Answer:
    """One message's answer. ``found``: where the initiator writes down what it learns; None: this is the responder."""

    def __init__(self, view: View, style: Style, frame_bytes: int, found: _Found | None) -> None:
        self._view = view
        self._style = style
        self._writer = Writer(frame_bytes)
        self._found = found
        self._guess_items = 0

    def to(self, message: bytes) -> Generator[None, None, bytes | None]:
        """The answer to a message, or None if there is nothing to say."""
        spans = yield from self._spans(message)
        for lower, upper, theirs in spans:
            goes_on = True
            match theirs:
                case Skip():
                    self._writer.put(theirs)
                case Fingerprint():
                    at = yield from self._only(lower, upper, theirs)
                    goes_on = self._tell(lower, self._cut(lower, upper, theirs.upper, at))
                case IdList() if self._found is not None:
                    yield from self._found.compare(self._view, lower, upper, theirs)
                    self._writer.put(Skip(theirs.upper))
                case IdList():
                    goes_on = self._list(lower, upper, theirs.upper)
            if not goes_on:
                break
            yield
        return self._writer.message()

    def _spans(self, message: bytes) -> Generator[None, None, list[tuple[int, int, Range]]]:
        """(index from, index to, range) of each range; one that turns out equal as a skip.

        All are read before anything is done about one: the more of them differ, the smaller has one to be for a guess.
        """
        spans: list[tuple[int, int, Range]] = []
        lower = differing = 0
        for said in ranges.read(message):
            upper = self._view.index(said.upper)
            differs = isinstance(said, Fingerprint) and fingerprint(self._view, lower, upper) != said.fingerprint
            spans.append((lower, upper, Skip(said.upper) if isinstance(said, Fingerprint) and not differs else said))
            differing += differs
            lower = upper
            if len(spans) % slice_ranges == 0:
                yield
        if self._style.guesses:
            self._guess_items = max(guess_items_min, self._style.guesses // max(1, differing))
        return spans

    def _only(self, lower: int, upper: int, theirs: Fingerprint) -> Generator[None, None, int | None]:
        """Where the one item is without which this range has the peer's fingerprint, if there is one."""
        if not 0 < upper - lower <= self._guess_items:
            return None
        total, count = self._view.sum(lower, upper), varint(upper - lower - 1)
        for at, item_id in enumerate(self._view.ids(lower, upper), lower):
            without = (total - int.from_bytes(item_id, "little")) % sum_modulus
            if _fingerprint(without, count) == theirs.fingerprint:
                return at
            if at % slice_items == 0:
                yield
        return None

    def _cut(self, lower: int, upper: int, bound: bytes, only: int | None) -> list[Range]:
        """What to say about a range that differs: the ``only`` item that does, or else its parts."""
        if only is None:
            return _split(self._view, lower, upper, bound, self._style)
        (item_id,) = self._view.ids(only, only + 1)
        if self._found is not None:
            self._found.have[item_id] = None
            return [Skip(bound)]
        before: list[Range] = [Skip(_bound_at(self._view, only))] if only > lower else []
        after = _bound_at(self._view, only + 1) if only + 1 < upper else bound
        return [*before, IdList(after, item_id), Skip(bound)]

    def _tell(self, lower: int, parts: list[Range]) -> bool:
        """Write the parts of a range that begins at ``lower``; False if there was no room: the message ends here."""
        fits = self._writer.put_all(parts)
        if not fits:
            self._rest(lower)
        return fits

    def _list(self, lower: int, upper: int, bound: bytes) -> bool:
        """Write all that is in a range, or as much as there is room for; False if the message ends here."""
        end = min(upper, lower + self._writer.ids_left)
        until = bound if end == upper else self._view.record(end)
        self._writer.put(IdList(until, b"".join(self._view.ids(lower, end))))
        ends = end < upper or self._writer.full
        if ends:
            self._rest(end)
        return not ends

    def _rest(self, lower: int) -> None:
        """One fingerprint for everything from ``lower`` on: the peer asks again about what differs there."""
        self._writer.put(Fingerprint(infinity, fingerprint(self._view, lower, len(self._view))))


def _split(view: View, lower: int, upper: int, bound: bytes, style: Style) -> list[Range]:
    """A range by its ids if they are few, else by fingerprints of buckets of nearly one size, larger ones first."""
    items = upper - lower
    if items < style.leaf:
        return [IdList(bound, b"".join(view.ids(lower, upper)))]
    buckets = min(buckets_max, items // style.bucket_items_min)
    size, larger = divmod(items, buckets)
    parts: list[Range] = []
    for bucket in range(buckets):
        end = lower + size + (bucket < larger)
        parts.append(Fingerprint(bound if end == upper else _bound_at(view, end), fingerprint(view, lower, end)))
        lower = end
    return parts


def _bound_at(view: View, index: int) -> bytes:
    """The shortest bound between an item and the one before it."""
    return minimal_bound(view.record(index - 1), view.record(index))


def _version_of(message: bytes) -> int:
    """The first byte of a message, if it is a version of the protocol at all."""
    if len(message) > ranges.message_bytes_max:
        raise Malformed("negentropy_size", f"a negentropy message of {len(message)} bytes")
    if not message or message[0] not in ranges.versions:
        raise Malformed("negentropy_version", "not a negentropy message")
    return message[0]


def _drain(slices: Generator[None, None, Outcome]) -> Outcome:
    """Take all slices at once."""
    while True:
        try:
            next(slices)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
