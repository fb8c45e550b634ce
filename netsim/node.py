"""One simulated node: the machine, the log and the autopilot that daemons run, on a disk that outlives the process.

What ``net.io`` does over sockets and Postgres is done here over virtual time: answers and transactions take as long as
the scenario's database does, and what came meanwhile is stored together. ``Watcher`` sees every transaction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from net.proto import values as v
from net.proto.announce import Announcer
from net.proto.handshake import Me
from net.proto.machine import Machine, Ways
from netsim.clock import Timeline, drawn
from netsim.council import Council
from netsim.disk import Disk, Written
from netsim.intake import DatabaseTerms, Decoder, Intake
from netsim.network import Network as Wires
from netsim.outline import answer_of, news_of, stock_of
from netsim.pilot import ExecutorTerms, Pilot
from netsim.recovery import Return
from netsim.releases import Release, folded_again
from netsim.releases import this as this_release
from netsim.steps import Steps
from sel.authoring import Author, Request, author_batch
from sel.ingest import Knowledge, Taken
from sel.log import TaskRecord, task_record
from sel.memory import at_once
from sel.rows import Waiting
from sel.store import Txn
from wattswarm.kernel.bundle import make_bundle
from wattswarm.kernel.certificate import Certificate
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import Genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.limits import clock_skew_tolerance_ms
from wattswarm.kernel.membership import Network
from wattswarm.kernel.refusal import Refused

port = 7_700


class Watcher(Protocol):
    """Who looks on."""

    def wrote(self, node: SimNode, written: Written) -> None: ...
    def put_back(self, node: SimNode) -> None: ...
    def recovered(self, node: SimNode) -> None: ...
    def tell(self, who: str, what: str, detail: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all nodes of a run share."""

    timeline: Timeline
    wires: Wires
    genesis: Genesis
    decoder: Decoder
    steps: Steps
    watcher: Watcher
    database: DatabaseTerms = field(default_factory=DatabaseTerms)
    executor: ExecutorTerms = field(default_factory=ExecutorTerms)
    observers: int = 0


