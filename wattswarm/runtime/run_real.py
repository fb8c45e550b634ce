"""One task, from its creation to its finality proof, on a node that can decide alone: one attempt of the autopilot.

Three transactions around two calls of the executor: the task and its claim; the candidate and the claim to verify
it; then everything from the evidence to the proof. Whatever the executor does, the task is left in a state that the
rules know, and what went wrong is on the log.
"""

from __future__ import annotations

from typing import Any

from sel.log import Log
from wattswarm.kernel.contract import TaskContract, parse_contract
from wattswarm.kernel.contract_draft import contract_from_json
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.membership import Membership
from wattswarm.kernel.payloads import course, work
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.state import TaskState, status
from wattswarm.runtime.autopilot import Driver, check_policy
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor as Registered
from wattswarm.runtime.executors import Executors
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.part import Hands
from wattswarm.runtime.watched import Watched

roles = ("proposer", "verifier", "committer", "finalizer")


async def run_real(log: Log, executors: Executors, name: str, profile: str, document: object) -> dict[str, Any]:
    """Run the task of a user's contract with the registered executor ``name``; the outcome as JSON-ready values.

    Raises ``Refused`` before anything is authored if the contract is bad, the executor lacks the task type or the
    profile, or this node alone cannot reach a decision.
    """
    registered = executors.get(name)
    if registered.disabled:
        raise Refused(
            "executor_disabled",
            f"executor {name} is not used any more: {registered.disabled}; mend it and add it again",
        )
    contract = contract_from_json(document)
    async with RuntimeClient(registered.base_url) as client:
        capabilities = await _capabilities(client, registered)
        _check_executor(registered.name, capabilities, contract["task_type"], profile)
        named = (capabilities.provider_family, capabilities.model_id)
        hands = Hands(Watched(client, executors, name), profile, named, frozenset(capabilities.stages))
        run = Run(log, hands, contract)
        await run.all()
    return {
        **await run.outcome(),
        "executor": registered.name,
        "profile": profile,
        "provider_family": named[0],
        "model_id": named[1],
    }


async def _capabilities(client: RuntimeClient, registered: Registered) -> Capabilities:
    try:
        return await client.capabilities()
    except RuntimeFailure as failure:
        raise Refused("executor", f"executor {registered.name}: {failure.message}") from None


def _check_executor(name: str, capabilities: Capabilities, task_type: str, profile: str) -> None:
    if task_type not in capabilities.task_types:
        there = ", ".join(capabilities.task_types)
        raise Refused("task_type", f"executor {name} does not serve task type {task_type!r}; it serves {there}")
    if profile not in capabilities.profiles:
        there = ", ".join(capabilities.profiles)
        raise Refused("profile", f"executor {name} has no profile {profile!r}; it has {there}")


def check_alone(membership: Membership, me: bytes, contract: TaskContract) -> None:
    """Whether this node alone can reach a decision on the contract. Raises ``Refused`` that says what is missing."""
    missing = [role for role in roles if not membership.has(me, role)]
    acceptance = contract.acceptance
    needs = (
        (bool(missing), f"this node is no {', no '.join(missing)}"),
        (membership.finality_threshold > 1, f"{membership.finality_threshold} finalizers must sign"),
        (acceptance.quorum_threshold > 1, f"quorum_threshold is {acceptance.quorum_threshold}"),
        (acceptance.da_quorum_threshold > 1, f"da_quorum_threshold is {acceptance.da_quorum_threshold}"),
        (len(membership.having("verifier")) > 1, "with other verifiers, a proposer's own vote does not count"),
    )
    reasons = [reason for needed, reason in needs if needed]
    if reasons:
        raise Refused(
            "not_alone",
            f"this node alone cannot decide the task: {'; '.join(reasons)}. `wattswarm task submit` gives it to the "
            "network",
        )


class Run:
    """One task's way."""

    def __init__(self, log: Log, hands: Hands, contract: dict[str, Any]) -> None:
        self.log = log
        self.hands = hands
        self.document = contract
        self.contract = parse_contract(contract)
        self.waits_for: list[str] = []
        self.task = b""

    async def all(self) -> None:
        """Go the whole way, or as far as the executor lets it."""
        await check_policy(self.log, self.contract)
        check_alone(self.log.network.current, self.log.keys.node_id, self.contract)
        created = await self._create()
        self.task = created[0].id
        driver = Driver(self.log, self.hands, self.task, once=True)
        driver.began(created)
        await driver.drive()
        self.waits_for = driver.waits_for

    async def _create(self) -> list[Event]:
        """The task, and the claim to propose in the same request: nobody else could come first."""
        now = self.log.clock()
        claim = work.TaskClaimed("propose", f"propose-1-1-{now:x}", now + self.contract.assignment.claim.lease_ms)
        creation = work.TaskCreated(self.document, self.log.network.current.hash)
        return await self.log.author(Draft(creation, None, 1), Draft(claim, None, 1, about_first=True))

    async def outcome(self) -> dict[str, Any]:
        """What became of it."""
        record = await self.log.task(self.task)
        state = record.folded.state
        assert isinstance(state, TaskState)
        said = [event.payload for event in record.events]
        candidates = [payload.candidate for payload in said if isinstance(payload, work.CandidateProposed)]
        errors = [payload.message for payload in said if isinstance(payload, course.TaskError)]
        committed = state.work.candidates.get(state.work.committed) if state.work.committed else None
        decided = state.decisions[0].candidate_id if state.decisions else None
        found = candidates[-1].output if candidates else None
        answer = found if isinstance(found, dict) else {}
        return {
            "task_id": self.contract.task_id,
            "task": self.task.hex(),
            "candidate_id": candidates[-1].candidate_id if candidates else None,
            "candidate_output": found,
            "final_decision": answer.get("decision") if decided else None,
            "final_answer": answer.get("answer") if decided else None,
            "terminal_state": status(state),
            "committed_candidate_id": committed.candidate_id if committed else None,
            "finalized_candidate_id": decided,
            **({"errors": errors} if errors else {}),
            **({"waits_for": self.waits_for} if self.waits_for and not decided and not errors else {}),
        }
