"""Who speaks in tests: names with their keys, the sample values they use, and how to read what they said.

The same name has the same keys in every world. Keeps no state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache

from wattswarm.kernel.certificate import ForkCertificate
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event
from wattswarm.kernel.genesis import all_roles
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.payloads import work
from wattswarm.kernel.task.candidate import candidate_hash

genesis_ms = 1_790_000_000_000
day_ms = 86_400_000
step_ms = 10
Roles = Collection[str]
everything = frozenset(all_roles)
names = ("ada", "ben", "cy", "dee", "eli", "fay", "gus", "hal", "ivy", "joe")


@cache
def keys_of(name: str) -> Keypair:
    """The keys that go with a name."""
    return Keypair(sha256(name.encode()))


authority = keys_of("the authority")


def digest_of(text: str) -> str:
    """An evidence digest."""
    return "sha256:" + sha256(text.encode()).hex()


def artifact(digest: str) -> work.EvidenceRef:
    """A reference to an artifact with that digest."""
    return work.EvidenceRef("http://127.0.0.1/artifact", digest, 120, "text/plain", genesis_ms, "a test")


def proposal(said: Event) -> work.Candidate:
    """The candidate of a CANDIDATE_PROPOSED."""
    assert isinstance(said.payload, work.CandidateProposed)
    return said.payload.candidate


def hash_of(candidate: Event) -> bytes:
    """A proposed candidate's hash."""
    return candidate_hash(candidate.author, proposal(candidate))


def result_hash(name: str, candidate: Event) -> str:
    """The verifier_result_hash that ``name``'s executor gives for a candidate."""
    return sha256(name.encode() + hash_of(candidate)).hex()


def salt_of(name: str) -> str:
    """A voter's salt."""
    return sha256(b"salt of " + name.encode()).hex()


def fork_of(one: Event, other: Event) -> ForkCertificate:
    """The certificate of a fork."""
    return ForkCertificate.of(one, other)


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events in canonical order."""
    return sorted(events, key=lambda said: said.sort_key)
