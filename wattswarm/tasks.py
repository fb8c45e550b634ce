"""What people ask about tasks and tell them: submission, the decision, stops, feedback - over an open log.

Reads folds and authors events; knows nothing of terminals or HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sel.log import Log, TaskRecord
from sel.views import hex_bytes
from wattswarm.kernel.certificate import DecisionCertificate
from wattswarm.kernel.contract import parse_contract
from wattswarm.kernel.contract_draft import contract_from_json, decidability_warnings
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.intents.outlook import outlook
from wattswarm.kernel.membership import Membership
from wattswarm.kernel.payloads.course import TaskFeedbackReported, TaskKilled, TaskStopped, TaskSuspended
from wattswarm.kernel.payloads.work import CandidateProposed, TaskCreated
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.state import TaskState, status
from wattswarm.kernel.task.vote import tally
from wattswarm.runtime.autopilot import check_policy

halts = {"stop": TaskStopped, "suspend": TaskSuspended, "kill": TaskKilled}


async def submit(log: Log, document: object) -> tuple[Event, list[str]]:
    """Author the TASK_CREATED of a user's contract. Returns it, and warnings why the task may never be decided.

    Raises ``Refused`` naming every fault of the contract.
    """
    contract = contract_from_json(document)
    parsed = parse_contract(contract)
    await check_policy(log, parsed)
    membership = log.network.current
    roles = ("proposer", "verifier", "committer", "finalizer")
    warnings = decidability_warnings(parsed, {role: len(membership.having(role)) for role in roles})
    created = (await log.author(Draft(TaskCreated(contract, membership.hash), None, 1)))[0]
    return created, warnings


async def halt(log: Log, reference: str, how: str, reason: str) -> Event:
    """Author a TASK_STOPPED, TASK_SUSPENDED or TASK_KILLED (``how``: stop, suspend, kill) in the epoch that goes on."""
    stream = await log.resolve(reference)
    state = _state(await log.task(stream))
    over = state.work.ended_at is not None or (state.continuous and state.decided(state.epoch))
    return (await log.author(Draft(halts[how](reason), stream, state.epoch + over)))[0]


async def report_feedback(log: Log, reference: str, said: TaskFeedbackReported, epoch: int) -> Event:
    """Author a TASK_FEEDBACK_REPORTED. The authority's signature decides, whoever carries it."""
    stream = await log.resolve(reference)
    return (await log.author(Draft(said, stream, epoch)))[0]


def _state(record: TaskRecord) -> TaskState:
    assert isinstance(record.folded.state, TaskState)
    return record.folded.state


def decision(record: TaskRecord) -> dict[str, Any]:
    """A task's decision, or what it waits for, as JSON-ready values."""
    state, pins = _state(record), record.folded.pins
    assert pins is not None
    work = state.work
    committed = work.candidates.get(work.committed) if work.committed else None
    found: dict[str, Any] = {
        "task_id": pins.contract.task_id,
        "task": pins.task.hex(),
        "state": status(state),
        "epoch": state.epoch,
        "committed_candidate_id": committed.candidate_id if committed else None,
        "finalized_candidate_id": None,
    }
    certificates = [cert for cert in record.certificates if status(state) != "FORKED"]
    if certificates:
        found.update(_decided(max(certificates, key=lambda cert: cert.epoch), pins.membership))
    else:
        quorum = pins.contract.acceptance.quorum_threshold
        best = max((tally(pins, work, name)[0] for name in work.candidates), default=0)
        found["progress"] = {
            "candidates": len(work.candidates),
            "commits": len(work.votes),
            "approvals": best,
            "quorum_threshold": quorum,
            "finality_votes": len(work.finality_votes),
            "finality_threshold": pins.membership.finality_threshold,
        }
    return found


def _decided(certificate: DecisionCertificate, membership: Membership) -> dict[str, Any]:
    proposed = certificate.candidate.payload
    assert isinstance(proposed, CandidateProposed)
    return {
        "finalized_candidate_id": proposed.candidate.candidate_id,
        "candidate_hash": certificate.candidate_hash.hex(),
        "final_commit_hash": certificate.id.hex(),
        "decided_epoch": certificate.epoch,
        "signers": [entry.signer_node_id.hex() for entry in certificate.proof.signatures],
        "finality_threshold": membership.finality_threshold,
        "finalizers": len(membership.having("finalizer")),
        "output": hex_bytes(proposed.candidate.output),
    }


def candidate_events(record: TaskRecord) -> Mapping[bytes, Event]:
    """Candidate hash -> the event that proposed it."""
    return {
        candidate_hash(event.author, event.payload.candidate): event
        for event in record.events
        if isinstance(event.payload, CandidateProposed)
    }


def watch_view(record: TaskRecord, now_ms: int, away: Mapping[bytes, int] | None = None) -> dict[str, Any]:
    """What ``task watch`` shows. ``waits_for``: a sentence, as long as the task goes on. ``away``: see ``outlook``."""
    found = decision(record)
    names = ("task_id", "state", "committed_candidate_id", "finalized_candidate_id", "epoch")
    waits = waits_for(record, now_ms, away)
    more = {"progress": found.get("progress"), "waits_for": waits}
    return {**{name: found[name] for name in names}, **{name: value for name, value in more.items() if value}}


def waits_for(record: TaskRecord, now_ms: int, away: Mapping[bytes, int] | None = None) -> str:
    """What the task waits for, and for whom; empty if it is over."""
    assert record.folded.pins is not None
    return outlook(_state(record), record.folded.pins, now_ms, away)


def read_document(content: bytes, name: str) -> object:
    """The JSON of a file. Raises ``Refused`` naming it."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused("not_json", f"{name} is not JSON: {error}") from None
