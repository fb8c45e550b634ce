"""What members of a cluster do all day: submit tasks and write notes, as the plan says, each at a host that can."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from netsim.cluster.plan import Saying
from netsim.cluster.seat import Seat, task_label
from netsim.scenario import Load
from netsim.workload import contract, year_ms
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.reasons import Reason
from wattswarm.node import now_ms

again_s = 0.5


class Mouth:
    """Speaks for the nodes of ``seats``. ``tasks``, ``notes``: how many were submitted and written."""

    def __init__(self, seats: Sequence[Seat], load: Load, network: bytes) -> None:
        self._seats, self._load, self._network = seats, load, network
        self._notebooks: dict[int, bytes] = {}
        self.tasks = self.notes = 0

    async def say(self, saying: Saying) -> None:
        """A task goes to whoever can take it, as soon as anybody can; a note that cannot be written is not."""
        if saying.what == "note":
            await self._note(saying.hosts[0], saying.number)
            return
        while True:
            for number in saying.hosts:
                if await self._create(
                    number, f"{task_label}{saying.number}", "swarm", round(self._load.expiry_s * 1000)
                ):
                    self.tasks += 1
                    return
            await trio.sleep(again_s)

    async def _create(self, number: int, label: str, task_type: str, for_ms: int) -> bytes | None:
        made = contract(label, self._load, now_ms() + for_ms, task_type)
        created = await self._seats[number].author(Draft(work.TaskCreated(made, self._network), None, 1))
        return None if created is None else created.id

    async def _note(self, number: int, note: int) -> None:
        """A small event in a stream of the node's own, which nobody works on."""
        book = self._notebooks.get(number)
        if book is None:
            made = await self._create(number, f"notes-{number}-{note}", "notes", year_ms)
            if made is not None:
                self._notebooks[number] = made
            return
        said = course.TaskError(f"note-{note}", "OTHER", [int(Reason.UNKNOWN)], "a note")
        if await self._seats[number].author(Draft(said, book, 1)) is None:
            self._notebooks.pop(number, None)
        else:
            self.notes += 1
