"""A small world for tests: named authors with keys and chains, a network, and tasks whose events are really signed.

``World`` speaks for its authors: everything it returns is a checked event with its place in its author's chain, so
that it serves the fold's tests, the log's and the histories of property tests alike. Nothing here waits or draws:
the clock is a number that moves as authors speak.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from tests.cast import Roles, authority, day_ms, everything, genesis_ms, keys_of, names, step_ms
from tests.story import Story
from wattswarm.kernel import event, hlc
from wattswarm.kernel.certificate import MembershipCertificate
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.genesis import FaultModel, Quotas, make_genesis
from wattswarm.kernel.membership import Network, next_version, signed_bytes, version_hash
from wattswarm.kernel.payloads import kind_names, kinds, work
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.kernel.payloads.govern import MembershipUpdated
from wattswarm.kernel.task.fold import Decision


class World:
    """Authors, their chains, and a clock that moves ``step_ms`` with every event.

    ``members``: name -> roles (default: ``ada`` alone, with all roles). Anybody else may speak too, as a stranger.
    ``now_ms`` may be set; ``network`` is replaced when a version is added.
    """

    def __init__(
        self,
        members: Mapping[str, Roles] | None = None,
        *,
        fault_model: FaultModel = "byzantine",
        quotas: Quotas | None = None,
    ) -> None:
        self.members = {name: frozenset(roles) for name, roles in (members or {"ada": everything}).items()}
        self.now_ms = genesis_ms
        self.heads: dict[bytes, Event] = {}
        self.created = 0
        self.genesis = make_genesis(
            name="a world",
            created_at=genesis_ms,
            fault_model=fault_model,
            members={keys_of(name).node_id: roles for name, roles in self.members.items()},
            signers=[keys_of(name) for name in self.members],
            quotas=quotas,
        )
        self.network = Network.of(self.genesis)

    @staticmethod
    def of(count: int, roles: Roles = everything, *, fault_model: FaultModel = "byzantine") -> World:
        """``count`` members with the same roles, named as in ``names``."""
        return World(dict.fromkeys(names[:count], roles), fault_model=fault_model)

    @property
    def network_id(self) -> bytes:
        """The network's id."""
        return self.network.network_id

    def node(self, name: str) -> bytes:
        """A node id."""
        return keys_of(name).node_id

    def having(self, role: str) -> list[str]:
        """The members with a role, in the order they were given."""
        return [name for name, roles in self.members.items() if role in roles]

    def tick(self, ms: int = step_ms) -> int:
        """Let time pass; the new time."""
        self.now_ms += ms
        return self.now_ms

    # -- events --------------------------------------------------------------------------------------------------

    def author(
        self,
        name: str,
        payload: Payload,
        *,
        task: bytes | None = None,
        epoch: int | None = None,
        at_ms: int | None = None,
        clock: int | None = None,
    ) -> Event:
        """The next event of ``name``'s chain.

        ``epoch``: 1 for events about a task, else 0. ``at_ms``: its created_at (default: a step later than the last
        event of anybody). ``clock``: its whole hlc, also one that the chain does not allow.
        """
        if at_ms is None:
            at_ms = self.tick()
        self.now_ms = max(self.now_ms, at_ms)
        last = self.heads.get(self.node(name))
        if clock is None:
            clock = hlc.pack(at_ms) if last is None else max(hlc.pack(at_ms), last.hlc + 1)
            assert hlc.wall_ms(clock) == at_ms, f"{name} has spoken later than that already"
        seq, prev = (0, None) if last is None else (last.author_seq + 1, last.id)
        said = self._sign(name, seq, prev, clock, Draft(payload, task, self._epoch(payload, epoch)))
        self.heads[said.author] = said
        return said

    def rival(
        self, said: Event, payload: Payload | None = None, *, task: bytes | None = None, clock: int | None = None
    ) -> Event:
        """Another event at the same place of the same chain: a fork. The chain goes on from ``said``."""
        name = next(name for name in (*self.members, *names) if self.node(name) == said.author)
        assert said.payload is not None
        draft = Draft(payload or said.payload, said.task if payload is None else task, said.epoch)
        clock = said.hlc + 1 if clock is None else clock
        return self._sign(name, said.author_seq, said.prev, clock, draft)

    def _sign(self, name: str, seq: int, prev: bytes | None, clock: int, draft: Draft) -> Event:
        return event.author(keys_of(name), self.network_id, seq, prev, clock, draft)

    @staticmethod
    def _epoch(payload: Payload, epoch: int | None) -> int:
        if epoch is not None:
            return epoch
        return 0 if kinds[kind_names[type(payload)]].governs else 1

    # -- membership ----------------------------------------------------------------------------------------------

    def next_version(
        self, members: Mapping[str, Roles], until: Mapping[str, int] | None = None
    ) -> MembershipCertificate:
        """Sign the version after the current one, and know it. ``until``: who leaves -> last author_seq."""
        previous = self.network.current
        body = next_version(
            self.network,
            previous,
            {self.node(name): frozenset(roles) for name, roles in members.items()},
            {self.node(name): seq for name, seq in (until or {}).items()},
        )
        message = signed_bytes(self.network_id, "commit", previous.hash, 0, version_hash(body))
        signers = [name for name in self.members if previous.has(self.node(name), "finalizer")]
        update = MembershipUpdated(
            body,
            0,
            [
                SignerSignature(self.node(name), keys_of(name).sign(message))
                for name in signers[: previous.finality_threshold]
            ],
        )
        self.network = self.network.with_version(update)
        self.members = {name: frozenset(roles) for name, roles in members.items()}
        return MembershipCertificate(update)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def contract(self, task_id: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A valid contract for this membership: as many leases and proposers as members. ``changes`` by dotted path.

        A changed value is not checked: a wrong one makes a wrong contract.
        """
        many = max(1, len(self.members))
        sizes = {
            "assignment.claim.max_concurrency": {"propose": many, "verify": many},
            "assignment.explore.max_proposers": many,
            "assignment.verify.max_verifiers": many,
        }
        document = sample_contract(task_id, self.now_ms + day_ms, "ed25519:" + authority.node_id.hex())
        for path, value in sizes.items():
            _put(document, path, value)
        document = contract_from_json(document)
        for path, value in (changes or {}).items():
            _put(document, path, value)
        return document

    def create_task(
        self,
        name: str | None = None,
        task_id: str | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        membership: bytes | None = None,
        at_ms: int | None = None,
    ) -> Event:
        """A TASK_CREATED under the current membership (or ``membership``), by the first proposer (or ``name``)."""
        self.created += 1
        contract = self.contract(task_id or f"task-{self.created}", changes)
        payload = work.TaskCreated(contract, membership or self.network.current.hash)
        return self.author(name or self.having("proposer")[0], payload, at_ms=at_ms)

    def task(
        self,
        name: str | None = None,
        task_id: str | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
        decisions: Iterable[Decision] = (),
    ) -> Story:
        """A new task and its story."""
        return Story(self, self.create_task(name, task_id, changes=changes), decisions)

    def full_chain(
        self, name: str | None = None, task_id: str | None = None, *, changes: Mapping[str, Any] | None = None
    ) -> list[Event]:
        """All events of a task from its creation to its finality proof; 11 of them in a world of one."""
        story = self.task(name, task_id, changes=changes)
        return [story.creation, *story.finish()]


def _put(document: dict[str, Any], path: str, value: Any) -> None:
    *way, name = path.split(".")
    section: Any = document
    for step in way:
        section = section[step]
    section[name] = copy.deepcopy(value)
