"""What a task's fold knows: small typed values, their canonical bytes, and nothing that an event can be asked for.

No outputs and no contract: a candidate is kept as the facts that later rules read, computed when it was folded.
One epoch's work is held at a time; ``decisions`` are pass 1's facts and are never changed by pass 2. State reads
of a certificate only what its id binds, so whichever copy of it a node holds, the bytes here are the same.
Maps are read by key, counted or summed, never by order: canonical CBOR sorts them. Keeps docs/protocol.md §4.
"""

from __future__ import annotations

from typing import Any, Literal

import cbor2
import msgspec
from msgspec import Struct, field

from wattswarm.kernel.codec import encode_sorting

Closing = Literal["OPEN", "FINALIZED", "EXPIRED", "STOPPED", "SUSPENDED", "KILLED"]
Status = Literal["OPEN", "FINALIZED", "EXPIRED", "STOPPED", "SUSPENDED", "KILLED", "FORKED"]


class Decision(Struct, frozen=True, array_like=True):
    """One fact of pass 1: the certificate that finalizes this epoch of the task."""

    epoch: int
    candidate_hash: bytes
    candidate_id: str
    candidate_author: bytes
    final_commit_hash: bytes
    output_digest: bytes


class Lease(Struct, array_like=True):
    """A right to work, from ``since`` until ``until`` (unix ms) and the clock skew more."""

    execution_id: str
    since: int
    until: int


class Tenure(Struct, array_like=True):
    """One author's leases of one role in this epoch. ``held_ms``: granted in all, what was given back taken off.

    ``released`` is the execution it last gave back; leases that ran out are dropped when the next claim comes.
    """

    held_ms: int = 0
    released: str = ""
    leases: list[Lease] = field(default_factory=list)


class Candidate(Struct, array_like=True):
    """A candidate's facts. ``passes``: this fold's own evaluation of the contract's policy.

    ``proposed``: the distinct evidence digests that it came with, which gate finality; ``added``: those that
    followed. ``created_at``: of its event, unix ms.
    """

    author: bytes
    candidate_id: str
    execution_id: str
    output_digest: bytes
    passes: bool
    created_at: int
    proposed: list[str]
    added: list[str] = field(default_factory=list)

    def evidence(self) -> list[str]:
        """All its digests, proposed and added."""
        return self.proposed + self.added


class Result(Struct, array_like=True):
    """What a verifier said of the candidates with ``candidate_id``, in round ``attempt``."""

    verifier: bytes
    candidate_id: str
    attempt: int
    status: str
    result_hash: str
    reason_codes: list[int]


class Vote(Struct, array_like=True):
    """A voter's sealed vote of this round, and what it said when opened. ``approves`` None: still sealed.

    ``result_hash`` is kept while it is sealed, to be compared with what the reveal says.
    """

    commit_hash: bytes
    committed_at: int
    candidate_hash: bytes
    result_hash: str
    approves: bool | None = None


class Reject(Struct, array_like=True):
    """A reveal that rejected: what REUSE_REJECT_RECORDED names as its proof. Kept over the epoch's rounds."""

    voter: bytes
    candidate_hash: bytes


class FinalityVote(Struct, array_like=True):
    """A finalizer's signature over the finality statement of ``candidate_hash``."""

    candidate_hash: bytes
    signature: bytes


class Spent(Struct, array_like=True):
    """Cost units one author used in this epoch, by stage."""

    explore: int = 0
    verify: int = 0
    finalize: int = 0


class Epoch(Struct, omit_defaults=True):
    """The work of one epoch. ``attempt``: its round, from 1; ``run_at``: when the round is to be worked on.

    ``moved_at``: created_at of the last event that took the work further: whose turn it is, is reckoned from there.
    ``results`` are in the order of the fold; ``attested``: digest -> who could read it; ``retries``: committers
    that scheduled the next round -> their run_at; ``committed``: the candidate of the first DECISION_COMMITTED.
    ``finalized``: a DECISION_FINALIZED was folded; ``ended_at``: when EPOCH_ENDED was, unix ms.
    """

    number: int
    started_at: int
    moved_at: int = 0
    propose: dict[bytes, Tenure] = field(default_factory=dict)
    verify: dict[bytes, Tenure] = field(default_factory=dict)
    candidates: dict[bytes, Candidate] = field(default_factory=dict)
    attested: dict[str, list[bytes]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    attempt: int = 1
    run_at: int = 0
    retries: dict[bytes, int] = field(default_factory=dict)
    votes: dict[bytes, Vote] = field(default_factory=dict)
    rejects: dict[bytes, Reject] = field(default_factory=dict)
    blacklist: list[bytes] = field(default_factory=list)
    committed: bytes | None = None
    finality_votes: dict[bytes, FinalityVote] = field(default_factory=dict)
    spent: dict[bytes, Spent] = field(default_factory=dict)
    finalized: bool = False
    ended_at: int | None = None


class Feedback(Struct, array_like=True):
    """The first feedback on an epoch's decision. Both times in unix ms; ``timestamp`` is the authority's."""

    timestamp: int
    created_at: int


class TaskState(Struct, omit_defaults=True):
    """A task's state. ``closing`` is pass 2's own word and provisional; ``status`` is what is reported.

    ``halts``: STOPPED/SUSPENDED/KILLED -> the finalizers that asked for it; ``feedback``: epoch -> the first.
    """

    decisions: list[Decision]
    continuous: bool
    work: Epoch
    closing: Closing = "OPEN"
    halts: dict[str, list[bytes]] = field(default_factory=dict)
    feedback: dict[int, Feedback] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """The epoch whose work this is."""
        return self.work.number

    def decided(self, epoch: int) -> bool:
        """Whether pass 1 holds a certificate for ``epoch``."""
        return any(decision.epoch == epoch for decision in self.decisions)


def status(state: TaskState) -> Status:
    """What is reported of the task: pass 1's word where it has one, else the fold's (docs/protocol.md §4, §6)."""
    epochs = [decision.epoch for decision in state.decisions]
    if len(set(epochs)) < len(epochs):
        return "FORKED"
    if epochs and not state.continuous:
        return "FINALIZED"
    return state.closing


def encode_state(state: TaskState) -> bytes:
    """The canonical CBOR that the stream's digest is taken of."""
    return encode_sorting(msgspec.to_builtins(state, builtin_types=(bytes,)))


def decode_state(data: bytes) -> TaskState:
    """The state of bytes that ``encode_state`` made."""
    value: Any = cbor2.loads(data)
    return msgspec.convert(value, TaskState, builtin_types=(bytes,))
