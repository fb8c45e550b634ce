"""One task, from its creation to its finality proof, on a node that can decide alone.

Three transactions around two calls of the executor: the task and its claim; the candidate and the claim to verify
it; then everything from the evidence to the proof. Whatever the executor does, the task is left in a state that the
rules know, and what went wrong is on the log.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from typing import Any, TypeVar

from sel.log import Log
from wattswarm.kernel import finality
from wattswarm.kernel.contract import TaskContract, parse_contract
from wattswarm.kernel.contract_draft import contract_from_json
from wattswarm.kernel.event import Draft, Event
from wattswarm.kernel.membership import Membership
from wattswarm.kernel.payloads import course, judge, work
from wattswarm.kernel.payloads.fields import Payload, SignerSignature
from wattswarm.kernel.policy import policy_hash_matches
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.state import TaskState, status
from wattswarm.kernel.task.vote import Ballot
from wattswarm.runtime import effects
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.contract import Capabilities, ExecuteRequest, ExecuteResponse, VerifyRequest, VerifyResponse
from wattswarm.runtime.effects import Executor, Judgement
from wattswarm.runtime.executors import Executor as Registered
from wattswarm.runtime.executors import Executors
from wattswarm.runtime.failure import RuntimeFailure

T = TypeVar("T")
roles = ("proposer", "verifier", "committer", "finalizer")
salt_bytes = 32


class Watched:
    """A registered executor that is disabled when it turns out to lack an endpoint (404, 405)."""

    def __init__(self, client: RuntimeClient, executors: Executors, name: str) -> None:
        self._client = client
        self._executors = executors
        self._name = name

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        """POST /execute."""
        return await self._watch(self._client.execute(request, deadline_ms))

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        """POST /verify."""
        return await self._watch(self._client.verify(request, deadline_ms))

    async def _watch(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except RuntimeFailure as failure:
            if failure.missing:
                self._executors.disable(self._name, failure.message)
            raise


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
        run = Run(log, Watched(client, executors, name), named, profile, contract)
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


async def check_policy(log: Log, contract: TaskContract) -> None:
    """Whether the contract binds its policy under a hash that is the policy's own, or admitted. Raises ``Refused``."""
    binding = contract.acceptance.verifier_policy
    if not policy_hash_matches(binding, await log.admitted_policy_hashes(binding.policy_id)):
        raise Refused(
            "policy_hash",
            "the contract binds a policy under a hash that is not its own",
            (Problem("acceptance.verifier_policy.policy_hash", binding.policy_hash, "the hash of `policy list`"),),
        )


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
    """One task's way. ``executor`` may be a stand-in."""

    def __init__(
        self, log: Log, executor: Executor, named: tuple[str, str], profile: str, contract: dict[str, Any]
    ) -> None:
        self.log = log
        self.executor = executor
        self.named = named
        self.profile = profile
        self.document = contract
        self.contract = parse_contract(contract)
        self.lease_ms = self.contract.assignment.claim.lease_ms
        self.task = b""
        self.candidate: work.Candidate | None = None

    async def all(self) -> None:
        """Go the whole way, or as far as the executor lets it."""
        await check_policy(self.log, self.contract)
        check_alone(self.log.network.current, self.log.keys.node_id, self.contract)
        execution_id = f"exec-{secrets.token_hex(8)}"
        await self._create(execution_id)
        proposed = await self._propose(execution_id)
        if isinstance(proposed, course.TaskError):
            await self._say(proposed)
            return
        self.candidate = proposed
        verify_id = f"exec-{secrets.token_hex(8)}"
        claim = work.TaskClaimed("verify", verify_id, self.log.clock() + self.lease_ms)
        created = (await self._say(work.CandidateProposed(proposed), claim))[0].created_at
        judged = await self._judge(proposed, verify_id, created)
        if isinstance(judged, course.TaskError):
            await self._say(judged)
        else:
            await self._decide(proposed, verify_id, judged)

    async def _say(self, *payloads: Payload) -> list[Event]:
        return await self.log.author(*(Draft(payload, self.task, 1) for payload in payloads))

    async def _create(self, execution_id: str) -> None:
        membership = self.log.network.current
        claim = work.TaskClaimed("propose", execution_id, self.log.clock() + self.lease_ms)
        created, _ = await self.log.author(
            Draft(work.TaskCreated(self.document, membership.hash), None, 1), Draft(claim, None, 1, about_first=True)
        )
        self.task = created.id

    async def _propose(self, execution_id: str) -> work.Candidate | course.TaskError:
        request = ExecuteRequest(
            self.contract.task_id,
            execution_id,
            self.contract.task_type,
            self.contract.inputs,
            self.profile,
            self.document,
            "explore",
            f"{execution_id}-1",
        )
        name = f"cand-{secrets.token_hex(8)}"
        return await effects.propose(self.executor, request, self.contract, name, self.lease_ms)

    async def _judge(self, candidate: work.Candidate, execution_id: str, created: int) -> Judgement | course.TaskError:
        request = effects.verify_request(self.contract, candidate, created, self.named[1])
        return await effects.judge(
            self.executor, request, self.contract, candidate, execution_id, self.named, self.lease_ms
        )

    async def _decide(self, candidate: work.Candidate, execution_id: str, judged: Judgement) -> None:
        """Evidence, result, vote; and if that approves: decision, finality vote and proof. One transaction."""
        me = self.log.keys
        result, name = judged.result, candidate.candidate_id
        chosen = candidate_hash(me.node_id, candidate)
        said: list[Payload] = []
        if judged.attest:
            digests = dict.fromkeys(ref.digest for ref in candidate.evidence_refs)
            said.extend(work.EvidenceAvailable(name, execution_id, digest) for digest in digests)
        said.append(judge.VerifierResultSubmitted(result))
        if result.verification_status == "inconclusive":
            await self._say(*said, work.TaskClaimReleased("verify", execution_id))
            return
        salt, seen = secrets.token_hex(salt_bytes), result.verifier_result_hash
        vote: Any = "approve" if result.passed else "reject"
        sealed = Ballot(self.task, 1, 1, me.node_id, chosen, vote, salt, seen).commit_hash()
        said.append(judge.VoteCommit(name, chosen, execution_id, seen, sealed))
        said.append(judge.VoteReveal(name, chosen, execution_id, seen, vote, salt))
        if result.passed and judged.attest:
            said.extend(self._finality(name, chosen))
        await self._say(*said)

    def _finality(self, name: str, chosen: bytes) -> list[Payload]:
        network = self.log.network
        membership = network.current
        statement = finality.statement(network.network_id, membership.hash, self.task, 1, chosen)
        signature = finality.sign(self.log.keys, statement)
        proof = judge.FinalityProof(1, membership.hash, [SignerSignature(self.log.keys.node_id, signature)])
        if self.log.clock() > self.contract.expiry_ms:
            return []
        return [
            judge.DecisionCommitted(name, chosen),
            judge.FinalityVote(chosen, signature),
            judge.DecisionFinalized(name, chosen, proof),
        ]

    async def outcome(self) -> dict[str, Any]:
        """What became of it."""
        record = await self.log.task(self.task)
        state = record.folded.state
        assert isinstance(state, TaskState)
        committed = state.work.candidates.get(state.work.committed) if state.work.committed else None
        decided = state.decisions[0].candidate_id if state.decisions else None
        found = self.candidate.output if self.candidate else None
        answer = found if isinstance(found, dict) else {}
        errors = [event.payload.message for event in record.events if isinstance(event.payload, course.TaskError)]
        return {
            "task_id": self.contract.task_id,
            "task": self.task.hex(),
            "candidate_id": self.candidate.candidate_id if self.candidate else None,
            "candidate_output": found,
            "final_decision": answer.get("decision") if decided else None,
            "final_answer": answer.get("answer") if decided else None,
            "terminal_state": status(state),
            "committed_candidate_id": committed.candidate_id if committed else None,
            "finalized_candidate_id": decided,
            **({"errors": errors} if errors else {}),
        }
