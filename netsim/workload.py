"""What honest members do all day: submit tasks, and say small things, at drawn moments on drawn nodes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from netsim.clock import Timeline
from netsim.disk import Disk, SimGuard
from netsim.node import SimNode
from netsim.scenario import Load
from sel.authoring import Author, Request, author_batch, request_drafts_max
from sel.ingest import Knowledge
from sel.memory import at_once
from wattswarm.kernel.chain import Head
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.refusal import Refused

day_ms = 86_400_000
year_ms = 365 * day_ms


def contract(label: str, load: Load, expiry_ms: int, task_type: str = "swarm") -> dict[str, Any]:
    """A contract that several verifiers have to agree on."""
    made = sample_contract(label, expiry_ms, "ed25519:" + "00" * 32)
    made["task_type"] = task_type
    made["inputs"] = {"prompt": label}
    made["acceptance"] |= {"quorum_threshold": load.quorum, "da_quorum_threshold": load.quorum}
    made["assignment"]["verify"]["max_verifiers"] = load.verifiers
    made["assignment"]["claim"]["max_concurrency"]["verify"] = load.verifiers
    return contract_from_json(made)


def lay_history(nodes: Sequence[SimNode], load: Load, network: Network) -> None:
    """Have all nodes hold ``load.history`` events of the day before the run: small streams, by each in turn."""
    log, knowledge = Disk(), Knowledge(network)
    guards = {node.name: SimGuard() for node in nodes}
    streams = load.history // request_drafts_max
    for stream in range(streams):
        node = nodes[stream % len(nodes)]
        at_ms = node.clock() - day_ms + day_ms * stream // streams
        made = contract(f"history-{stream}", load, at_ms + year_ms, "notes")
        notes = [_note(f"history-{number}") for number in range(request_drafts_max - 1)]
        drafts = [Draft(work.TaskCreated(made, network.current.hash), None, 1)]
        request = Request([*drafts, *(Draft(note, None, 1, about_first=True) for note in notes)])
        author = Author(node.keys, guards[node.name], lambda at_ms=at_ms: at_ms)  # type: ignore[misc]
        at_once(author_batch(log.store, knowledge, author, [request]))
        assert isinstance(request.result, list), request.result
    for node in nodes:
        head = log.store.chain_rows[node.node_id].head if node.node_id in log.store.chain_rows else Head()
        node.disk = log.copied()
        node.disk.guard = SimGuard(head.seq, head.id)


def _note(name: str) -> course.TaskError:
    return course.TaskError(name, "OTHER", [int(Reason.UNKNOWN)], "a note")


class Workload:
    """Authors for ``nodes`` until ``until_ms``. ``tasks``: what was submitted, and must end."""

    def __init__(
        self, timeline: Timeline, draw: random.Random, nodes: list[SimNode], load: Load, until_ms: int
    ) -> None:
        self._timeline, self._draw, self.nodes, self._load, self._until_ms = timeline, draw, nodes, load, until_ms
        self.tasks: dict[bytes, str] = {}
        self.notes = 0
        self._numbers = 0
        self._notebooks: dict[str, bytes] = {}

    def begin(self) -> None:
        """From now on."""
        if self._load.tasks_per_s:
            self._timeline.after(self._pause_ms(self._load.tasks_per_s), self._submit)
        if self._load.notes_per_s:
            for node in self.nodes:
                self._keep_noting(node)

    def _pause_ms(self, per_s: float) -> int:
        return max(1, round(self._draw.expovariate(per_s) * 1000))

    def _submit(self) -> None:
        node = self.nodes[self._draw.randrange(len(self.nodes))]
        if len(self.tasks) < self._load.tasks_max and node.up:
            created = self._create(node, f"task-{self._numbers}", "swarm", round(self._load.expiry_s * 1000))
            if created is not None:
                self.tasks[created] = node.name
                node.tell("submit", created.hex()[:8])
        if self._timeline.now_ms < self._until_ms:
            self._timeline.after(self._pause_ms(self._load.tasks_per_s), self._submit)

    def _create(self, node: SimNode, label: str, task_type: str, for_ms: int) -> bytes | None:
        self._numbers += 1
        made = contract(label, self._load, node.clock() + for_ms, task_type)
        draft = Draft(work.TaskCreated(made, node.network.current.hash), None, 1)
        try:
            created = node.author([draft])[0]
        except Refused as refusal:
            node.tell("refused", refusal.reason)
            return None
        if node.pilot is not None:
            node.pilot.heard(created.id)
        return created.id

    def _keep_noting(self, node: SimNode) -> None:
        self._timeline.after(self._pause_ms(self._load.notes_per_s), lambda: self._noted(node))

    def _noted(self, node: SimNode) -> None:
        if node.up:
            self._note(node)
        if self._timeline.now_ms < self._until_ms:
            self._keep_noting(node)

    def _note(self, node: SimNode) -> None:
        """A small event in a stream of the node's own, which nobody works on."""
        book = self._notebooks.get(node.name)
        if book is None or book not in node.disk.store.stream_rows:
            created = self._create(node, f"notes-{self._numbers}", "notes", year_ms)
            if created is not None:
                self._notebooks[node.name] = created
            return
        try:
            node.author([Draft(_note(f"note-{self.notes}"), book, 1)])
            self.notes += 1
        except Refused as refusal:
            node.tell("refused", refusal.reason)
