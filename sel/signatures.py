"""Verifying many signatures: in chunks, on other threads.

libsodium works without the interpreter's lock, so two threads give two cores; a chunk of 64 pays for the hop, one
signature a hop does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wattswarm.kernel import identity
from wattswarm.kernel.certificate import Certificate, DecisionCertificate
from wattswarm.kernel.event import Event, signature_holds

chunk_events = 64
chunk_certificates = 16


def bad_signatures(events: Sequence[Event]) -> list[Event]:
    """The events whose signature is not their author's. Blocks; releases the interpreter's lock while it works."""
    return [event for event in events if not signature_holds(event)]


def look_ahead(certificates: Sequence[Certificate]) -> None:
    """Check the signatures in proofs, so that their answers are remembered when the certificates are judged."""
    for certificate in certificates:
        if isinstance(certificate, DecisionCertificate):
            for entry in certificate.proof.signatures:
                identity.verify(entry.signer_node_id, certificate.statement, entry.signature_hex)


async def verify(
    events: Sequence[Event], certificates: Sequence[Certificate], limiter: trio.CapacityLimiter
) -> list[Event]:
    """The events whose signature does not hold, checked in chunks on at most ``limiter`` threads.

    The signatures in ``certificates`` are looked at on the same threads; they are judged where they are taken in.
    """
    bad: list[Event] = []

    async def check(chunk: Sequence[Event]) -> None:
        bad.extend(await trio.to_thread.run_sync(bad_signatures, chunk, limiter=limiter))

    async def look(chunk: Sequence[Certificate]) -> None:
        await trio.to_thread.run_sync(look_ahead, chunk, limiter=limiter)

    async with trio.open_nursery() as nursery:
        for start in range(0, len(events), chunk_events):
            nursery.start_soon(check, events[start : start + chunk_events])
        for start in range(0, len(certificates), chunk_certificates):
            nursery.start_soon(look, certificates[start : start + chunk_certificates])
    return bad
