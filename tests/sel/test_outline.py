"""The outline of the log: read once, then brought up to date step by step, it is always what a fresh reading gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.swarm import Swarm
from sel import outline as outlines
from sel.outline import Advance, Mark, advance, advanced, outline
from sel.pool import Database
from sel.store import Written
from tests.conformance import Subject
from tests.sel.stores import fresh_database, postgres_subject
from tests.sel.test_same_state import few, take
from tests.strategies import arrivals, histories
from tests.teller import History
from wattswarm.kernel.membership import Network


class Kept:
    """What a reader holds who read once and follows. ``written``: what the log's own process wrote meanwhile."""

    def __init__(self, database: Database, network: Network) -> None:
        self.written: list[Written] = []
        self.database = database
        self.network = network
        self.mark = Mark()
        self.events: set[tuple[int, bytes]] = set()
        self.certificates: set[tuple[bytes, bool]] = set()
        self.chains: dict[bytes, tuple[int, bytes]] = {}

    async def read(self) -> None:
        """All of it."""
        self.events.clear()
        found = await outline(self.database, self.network, self.events.update)
        self.certificates = {(key, True) for key in found.ruling} | {(key, False) for key in found.decisions}
        self.chains, self.mark = dict(found.chains), found.mark

    async def follow(self) -> None:
        """What is new, until there is no more."""
        for written in self.written:
            told = advanced(self.mark, written)
            if told is not None:
                self._take(told)
        self.written.clear()
        more = True
        while more:
            step = await advance(self.database, self.network, self.mark)
            self._take(step)
            more = step.more

    def _take(self, step: Advance) -> None:
        self.events -= set(step.void)
        self.events |= {(event.created_at, event.id) for event in step.events}
        self.certificates = {entry for entry in self.certificates if entry[0] not in step.idle}
        self.certificates |= {(certificate.id, certificate.ruling) for certificate in step.certificates}
        moved = {**self.chains, **step.chains}
        self.chains = {author: place for author, place in moved.items() if place is not None}
        self.mark = step.mark

    def held(self) -> object:
        """All that counts."""
        return self.events, self.certificates, self.chains


async def agrees(log: Subject, kept: Kept) -> None:
    """Whoever follows holds what a fresh reading gives, which is what the log's totals say."""
    await kept.follow()
    fresh = Kept(kept.database, kept.network)
    await fresh.read()
    assert kept.held() == fresh.held()
    contents = await log.contents()
    assert {event_id for _, event_id in kept.events} == {event.id for event in contents.live()}
    assert {key for key, _ in kept.certificates} == set(contents.counted())


@few
@given(histories(steps_min=10), st.integers(0, 2**32 - 1), st.integers(1, 7))
async def test_who_follows_holds_what_a_fresh_reading_gives(
    postgres_dsn: str, history: History, seed: int, step: int
) -> None:
    network = Network.of(history.world.genesis)
    bound, outlines.events_a_step_max = outlines.events_a_step_max, step
    try:
        async with fresh_database(postgres_dsn) as database:
            log, kept = postgres_subject(database, network, network.created_at), Kept(database, network)
            told = Kept(database, network)
            log.store.wrote = told.written.append
            await kept.read()
            await told.read()
            for batch in arrivals(history, seed):
                await take(log, batch)
                await agrees(log, kept)
                await agrees(log, told)
    finally:
        outlines.events_a_step_max = bound


async def test_what_was_written_right_after_is_told_as_the_log_tells_it(postgres_dsn: str) -> None:
    swarm = Swarm()
    network = Network.of(swarm.genesis)
    async with fresh_database(postgres_dsn) as database:
        log = postgres_subject(database, network, swarm.now_ms + 3_600_000)
        written: list[Written] = []
        log.store.wrote = written.append
        mark = Mark()
        for number in range(3):
            await log.take_quietly(*swarm.task(number))
            told = advanced(mark, written[-1])
            assert told == await advance(database, network, mark)
            assert told is not None
            assert len(told.events) == 13
            assert len(told.certificates) == 1
            assert number == 0 or advanced(Mark(), written[-1]) is None, "something came between"
            mark = told.mark
