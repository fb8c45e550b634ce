"""What a task pins by hash, for good: its creation, its contract and its membership version.

Late governance never re-folds a task, because everything its rules ask about members or terms is answered here.
Keeps docs/protocol.md §4 and "Created" of §6. Knows neither states nor a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wattswarm.kernel.contract import TaskContract, parse_contract
from wattswarm.kernel.event import Event
from wattswarm.kernel.limits import clock_skew_tolerance_ms, contracts_remembered_max, expiry_horizon_ms_max
from wattswarm.kernel.membership import Membership, Network
from wattswarm.kernel.payloads.work import TaskCreated
from wattswarm.kernel.policy import Policy, known
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.task.wording import moment, short


@dataclass(frozen=True, slots=True, eq=False)
class Pins:
    """A task's fixed terms. The last five fields are worked out of the contract and the membership once.

    ``lease_slots``: live leases of a role at one time; ``lease_total_ms``: an author's leases of one role in one
    epoch; ``buckets`` and ``shares``: cost units per stage and epoch, of all and of one author.
    """

    task: bytes
    creation: Event
    contract: TaskContract
    membership: Membership
    network_id: bytes
    policy: Policy
    lease_slots: Mapping[str, int]
    lease_total_ms: int
    buckets: Mapping[str, int]
    shares: Mapping[str, int]
    sole_verifier: bytes | None

    @property
    def continuous(self) -> bool:
        """Whether the task goes on, epoch after epoch."""
        return self.contract.task_mode == "CONTINUOUS"


def open_task(creation: Event, network: Network) -> Pins:
    """The pins of a creation that stands by its own right. Raises ``Refused`` with the rule that it breaks.

    The contract is good; its policy and the membership version are known; the author is a proposer of that
    version; created_at < expiry_ms ≤ created_at + 366 days.
    """
    pins = pin_task(creation, network)
    if not pins.membership.has(creation.author, "proposer"):
        raise Refused(
            "role",
            f"{short(creation.author)} is no proposer in membership version {pins.membership.number}: "
            "only proposers create tasks",
        )
    created, expiry = creation.created_at, pins.contract.expiry_ms
    if expiry <= created:
        raise Refused(
            "expiry_passed", f"expiry_ms is {moment(expiry)}, not after the task's creation at {moment(created)}"
        )
    if expiry > created + expiry_horizon_ms_max:
        raise Refused(
            "expiry_too_far",
            f"expiry_ms is {moment(expiry)}, at most 366 days after the creation are allowed: "
            f"{moment(created + expiry_horizon_ms_max)}",
        )
    return pins


_contracts: dict[bytes, TaskContract] = {}


def contract_of(creation: Event) -> TaskContract:
    """The contract in a creation. Raises ``Refused`` if it is bad. The last ones are remembered, by event id."""
    contract = _contracts.get(creation.id)
    if contract is None:
        assert isinstance(creation.payload, TaskCreated), "a creation has a contract"
        contract = parse_contract(creation.payload.contract)
        if len(_contracts) >= contracts_remembered_max:
            _contracts.clear()
        _contracts[creation.id] = contract
    return contract


def pin_task(creation: Event, network: Network) -> Pins:
    """The pins of a creation that a certificate carries: its role and its times are not asked about.

    Raises ``Refused`` if the contract is bad, ``NotYetKnown`` if the membership version is not here.
    """
    payload = creation.payload
    assert isinstance(payload, TaskCreated)
    contract = contract_of(creation)
    membership = network.version(payload.membership)
    binding = contract.acceptance.verifier_policy
    policy = known(binding.policy_id, binding.policy_version)
    assert policy is not None, "the contract's rules know the policy"
    verifiers = membership.having("verifier")
    return Pins(
        task=creation.id,
        creation=creation,
        contract=contract,
        membership=membership,
        network_id=creation.network_id,
        policy=policy,
        lease_slots=_lease_slots(contract),
        lease_total_ms=max(contract.assignment.claim.lease_ms, contract.budget.time_ms // 2),
        buckets=_buckets(contract),
        shares=_shares(contract),
        sole_verifier=next(iter(verifiers)) if len(verifiers) == 1 else None,
    )


def lease_ms_longest(pins: Pins) -> int:
    """How far ahead of its event a ``lease_until`` may lie: the contract's lease_ms and the clock skew."""
    return pins.contract.assignment.claim.lease_ms + clock_skew_tolerance_ms


def _lease_slots(contract: TaskContract) -> dict[str, int]:
    claim, assignment = contract.assignment.claim, contract.assignment
    return {
        "propose": min(claim.max_concurrency.propose, assignment.explore.max_proposers),
        "verify": min(claim.max_concurrency.verify, assignment.verify.max_verifiers),
    }


def _buckets(contract: TaskContract) -> dict[str, int]:
    budget = contract.budget
    return {
        "explore": budget.explore_cost_units,
        "verify": budget.verify_cost_units,
        "finalize": budget.finalize_cost_units,
    }


def _shares(contract: TaskContract) -> dict[str, int]:
    """⌈bucket / max_proposers⌉ and ⌈bucket / max_verifiers⌉; finalizing has no share of its own."""
    budget, assignment = contract.budget, contract.assignment
    return {
        "explore": -(-budget.explore_cost_units // assignment.explore.max_proposers),
        "verify": -(-budget.verify_cost_units // assignment.verify.max_verifiers),
        "finalize": budget.finalize_cost_units,
    }
