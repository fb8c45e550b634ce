"""Checkpoints: a node says what it holds, so that one with the same frontier and another root is found out."""

from __future__ import annotations

from sel.log import Log
from sel.rows import LogHead
from sel.store import Txn
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.payloads.govern import CheckpointCreated, Fingerprint, Fingerprints

number_bytes = 32


def _number(value: int) -> bytes:
    return value.to_bytes(number_bytes, "little")


async def author_checkpoint(log: Log) -> Event:
    """Author a CHECKPOINT_CREATED of this node's log as it stands. Raises ``Refused`` if the node may not."""

    async def work(txn: Txn) -> tuple[LogHead, dict[str, int]]:
        lines = await txn.chains(list(log.network.authors))
        return txn.head, {author.hex(): line.head.seq for author, line in lines.items() if line.head.seq >= 0}

    head, frontier = await log.read(work)
    prints = Fingerprints(
        Fingerprint(head.events, _number(head.events_sum)),
        Fingerprint(head.certificates, _number(head.certificates_sum)),
    )
    payload = CheckpointCreated(log.network.current.hash, f"at-{head.seq}", frontier, prints, _number(head.state_root))
    return (await log.author(Draft(payload)))[0]
