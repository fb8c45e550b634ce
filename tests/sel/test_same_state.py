"""Same set, same state (docs/protocol.md): whatever the order, duplication, batching and restarts of its arrival.

Histories are drawn: 2 to 5 members over several tasks, with everything that honest, careless and hostile authors
do (``tests.teller``). Each arrives at several nodes in ways of their own; then the nodes show each other their
certificates, as a network would, because a fork or a version is known to all before two sets are the same. 300
examples in CI, 10,000 with WATTSWARM_SOAK=1.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sel.audit import verify
from sel.memory import at_once
from sel.replay import replay
from tests.cast import fork_of, keys_of, names
from tests.conformance import Contents, Item, Subject, assert_consistent
from tests.sel.stores import fresh_database, memory_subject, postgres_subject
from tests.strategies import Batch, arrivals, histories
from tests.teller import History
from wattswarm.kernel import governance
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Draft, Event, author
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.course import TaskExpired
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.stream import apply, fold
from wattswarm.kernel.task.fold import TaskState, decode_state, encode_state

soak = bool(os.environ.get("WATTSWARM_SOAK"))
drawn = settings(
    max_examples=10_000 if soak else 400,
    derandomize=not soak,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
few = settings(drawn, max_examples=500 if soak else 12)
some = settings(drawn, max_examples=2_000 if soak else 60)
pytestmark = pytest.mark.timeout(0 if soak else 900)  # shrinking takes its time
ways = st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4)


# -- nodes ----------------------------------------------------------------------------------------------------------


async def take(log: Subject, batch: Batch) -> None:
    """One transaction; what it leaves is checked at the end."""
    if batch.restart:
        log.restart()
    log.now_ms = max(log.now_ms, batch.now_ms)
    await log.take_quietly(*batch.items)


async def exchange(logs: Sequence[Subject]) -> None:
    """Show everybody all certificates of the set, until nobody learns anything new."""
    while True:
        contents = [await log.contents() for log in logs]
        held = [{key: each.certificates[key] for key in each.counted()} for each in contents]
        union = {key: certificate for certificates in held for key, certificate in certificates.items()}
        if all(certificates.keys() == union.keys() for certificates in held):
            return
        for log, certificates in zip(logs, held, strict=True):
            missing: list[Item] = [certificate for key, certificate in union.items() if key not in certificates]
            await take(log, Batch(missing, log.now_ms, False))


def blank(history: History) -> Subject:
    """A node in memory that knows the genesis and nothing else."""
    world = history.world
    return memory_subject(Network.of(world.genesis), world.network.created_at)


# -- what must be the same --------------------------------------------------------------------------------------


def meaning(contents: Contents) -> dict[str, object]:
    """All of a log that may not depend on how it came about."""
    head = contents.head
    return {
        "live": sorted(said.id for said in contents.live()),
        "certificates": sorted(contents.counted()),
        "fingerprints": (head.events, head.events_sum, head.certificates, head.certificates_sum, head.memberships),
        "root": head.state_root,
        "states": {row.stream: (row.digest, row.facts) for row in contents.streams.values() if row.digest},
        "verdicts": contents.verdicts,
        "parked": sorted(waiting.event.id for waiting in contents.parked),
        "parked certificates": sorted(contents.parked_certificates),
    }


def assert_same(many: Sequence[Contents]) -> None:
    """Part by part, so that a failure says what differs."""
    first, *others = map(meaning, many)
    for other in others:
        for part, value in first.items():
            assert other[part] == value, part


def rival_of(first: Event) -> Event:
    """Another first event of the same author."""
    keys = next(keys_of(name) for name in names if keys_of(name).node_id == first.author)
    return author(keys, first.network_id, 0, None, first.hlc + 1, Draft(TaskExpired(), first.id, 1))


class Decisions:
    """Watches that what is decided stays decided (docs/protocol.md, "Final is final")."""

    def __init__(self) -> None:
        self.seen: set[tuple[bytes, bytes]] = set()

    def look(self, contents: Contents) -> None:
        """Every decision that was ever held is held, and says what it said."""
        held = set()
        for certificate in contents.certificates.values():
            if isinstance(certificate, DecisionCertificate):
                held.add((certificate.stream, certificate.id))
        assert self.seen <= held
        self.seen = held
        for task, name in held:
            row = contents.streams[task]
            assert row.state is not None
            assert row.facts is not None
            state = decode_state(row.state)
            assert name in {decision.final_commit_hash for decision in state.decisions}
            epochs = [decision.epoch for decision in state.decisions]
            if len(set(epochs)) < len(epochs):
                assert row.facts.status == "FORKED"
            elif not state.continuous:
                assert row.facts.status == "FINALIZED"


# -- the claims -------------------------------------------------------------------------------------------------


@drawn
@given(histories(), ways)
def test_same_set_same_state_in_memory(history: History, seeds: list[int]) -> None:
    logs = [blank(history) for _ in seeds]
    for log, seed in zip(logs, seeds, strict=True):
        decisions = Decisions()
        for batch in arrivals(history, seed):
            at_once(take(log, batch))
            decisions.look(at_once(log.contents()))
    at_once(exchange(logs))
    contents = [at_once(log.contents()) for log in logs]
    assert_same(contents)
    for held in contents:
        assert_consistent(held, Network.of(history.world.genesis), history.end_ms)


@few
@given(histories(steps_min=10), ways)
async def test_same_set_same_state_in_postgres(postgres_dsn: str, history: History, seeds: list[int]) -> None:
    network = Network.of(history.world.genesis)
    async with fresh_database(postgres_dsn) as database:
        logs = [postgres_subject(database, network, network.created_at), blank(history)]
        for log, seed in zip(logs, seeds, strict=False):
            for batch in arrivals(history, seed):
                await take(log, batch)
        await exchange(logs)
        contents = [await log.contents() for log in logs]
        assert_same(contents)
        assert_consistent(contents[0], network, history.end_ms)
        report = await verify(database, network, lambda _: None)
        assert report.problems == []
        assert await replay(database, network, lambda _: None) == contents[0].head
        assert meaning(await logs[0].contents()) == meaning(contents[0])


@some
@given(histories(steps_min=10), st.integers(0, 2**32 - 1))
def test_a_decision_outlives_forks_of_everybody(history: History, seed: int) -> None:
    """Creator, proposer, verifiers, finalizers: all of them fork their chains from the very beginning."""
    log, decisions = blank(history), Decisions()
    for batch in arrivals(history, seed):
        at_once(take(log, batch))
    decisions.look(at_once(log.contents()))
    for _ in names:  # an event that becomes void may still bring a version, and with it an author who waited for it
        firsts = [said for said in at_once(log.contents()).live() if said.author_seq == 0]
        for said in sorted(firsts, key=lambda said: sha256(said.id)):
            at_once(take(log, Batch([fork_of(said, rival_of(said))], history.end_ms, False)))
            decisions.look(at_once(log.contents()))
    after = at_once(log.check())
    assert after.live() == []
    decided = {certificate.stream for certificate in after.certificates.values() if certificate.kind == "decision"}
    assert {row.stream for row in after.streams.values() if row.facts is not None} == decided


@drawn
@given(histories(steps_min=10))
def test_a_state_that_is_stored_after_every_event_is_the_same(history: History) -> None:
    """What is kept of a fold between two events is all that counts."""
    log = blank(history)
    at_once(take(log, Batch(history.items, history.end_ms, False)))
    contents, network = at_once(log.contents()), log.knowledge.network
    streams: dict[bytes, list[Event]] = defaultdict(list)
    for said in sorted(contents.live(), key=lambda said: said.sort_key):
        streams[said.stream].append(said)
    for name, events in streams.items():
        about = [certificate for certificate in contents.certificates.values() if certificate.stream == name]
        opened = next((place for place, said in enumerate(events, 1) if said.id == name), 0)
        folded = fold(name, network, events[:opened], about)
        for said in events[opened:]:
            if isinstance(folded.state, TaskState):
                folded.state = decode_state(encode_state(folded.state))
            elif folded.state is not None:
                folded.state = governance.decode_state(governance.encode_state(folded.state))
            elif name == network.network_id:
                folded.state = governance.new(network)
            apply(folded, network, said)
        whole = fold(name, network, events, about)
        assert folded.verdicts == whole.verdicts
        assert folded.encoded() == whole.encoded()


@some
@given(histories(steps_min=10), st.integers(0, 2**32 - 1))
def test_what_a_node_authors_is_the_same_to_those_who_hear_it(history: History, seed: int) -> None:
    """``ben`` hears the others and says his part himself, several requests at a time; some are refused."""
    source, me = random.Random(seed), keys_of("ben")
    speaker = blank(history)
    items = list(history.items)
    while items:
        now, items = items[: (size := source.randint(1, 9))], items[size:]
        speaker.now_ms = max([speaker.now_ms, *(item.created_at for item in now if isinstance(item, Event))])
        own = [item for item in now if isinstance(item, Event) and item.author == me.node_id]
        at_once(take(speaker, Batch([item for item in now if item not in own], 0, source.random() < 0.2)))
        drafts = [Draft(said.payload, said.task, said.epoch) for said in own if said.payload is not None]
        cuts = sorted({0, len(drafts), *(source.randint(0, len(drafts)) for _ in range(3))})
        with suppress(Refused):
            at_once(speaker.author(me, *(drafts[first:last] for first, last in pairwise(cuts))))
    speaker.now_ms = history.end_ms
    at_once(take(speaker, Batch((), history.end_ms, False)))
    said = at_once(speaker.check())
    hearer = blank(history)
    heard: list[Item] = [*said.events, *(entry.event for entry in said.parked), *said.certificates.values()]
    source.shuffle(heard)
    while heard:
        some_of_it = [heard.pop() for _ in range(min(len(heard), source.randint(1, 9)))]
        at_once(take(hearer, Batch(some_of_it, history.end_ms, False)))
    at_once(exchange([speaker, hearer]))
    mine, theirs = meaning(at_once(speaker.check())), meaning(at_once(hearer.check()))
    del mine["parked certificates"], theirs["parked certificates"]
    assert mine == theirs
