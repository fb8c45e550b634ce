"""Verifying many signatures: in chunks on other threads, or in numbers in a helper process.

libsodium works without the interpreter's lock, so threads are good for what comes now and then; a chunk of 64 pays
for the hop. A long import keeps the interpreter busy itself, and has a process check for it (``sel.verifier``).
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from sel.verifier import Claim, Verifier
from wattswarm.kernel import identity
from wattswarm.kernel.certificate import Certificate, DecisionCertificate
from wattswarm.kernel.event import Event, signature_context

chunk_claims = 64
few_claims = 16
"""Cheaper to check at once than to hand over: a millisecond's work."""
threads_max = 2


def claims_of(events: Sequence[Event], certificates: Sequence[Certificate]) -> list[Claim]:
    """The signatures of events, then those in the proofs of certificates."""
    claims = [(event.author, signature_context + event.id, event.signature) for event in events]
    for certificate in certificates:
        if isinstance(certificate, DecisionCertificate):
            statement = certificate.statement
            claims.extend(
                (entry.signer_node_id, statement, entry.signature_hex) for entry in certificate.proof.signatures
            )
    return claims


def check(claims: Sequence[Claim]) -> list[bool]:
    """Which claims hold. Blocks; releases the interpreter's lock while it works."""
    return [identity.verify(*claim) for claim in claims]


async def bad_signatures(
    events: Sequence[Event], certificates: Sequence[Certificate] = (), helper: Verifier | None = None
) -> list[Event]:
    """The events whose signature is not their author's.

    The signatures in ``certificates`` are looked at on the way and remembered; they are judged where they are taken in.
    """
    claims = claims_of(events, certificates)
    if helper is not None:
        good = await helper.check(claims)
    else:
        good = await _on_threads(claims)
    return [event for event, holds in zip(events, good, strict=False) if not holds]


async def _on_threads(claims: Sequence[Claim]) -> list[bool]:
    if len(claims) <= few_claims:
        return check(claims)
    limiter = trio.CapacityLimiter(threads_max)
    parts: dict[int, list[bool]] = {}

    async def part(start: int) -> None:
        chunk = claims[start : start + chunk_claims]
        parts[start] = await trio.to_thread.run_sync(check, chunk, limiter=limiter)

    async with trio.open_nursery() as nursery:
        for start in range(0, len(claims), chunk_claims):
            nursery.start_soon(part, start)
    return [holds for start in sorted(parts) for holds in parts[start]]
