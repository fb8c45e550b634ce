"""Pairs of sets to reconcile, and sessions between two of our own sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from net.proto.items import id_bytes
from net.proto.negentropy import Initiator, Responder

Item = tuple[int, bytes]
start_s = 1_700_000_000
rounds_enough = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sets, and what each has that the other lacks."""

    first: list[Item]
    second: list[Item]

    @property
    def only_first(self) -> set[bytes]:
        return {item_id for _, item_id in self.first} - {item_id for _, item_id in self.second}

    @property
    def only_second(self) -> set[bytes]:
        return {item_id for _, item_id in self.second} - {item_id for _, item_id in self.first}


@dataclass(slots=True)
class Session:
    """A session from its first message to its last: what was said in turn, and what the initiator learned."""

    messages: list[bytes]
    have: list[bytes] = field(default_factory=list)
    need: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def round_trips(self) -> int:
        return len(self.messages) // 2

    @property
    def bytes(self) -> int:
        return sum(map(len, self.messages))

    def learned(self, pair: Pair) -> bool:
        """Whether the initiator, who had the first set, knows each difference, and each once."""
        exact = (sorted(self.have), sorted(self.need)) == (sorted(pair.only_first), sorted(pair.only_second))
        return self.complete and exact


def sync(initiator: Initiator, responder: Responder) -> Session:
    """Run a session to its end."""
    message: bytes | None = initiator.open()
    session = Session([])
    while message is not None:
        reply = responder.answer(message)
        step = initiator.answer(reply)
        session.messages += [message, reply]
        session.have += step.have
        session.need += step.need
        session.complete = step.complete
        message = step.reply
    return session


def log_of(count: int, seed: int = 1) -> list[Item]:
    """A log with one event a second."""
    random = Random(seed)
    return [(start_s + second, random.randbytes(id_bytes)) for second in range(count)]


def without(items: list[Item], count: int, seed: int = 2) -> list[Item]:
    """The log without ``count`` of its items, scattered."""
    gone = set(Random(seed).sample(range(len(items)), count))
    return [item for at, item in enumerate(items) if at not in gone]


def random_pair(random: Random) -> Pair:
    """Two sets with anything in common from nothing to all: crowded seconds, ids alike for many bytes, empty sets."""
    width = random.choice((1, 10, 1_000, 1_000_000))
    alike = random.choice((0, 0, 4, 20))
    sizes = [random.choice((0, 1, random.randrange(10), random.randrange(200), random.randrange(1_500)))]
    sizes += [random.choice((0, 1, random.randrange(40), random.randrange(400))) for _ in range(2)]
    prefix = random.randbytes(alike)
    ids = dict.fromkeys(prefix + random.randbytes(id_bytes - alike) for _ in range(sum(sizes)))
    items = [(start_s + random.randrange(width), item_id) for item_id in ids]
    common, first = sizes[0], sizes[0] + sizes[1]
    pair = Pair(items[:first], items[:common] + items[first:])
    random.shuffle(pair.first)
    random.shuffle(pair.second)
    return pair
