"""A stream's fold (docs/protocol.md §4): from all its events and certificates, or one more event on top.

Two kinds of stream, one shape: a task's events, and the governance events of the network. What a log stores of
a stream is ``Folded``; the events' verdicts are beside it, outside the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wattswarm.kernel import governance
from wattswarm.kernel.certificate import Certificate, DecisionCertificate, NotYetKnown
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.event import Event, SortKey
from wattswarm.kernel.governance import GovernanceState
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.judge import DecisionFinalized
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task import fold as task_fold
from wattswarm.kernel.task.fold import Pins
from wattswarm.kernel.task.state import TaskState
from wattswarm.kernel.verdict import ACCEPTED, UNSUPPORTED, Verdict, refused

before_creation = refused("before_creation", "the event sorts before the creation of its task")
unknown_task = refused(
    "unknown_task", "the task's TASK_CREATED is not here, or was refused, and no certificate names it"
)


@dataclass(slots=True)
class Folded:
    """A stream's state. ``state`` None: outside the root. ``awaits``: the membership version it waits for.

    ``unproven``: a DECISION_FINALIZED of it was refused, so its certificate may complete later.
    """

    stream: bytes
    state: TaskState | GovernanceState | None = None
    pins: Pins | None = None
    last: SortKey | None = None
    awaits: bytes | None = None
    unproven: bool = False
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)

    def encoded(self) -> tuple[bytes, bytes] | None:
        """(canonical CBOR of the state, its SHA-256), or None outside the root."""
        match self.state:
            case None:
                return None
            case GovernanceState():
                data = governance.encode_state(self.state)
            case _:
                data = task_fold.encode_state(self.state)
        return data, sha256(data)


def fold(stream: bytes, network: Network, events: Sequence[Event], certificates: Iterable[Certificate]) -> Folded:
    """Fold live ``events`` (canonical order) and the ``certificates`` about the stream, from nothing."""
    folded = Folded(stream)
    if stream == network.network_id:
        if events or len(network.versions) > 1:
            folded.state = governance.new(network)
        for event in events:
            apply(folded, network, event)
        return folded
    decisions = sorted(
        (cert for cert in certificates if isinstance(cert, DecisionCertificate)), key=lambda cert: (cert.epoch, cert.id)
    )
    creation = next((event for event in events if event.id == stream), None)
    opening = _open(folded, network, creation, decisions)
    waiting = creation is not None
    for event in events:
        if event.id == stream:
            waiting = False
            folded.last = event.sort_key
            folded.verdicts[event.id] = opening
        elif waiting and event.payload is not None:
            folded.last = event.sort_key
            folded.verdicts[event.id] = before_creation
            _note_unproven(folded, event, before_creation)
        else:
            apply(folded, network, event)
    return folded


def _open(
    folded: Folded, network: Network, creation: Event | None, decisions: Sequence[DecisionCertificate]
) -> Verdict:
    """Pin the task and begin its state: by its creation's own right, or else by a certificate's."""
    verdict = ACCEPTED
    if creation is not None and creation.payload is None:
        verdict = UNSUPPORTED
    elif creation is not None:
        try:
            folded.pins = task_fold.open_task(creation, network)
        except NotYetKnown as refusal:
            verdict = refused(refusal.reason, refusal.message)
            folded.awaits = creation.payload.membership  # type: ignore[union-attr]
        except Refused as refusal:
            verdict = refused(refusal.reason, str(refusal))
    if folded.pins is None and decisions:
        folded.pins = task_fold.pin_task(decisions[0].creation, network)
    if folded.pins is not None:
        folded.state = task_fold.new_state(folded.pins, [task_fold.decision_of(cert) for cert in decisions])
    return verdict


def apply(folded: Folded, network: Network, event: Event) -> Verdict:
    """Apply ``event``, the last of its stream in canonical order, on top."""
    assert folded.last is None or folded.last < event.sort_key, "only the last event applies on top"
    match folded.state:
        case _ if event.payload is None:
            verdict = UNSUPPORTED
        case None:
            verdict = unknown_task
        case GovernanceState() as state:
            verdict = governance.apply(state, network, event)
        case TaskState() as state:
            assert folded.pins is not None
            verdict = task_fold.apply(state, folded.pins, event)
    folded.last = event.sort_key
    folded.verdicts[event.id] = verdict
    _note_unproven(folded, event, verdict)
    return verdict


def _note_unproven(folded: Folded, event: Event, verdict: Verdict) -> None:
    if verdict.status != "accepted" and isinstance(event.payload, DecisionFinalized):
        folded.unproven = True
