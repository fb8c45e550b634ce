"""Events of other versions and kinds, in any form that the envelope allows: what a swarm that upgrades hears."""

from __future__ import annotations

from typing import Any

from tests.cast import keys_of
from tests.world import World
from wattswarm.kernel import codec, hlc
from wattswarm.kernel.event import Event, parse, signature_context


def foreign(
    world: World,
    name: str,
    kind: str = "TASK_DREAMT_OF",
    *,
    version: str = "0.1.0",
    task: bytes | None = None,
    epoch: int = 0,
    payload: dict[str, Any] | None = None,
    at_ms: int | None = None,
) -> Event:
    """The next event of ``name``'s chain, in whatever words. Raises ``Malformed`` if its form is bad."""
    last = world.heads.get(world.node(name))
    seq, prev = (0, None) if last is None else (last.author_seq + 1, last.id)
    clock = hlc.pack(world.tick() if at_ms is None else at_ms)
    fields = [version, world.network_id, world.node(name), seq, prev, clock, task, epoch, kind, payload or {}]
    body = codec.encode(fields)
    said = parse(body, keys_of(name).sign(signature_context + codec.sha256(body)), world.network_id)
    world.heads[said.author] = said
    return said
