"""Who is in a drawn swarm, and on what terms its tasks are: small tables that bytes choose from."""

from __future__ import annotations

from typing import Any

from tests.cast import everything, names
from wattswarm.kernel.policy import SCHEMA_THRESHOLDS, registry

worker = frozenset({"proposer", "verifier"})
judge = frozenset({"verifier", "committer"})
notary = frozenset({"finalizer", "committer"})
casts: tuple[dict[str, frozenset[str]], ...] = (
    dict.fromkeys(names[:4], everything),
    dict.fromkeys(names[:2], everything),
    {"ada": everything, "ben": worker, "cy": judge, "dee": notary, "eli": notary},
    dict.fromkeys(names[:5], everything),
    {"ada": everything, "ben": worker, "cy": judge},
)
small_budget = {
    "budget.explore_cost_units": 2,
    "budget.verify_cost_units": 8,
    "budget.finalize_cost_units": 1,
}
continuous = {"task_mode": "CONTINUOUS", "budget.mode": "EPOCH_RENEW"}
one_slot = {"assignment.claim.max_concurrency": {"propose": 1, "verify": 1}}
thresholds = {
    "policy_id": SCHEMA_THRESHOLDS,
    "policy_version": "1",
    "policy_hash": registry[SCHEMA_THRESHOLDS, "1"].policy_hash,
    "policy_params": {"min_confidence": 0.95},
}
terms: tuple[dict[str, Any], ...] = (
    {},
    {"acceptance.quorum_threshold": 2},
    continuous,
    one_slot,
    {**continuous, **small_budget},
    {"budget.time_ms": 2_000, "budget.reuse_verify_time_ms": 1_000, "assignment.claim.lease_ms": 1_000},
    {"assignment.explore.topk": 1},
    {"assignment.explore.stop.no_new_evidence_rounds": 1},
    {"acceptance.vote.reveal_deadline_ms": 1, **one_slot},
    {**small_budget, "acceptance.quorum_threshold": 2, "budget.max_steps": 2},
    {"acceptance.verifier_policy": thresholds},
)
"""By dotted path, beside the sample contract."""

wrong_terms: tuple[dict[str, Any], ...] = (
    {"expiry_ms": 1},
    {"expiry_ms": 1 << 52},
    {"task_id": "not a label"},
    {"output_schema": {"$ref": "http://127.0.0.1/schema"}},
    {"acceptance.verifier_policy.policy_version": "7"},
)