class SimNode:
    """A host and the process on it. ``skew_ms``: its clock less the true one. Not running until ``start``."""

    def __init__(
        self, around: Surroundings, name: str, keys: Keypair, seed: str, bootstrap: Sequence[str], *, udp: bool
    ) -> None:
        self.around, self.name, self.keys = around, name, keys
        self.node_id = keys.node_id
        number = len(around.wires.hosts) + 1
        self.address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:{port}"
        self.up = False
        self.honest = True
        self.takes_part = True
        self.skew_ms = 0
        self.release: Release = this_release
        self.disk = Disk()
        self.disks = 0
        self.boots = 0
        self.machine: Machine
        self.bootstrap, self.udp = tuple(bootstrap), udp
        self._seed = seed
        self._life = 0
        self._hearing: v.Input | None = None
        self._stalled: list[Callable[[], object]] | None = None
        self.pilot: Pilot | None = None
        self.council: Council | None = None
        self.knowledge = Knowledge(Network.of(around.genesis))
        around.wires.joins(self)

    # -- the process ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin on what the disk holds."""
        self.release.runs()
        self.boots += 1
        self._life += 1
        if self.disk.guard.foreign:
            self.around.watcher.put_back(self)
        self.up, self._stalled = True, None
        self.knowledge = Knowledge(Network.of(self.around.genesis))
        at_once(self.disk.store.read(self.knowledge.refresh))
        self.draw = random.Random(f"{self._seed} {self.name} {self.boots}")
        self.intake = Intake(self, self.around.decoder, self.around.database)
        self._wake_ms: int | None = None
        me = Me(self.keys, self.network.network_id, self.clock(), (self.address,), self.release.wire)
        announcer = Announcer(self.keys, self.network.network_id, port, me.boot_id) if self.udp else None
        ways = Ways(
            me, self._knows, self.around.observers, self.bootstrap, announcer, decode=self.around.decoder.message
        )
        self.machine = Machine(ways, stock_of(self.disk.store), self.draw, self.clock())
        self.return_ = Return(self, self.around.timeline)
        if self.takes_part:
            self.council = Council(self, self.around.timeline)
            self.pilot = Pilot(self, self.around.timeline, self.draw, self.around.executor)
        self.tell("start", f"boot {self.boots} as {self.node_id.hex()[:8]}")
        self.feed(v.Woke())

    def crash(self) -> None:
        """The process is gone, with all that was not on disk."""
        if self.up:
            self.tell("crash", "")
            self.up = False
            self._life += 1
            if self.pilot is not None and self.council is not None:
                self.pilot.stop()
                self.council.stop()
                self.pilot = self.council = None
            self.around.wires.crash(self)

    def lose_log(self) -> None:
        """The disk is new; only the key is left."""
        self.put_back(Disk())

    def put_back(self, disk: Disk) -> None:
        """Another disk is in this host now, of whose chain nobody knows how old it is."""
        self.disk = disk
        self.disks += 1
        self.disk.guard.foreign = True
        self.around.watcher.put_back(self)

    def upgrade(self, release: Release) -> None:
        """Another release of the program is on this host from its next start on; it folds the log again."""
        release.runs()
        self.release = release
        network = Network.of(self.around.genesis)
        self.disk.store = folded_again(self.disk.store, network, self.around.decoder.event, self.clock())
        self.tell("upgrade", release.protocol)

    def recovered(self) -> None:
        """Enough members hold no more of this node's chain than is here: it is this host's again."""
        self.around.watcher.recovered(self)

    def stall(self) -> None:
        """The process stands still, and authors nothing; its kernel goes on taking what comes."""
        if self.up and self._stalled is None:
            self._stalled = []

    def resume(self) -> None:
        """It goes on, with all that came meanwhile."""
        if self._stalled is not None:
            waited, self._stalled = self._stalled, None
            for what in waited:
                if self.up:
                    what()

    def later(self, delay_ms: int, what: Callable[[], object]) -> None:
        """Something of this process: with it, it is gone."""
        self.around.timeline.after(delay_ms, partial(self._then, self._life, what))

    def _then(self, life: int, what: Callable[[], object]) -> None:
        if self._life != life:
            return
        if self._stalled is not None:
            self._stalled.append(partial(self._then, life, what))
        else:
            what()

    def set_clock(self, skew_ms: int) -> None:
        """Somebody sets this host's clock."""
        by_ms, self.skew_ms = skew_ms - self.skew_ms, skew_ms
        if self.up and by_ms:
            self.tell("clock", f"{skew_ms} ms off")
            self.feed(v.ClockSet(by_ms))

    def clock(self) -> int:
        """This host's clock."""
        return self.around.timeline.now_ms + self.skew_ms

    def tell(self, what: str, detail: str) -> None:
        """Say something for the trace."""
        self.around.watcher.tell(self.name, what, detail)

    def _knows(self, node_id: bytes) -> bool:
        return self.network.knows_author(node_id)

    # -- the machine ------------------------------------------------------------------------------------------------

    def feed(self, given: v.Input) -> None:
        """One input, and what follows from it at once."""
        if self._stalled is not None:
            self._stalled.append(partial(self.feed, given))
            return
        heard, self._hearing = self._hearing, given
        for output in self.machine.handle(given, self.clock()):
            self.perform(output)
        self._hearing = heard
        if self.around.wires.unsent:
            self.around.wires.go()

    def _bearer(self) -> str:
        given = self._hearing
        return self.around.wires.across(given.link) if isinstance(given, v.Received) else ""

    def perform(self, output: v.Output) -> None:
        """Do what the machine says."""
        wires = self.around.wires
        match output:
            case v.Send():
                wires.send(output)
            case v.Close(link):
                wires.close(link)
            case v.Ingest():
                self.intake.came(output, self._bearer())
            case v.Ask(token, question):
                answered = partial(self._answer, token, question)
                self.later(drawn(self.draw, self.around.database.read_ms), answered)
            case v.Wake(at_ms):
                self._wake_ms = at_ms
                self.later(max(0, at_ms - self.clock()), partial(self._woke, at_ms))
            case v.Dial(address, node_id):
                wires.dial(self, address, node_id)
            case v.Shout(data):
                wires.shout(self, data)
            case v.Report(what, about, detail):
                self.tell(what, f"{about[:24]} {detail}".rstrip())

    def _woke(self, at_ms: int) -> None:
        if self._wake_ms == at_ms:
            self._wake_ms = None
            self.feed(v.Woke())

    # -- the log, as the network sees it ----------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        """Genesis and every membership version known here."""
        return self.knowledge.network

    def transact(self, events: Sequence[Event], certificates: Sequence[Certificate], *, asked: bool) -> Taken:
        """Take events and certificates into the log, and tell whoever has to know."""
        self.release.runs()
        store, now_ms = self.disk.store, self.clock()

        async def work(txn: Txn) -> Taken:
            return await self.around.steps.take_in(
                store, txn, self.knowledge, events, certificates, now_ms, self.node_id
            )

        taken = at_once(store.transact(work))
        self._spread(own=False, asked=asked)
        for event in events:
            if taken.outcomes[event.id] == Waiting("early"):
                due_ms = event.created_at - clock_skew_tolerance_ms - self.clock()
                self.later(max(1, due_ms), partial(self.transact, (), (), asked=False))
        return taken

    def _spread(self, *, own: bool, asked: bool) -> None:
        """Tell the machine, the autopilot and whoever watches what the last transaction wrote."""
        written = self.disk.store.took()
        self.around.watcher.wrote(self, written)
        news = news_of(self.disk.store, written, own=own, asked=asked)
        self.feed(news)
        if self.pilot is not None and self.council is not None:
            if written.everything or self.network.network_id in written.streams:
                self.council.heard()
            if written.everything:
                self.pilot.look_everywhere()
            for stream in written.streams:
                if not own:
                    self.pilot.heard(stream)

    def _answer(self, token: int, question: v.Question) -> None:
        answer = self._bundle(question) if isinstance(question, v.BundleOf) else answer_of(self.disk.store, question)
        self.feed(v.Answered(token, answer))

    def _bundle(self, asked: v.BundleOf) -> bytes | None:
        record = self.record(asked.task)
        found = [] if record is None else [one for one in record.certificates if one.epoch == asked.epoch]
        return make_bundle(self.around.genesis, [], found[0]) if len(found) == 1 else None

    # -- the log, as the autopilot sees it --------------------------------------------------------------------------

    def may_author(self) -> bool:
        """Whether this node's own rules let it author: its guard, its clock, and a member's word at its start."""
        waits = self._stalled is not None or self.return_.waits()
        return not (waits or self.disk.guard.foreign or self.machine.meeting.clocks.off_ms > 0)

    def record(self, task: bytes) -> TaskRecord | None:
        """A task's fold and events."""
        self.release.runs()
        found = at_once(self.disk.store.record(task))
        return None if found is None or found.row.state is None else task_record(found, self.knowledge)

    def author(self, drafts: Sequence[Draft]) -> list[Event]:
        """Sign and append, all or none. Raises ``Refused``."""
        if not self.may_author():
            raise Refused("held_back", "this node authors nothing now: its guard, its clock or its start is in the way")
        self.release.runs()
        request = Request(drafts)
        author = Author(self.keys, self.disk.guard, self.clock)
        at_once(author_batch(self.disk.store, self.knowledge, author, [request]))
        if isinstance(request.result, Refused):
            raise request.result
        assert request.result is not None
        self._spread(own=True, asked=False)
        return request.result

    def open_tasks(self) -> list[bytes]:
        """Every open task, oldest first."""
        rows = self.disk.store.stream_rows.items()
        found = [(row.facts.created_at, task) for task, row in rows if row.facts is not None and self.is_open(task)]
        return [task for _, task in sorted(found)]

    def digest(self, task: bytes) -> bytes | None:
        """The state of a task, by its hash."""
        row = self.disk.store.stream_rows.get(task)
        return None if row is None else row.digest

    def is_open(self, task: bytes) -> bool:
        """Whether there may be something to do for a task."""
        row = self.disk.store.stream_rows.get(task)
        return row is not None and row.facts is not None and row.facts.status in ("OPEN", "SUSPENDED")
