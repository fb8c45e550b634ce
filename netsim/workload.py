"""What honest members do all day: submit tasks, and say small things, at drawn moments on drawn nodes."""

from __future__ import annotations

import random
from typing import Any

from netsim.clock import Timeline
from netsim.node import SimNode
from netsim.scenario import Load
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.reasons import Reason
from wattswarm.kernel.refusal import Refused

year_ms = 365 * 86_400_000


def contract(label: str, load: Load, expiry_ms: int, task_type: str = "swarm") -> dict[str, Any]:
    """A contract that several verifiers have to agree on."""
    made = sample_contract(label, expiry_ms, "ed25519:" + "00" * 32)
    made["task_type"] = task_type
    made["inputs"] = {"prompt": label}
    made["acceptance"] |= {"quorum_threshold": load.quorum, "da_quorum_threshold": load.quorum}
    made["assignment"]["verify"]["max_verifiers"] = load.verifiers
    made["assignment"]["claim"]["max_concurrency"]["verify"] = load.verifiers
    return contract_from_json(made)


class Workload:
    """Authors for ``nodes`` until ``until_ms``. ``tasks``: what was submitted, and must end."""

    def __init__(
        self, timeline: Timeline, draw: random.Random, nodes: list[SimNode], load: Load, until_ms: int
    ) -> None:
        self._timeline, self._draw, self._nodes, self._load, self._until_ms = timeline, draw, nodes, load, until_ms
        self.tasks: dict[bytes, str] = {}
        self.notes = 0
        self._numbers = 0
        self._notebooks: dict[str, bytes] = {}

    def begin(self) -> None:
        """From now on."""
        for _ in range(self._load.history):
            self._note(self._nodes[self._draw.randrange(len(self._nodes))])
        if self._load.tasks_per_s:
            self._timeline.after(self._pause_ms(self._load.tasks_per_s), self._submit)
        if self._load.notes_per_s:
            for node in self._nodes:
                self._keep_noting(node)

    def _pause_ms(self, per_s: float) -> int:
        return max(1, round(self._draw.expovariate(per_s) * 1000))

    def _submit(self) -> None:
        node = self._nodes[self._draw.randrange(len(self._nodes))]
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
        said = course.TaskError(f"note-{self.notes}", "OTHER", [int(Reason.UNKNOWN)], "a note")
        try:
            node.author([Draft(said, book, 1)])
            self.notes += 1
        except Refused as refusal:
            node.tell("refused", refusal.reason)
