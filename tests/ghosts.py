"""A member that only exists on paper: its key signs a long history cheaply, for swarms of daemons to catch up with.

Each of its tasks is worked on, judged and then killed by its creator, so that nothing is left open for others to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.swarm import Swarm, author_count
from sel import transfer
from wattswarm.kernel import codec
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import Genesis, make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads.course import TaskKilled
from wattswarm.kernel.payloads.work import TaskCreated

hour_ms = 3_600_000
ghost_roles = frozenset({"proposer", "verifier"})


class Ghost(Swarm):
    """The history of one key on a network with others. Its clock began an hour before ``now_ms``."""

    def __init__(self, members: Mapping[bytes, frozenset[str]], signers: Sequence[Keypair], now_ms: int) -> None:
        key = Keypair(sha256(b"a ghost"))
        super().__init__(keys=[key] * author_count, now_ms=now_ms - hour_ms)
        self.genesis: Genesis = make_genesis(
            name="haunted",
            created_at=now_ms - 2 * hour_ms,
            fault_model="byzantine",
            members={**members, key.node_id: ghost_roles},
            signers=signers,
        )
        self.network_id = self.genesis.network_id
        self.tasks = 0

    def __post_init__(self) -> None:
        """Its chain begins; the network is the others' too, and made when they are known."""
        self.heads = {self.keys[0].node_id: (-1, None)}

    def task(self, number: int) -> list[Event]:
        """Nine events of a task that comes to nothing."""
        key, label = self.keys[0], f"ghost-{number}"
        document = sample_contract(label, self.now_ms + 24 * hour_ms, "ed25519:" + key.node_id.hex())
        created = self.say(key, TaskCreated(contract_from_json(document), self.network_id))
        candidate = self._propose(key, created.id, label)
        judged = self._judge(key, created.id, key, candidate)
        return [created, *self._last, *judged, self.say(key, TaskKilled("a ghost's"), created.id)]

    def write(self, path: Path, event_count: int) -> int:
        """A log file of at least ``event_count`` more events; how many."""
        count = 0
        with path.open("wb") as file:
            file.write(codec.encode([transfer.header_name, self.genesis.wire()]))
            while count < event_count:
                events = self.task(self.tasks)
                self.tasks += 1
                file.write(b"".join(codec.encode(["e", *event.wire]) for event in events))
                count += len(events)
        return count
