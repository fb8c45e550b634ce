"""The outline of the log: read once, then brought up to date step by step, it is always what a fresh reading gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sel import outline as outlines
from sel.outline import Mark, advance, outline
from sel.pool import Database
from tests.conformance import Subject
from tests.sel.stores import fresh_database, postgres_subject
from tests.sel.test_same_state import few, take
from tests.strategies import arrivals, histories
from tests.teller import History
from wattswarm.kernel.membership import Network


class Kept:
    """What a reader holds who read once and follows."""

    def __init__(self, database: Database, network: Network) -> None:
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
        more = True
        while more:
            step = await advance(self.database, self.network, self.mark)
            self.events -= set(step.void)
            self.events |= {(event.created_at, event.id) for event in step.events}
            self.certificates = {entry for entry in self.certificates if entry[0] not in step.idle}
            self.certificates |= {(certificate.id, certificate.ruling) for certificate in step.certificates}
            moved = {**self.chains, **step.chains}
            self.chains = {author: place for author, place in moved.items() if place is not None}
            self.mark, more = step.mark, step.more

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
            await kept.read()
            for batch in arrivals(history, seed):
                await take(log, batch)
                await agrees(log, kept)
    finally:
        outlines.events_a_step_max = bound
