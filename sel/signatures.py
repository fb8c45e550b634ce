"""Verifying many signatures: in chunks on other threads, or in numbers in a helper process.

libsodium works without the interpreter's lock, so threads are good for what comes now and then; a chunk of 64 pays
for the hop. Whoever is busy itself has a process check for it (``sel.verifier``): a long import always, a node on the
network while much comes (``Checker``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from sel.lifetimes import single_error
from sel.verifier import Claim, Verifier, VerifierGone, open_verifier
from wattswarm.kernel import identity
from wattswarm.kernel.certificate import Certificate, DecisionCertificate
from wattswarm.kernel.event import Event, signature_context
from wattswarm.kernel.finality import statement
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.judge import DecisionFinalized, FinalityProof, FinalityVote

chunk_claims = 64
few_claims = 16
"""Cheaper to check at once than to hand over: a millisecond's work."""
many_claims = 128
"""So many at one time, and a helper process is begun."""
helper_idle_s = 30.0
threads_max = 2
Check = Callable[[Sequence[Claim]], Awaitable[Sequence[bool]]]


def claims_of(events: Sequence[Event]) -> list[Claim]:
    """The signatures of events."""
    return [(event.author, signature_context + event.id, event.signature) for event in events]


def claims_within(events: Sequence[Event], certificates: Sequence[Certificate], network: Network) -> Iterator[Claim]:
    """The signatures that events and certificates carry about decisions, as far as they may come to count.

    Which version a vote's task pins is not known yet: it is taken for the current one.
    """
    for event in events:
        said, task = event.payload, event.task
        if task is None or not network.knows_author(event.author):
            continue
        if isinstance(said, FinalityVote):
            voted = statement(event.network_id, network.current.hash, task, event.epoch, said.candidate_hash)
            yield event.author, voted, said.signature
        elif isinstance(said, DecisionFinalized) and _may_count(said.finality_proof, network):
            proof = said.finality_proof
            decided = statement(event.network_id, proof.membership, task, event.epoch, said.winning_candidate_hash)
            yield from _signed(proof, decided)
    for certificate in certificates:
        if isinstance(certificate, DecisionCertificate) and _may_count(certificate.proof, network):
            yield from _signed(certificate.proof, certificate.statement)


def _signed(proof: FinalityProof, said: bytes) -> Iterator[Claim]:
    return ((entry.signer_node_id, said, entry.signature_hex) for entry in proof.signatures)


def _may_count(proof: FinalityProof, network: Network) -> bool:
    """What a stranger's version or a thousand signers would cost is not spent."""
    version = network.versions.get(proof.membership)
    return version is not None and len(proof.signatures) <= version.finality_threshold


async def on_threads(claims: Sequence[Claim]) -> list[bool]:
    """Which claims hold, on other threads if they are more than a few."""
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


def check(claims: Sequence[Claim]) -> list[bool]:
    """Which claims hold. Blocks; releases the interpreter's lock while it works."""
    return [identity.verify(*claim) for claim in claims]


async def bad_signatures(
    events: Sequence[Event],
    certificates: Sequence[Certificate] = (),
    network: Network | None = None,
    check: Check = on_threads,
) -> list[Event]:
    """The events whose signature is not their author's.

    With a ``network`` the signatures within events and certificates are looked at on the way and remembered; they are
    judged where they are taken in.
    """
    claims = claims_of(events)
    if network is not None:
        within = dict.fromkeys(claims_within(events, certificates, network))
        claims.extend(claim for claim in within if not identity.remembers(*claim))
    good = await check(claims)
    return [event for event, holds in zip(events, good, strict=False) if not holds]


class Checker:
    """Checks signatures for a node: on threads, and while many come in a helper process. Made by ``open_checker``.

    ``helper``: that process, while there is one.
    """

    def __init__(self) -> None:
        self.helper: Verifier | None = None
        self._turn = trio.Lock()
        self._wanted = trio.Event()
        self._lost = trio.Event()
        self._used = False

    async def check(self, claims: Sequence[Claim]) -> Sequence[bool]:
        """Which claims hold (``Check``). A helper that dies costs nothing but time."""
        if len(claims) <= few_claims:
            return check(claims)
        if len(claims) >= many_claims:
            self._wanted.set()
        async with self._turn:
            if self.helper is not None:
                self._used = True
                with suppress(VerifierGone):
                    return await self._ask(self.helper, claims)
        return await on_threads(claims)

    async def _ask(self, helper: Verifier, claims: Sequence[Claim]) -> Sequence[bool]:
        try:
            return await helper.check(claims)
        except BaseException:  # also when cancelled: what it answers next would belong to this
            self.helper = None
            self._lost.set()
            raise

    async def serve(self) -> None:
        """Have a helper while it is of use, for ever."""
        while True:
            await self._wanted.wait()
            async with open_verifier() as self.helper:
                await self._until_idle()
            self._wanted = trio.Event()

    async def _until_idle(self) -> None:
        self._lost = trio.Event()
        while not self._lost.is_set():
            self._used = False
            with trio.move_on_after(helper_idle_s):
                await self._lost.wait()
            async with self._turn:
                if not self._used:
                    self.helper = None
                    return


@asynccontextmanager
async def open_checker() -> AsyncIterator[Checker]:
    """A checker until left."""
    checker = Checker()
    with single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checker.serve)
            yield checker
            nursery.cancel_scope.cancel()
