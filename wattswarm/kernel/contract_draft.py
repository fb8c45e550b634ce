"""A contract as a user writes it: defaults left out, faults reported all together, a sample to start from.

The same types and rules as on the wire (``contract``); only what has a default may be missing, and is written
out here once and for all. Also says, before a task is submitted, whether the contract can lead to a decision
at all in a given membership. Keeps the defaults of the task contract and docs/protocol.md §6 "Stage budgets".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from wattswarm.kernel.contract import TaskContract, refused, rules_hold, wire_shape
from wattswarm.kernel.limits import inline_mime_allowlist, label_chars_max, text_bytes_max
from wattswarm.kernel.policy import SCHEMA_ONLY, known, policies, registry
from wattswarm.kernel.schema import DIALECT
from wattswarm.kernel.shape import Shape

defaults: tuple[tuple[str, Any], ...] = (
    ("task_mode", "ONE_SHOT"),
    ("budget.mode", "LIFETIME"),
    ("assignment.explore", {}),
    ("assignment.explore.max_proposers", 1),
    ("assignment.explore.topk", 3),
    ("assignment.explore.stop", {}),
    ("assignment.explore.stop.no_new_evidence_rounds", 3),
    ("assignment.verify", {}),
    ("assignment.verify.max_verifiers", 1),
    ("assignment.finalize", {}),
    ("assignment.finalize.max_finalizers", 1),
    ("acceptance.da_quorum_threshold", 1),
    ("evidence_policy.max_snippet_bytes", 8_192),
    ("evidence_policy.max_snippet_tokens", 2_048),
)
"""(path, value) in the order they are filled in; {} is a section whose every field has a default."""

_POLICY_HASH = "acceptance.verifier_policy.policy_hash"
_SECTION_DEPTH = 4


def _draft_schema() -> dict[str, Any]:
    """The wire's JSON Schema, where what has a default is not required."""
    schema = copy.deepcopy(wire_shape.schema)
    for path, value in (*defaults, (_POLICY_HASH, None)):
        section = schema
        *way, name = path.split(".")
        for step in way:
            section = section["properties"][step]
        section["required"].remove(name)
        if value is not None:
            section["properties"][name]["default"] = value
    return schema


_draft_shape = Shape(_draft_schema())

_said_of_fields: tuple[tuple[str, dict[str, Any]], ...] = (
    ("task_id", {"pattern": f"^[A-Za-z0-9._:-]{{1,{label_chars_max}}}$"}),
    ("task_type", {"minLength": 1, "description": f"at most {text_bytes_max} bytes"}),
    ("output_schema", {"description": "JSON Schema 2020-12; references local and without cycles"}),
    ("budget.mode", {"description": "EPOCH_RENEW if task_mode is CONTINUOUS"}),
    ("budget.cost_units", {"description": "at least the sum of the three stage buckets"}),
    ("budget.reuse_verify_time_ms", {"description": "at most time_ms"}),
    ("budget.reuse_verify_cost_units", {"description": "at most cost_units"}),
    ("acceptance.verifier_policy.policy_id", {"enum": [policy.policy_id for policy in policies]}),
    (_POLICY_HASH, {"pattern": "^[0-9a-f]{64}$", "description": "filled in when absent"}),
    ("acceptance.vote.commit_reveal", {"const": True}),
    ("acceptance.settlement.feedback.authority_pubkey", {"pattern": "^ed25519:[0-9a-f]{64}$"}),
    ("expiry_ms", {"description": "unix time in milliseconds"}),
    ("evidence_policy.inline_mime_allowlist", {"description": "at least " + ", ".join(inline_mime_allowlist)}),
)
"""What the rules say, as far as JSON Schema can say it: for editors and forms."""


def contract_json_schema() -> dict[str, Any]:
    """The JSON Schema of a contract as users write it (a copy: change it as you like)."""
    schema = copy.deepcopy(_draft_shape.schema)
    for path, words in _said_of_fields:
        section = schema
        for step in path.split("."):
            section = section["properties"][step]
        section.update(words)
    return {"$schema": DIALECT, "title": "WattSwarm task contract", **schema}


def contract_from_json(value: object) -> dict[str, Any]:
    """The canonical document of a user's contract: defaults and policy hash written out, every rule checked.

    ``value`` is decoded JSON and is left as it is. Raises ``Refused("contract_invalid")`` with all problems.
    """
    document = _filled(value) if isinstance(value, dict) else value
    try:
        contract = msgspec.convert(document, TaskContract, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise refused(_draft_shape, document, error) from None
    rules_hold(contract)
    assert isinstance(document, dict)
    return document


def _sections(value: Any, depth: int) -> Any:
    """A copy of the maps of the first ``depth`` levels; what is deeper is shared, not walked."""
    if not isinstance(value, dict) or depth == 0:
        return value
    return {key: _sections(item, depth - 1) for key, item in value.items()}


def _filled(contract: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = _sections(contract, _SECTION_DEPTH)
    for path, value in defaults:
        section, name = _section_of(document, path)
        if section is not None:
            section.setdefault(name, dict(value) if value == {} else value)
    section, name = _section_of(document, _POLICY_HASH)
    if section is not None and name not in section:
        policy = known(section.get("policy_id"), section.get("policy_version"))
        if policy is not None:
            section[name] = policy.policy_hash
    return document


def _section_of(document: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, str]:
    """The map that holds the last name of ``path``, if the document has it."""
    *way, name = path.split(".")
    section: Any = document
    for step in way:
        section = section.get(step) if isinstance(section, dict) else None
    return (section if isinstance(section, dict) else None), name


def sample_contract(task_id: str, expiry_ms: int, authority_pubkey: str) -> dict[str, Any]:
    """A valid contract to start from: one proposer, one verifier, answers with a confidence.

    ``expiry_ms`` is unix time in ms; ``authority_pubkey`` is ``ed25519:`` and 64 lower-case hex digits.
    """
    return {
        "protocol_version": "v0.1",
        "task_id": task_id,
        "task_type": "swarm",
        "inputs": {"prompt": "hello"},
        "output_schema": {
            "type": "object",
            "required": ["answer"],
            "properties": {
                "answer": {"type": "string"},
                "confidence": {"type": "number"},
                "check_summary": {"type": "string"},
            },
        },
        "budget": {
            "time_ms": 30_000,
            "max_steps": 10,
            "cost_units": 1_000,
            "mode": "LIFETIME",
            "explore_cost_units": 350,
            "verify_cost_units": 450,
            "finalize_cost_units": 200,
            "reuse_verify_time_ms": 20_000,
            "reuse_verify_cost_units": 200,
            "reuse_max_attempts": 1,
        },
        "assignment": {
            "mode": "CLAIM",
            "claim": {"lease_ms": 5_000, "max_concurrency": {"propose": 1, "verify": 1}},
            "explore": {"max_proposers": 1, "topk": 3, "stop": {"no_new_evidence_rounds": 3}},
            "verify": {"max_verifiers": 1},
            "finalize": {"max_finalizers": 1},
        },
        "acceptance": {
            "quorum_threshold": 1,
            "da_quorum_threshold": 1,
            "verifier_policy": {
                "policy_id": SCHEMA_ONLY,
                "policy_version": "1",
                "policy_hash": registry[SCHEMA_ONLY, "1"].policy_hash,
                "policy_params": {},
            },
            "vote": {"commit_reveal": True, "reveal_deadline_ms": 10_000},
            "settlement": {
                "window_ms": 86_400_000,
                "implicit_weight": 0.1,
                "implicit_diminishing_returns": {"W": 10, "K": 50},
                "bad_penalty": {"P": 3},
                "feedback": {"mode": "CAPABILITY", "authority_pubkey": authority_pubkey},
            },
        },
        "task_mode": "ONE_SHOT",
        "expiry_ms": expiry_ms,
        "evidence_policy": {
            "max_inline_evidence_bytes": 65_536,
            "max_inline_media_bytes": 0,
            "max_snippet_bytes": 8_192,
            "max_snippet_tokens": 2_048,
            "inline_mime_allowlist": list(inline_mime_allowlist),
        },
    }


_VOTE_COST = 3
"""A verifier pays 1 each for its result, its commit and its reveal."""


def decidability_warnings(contract: TaskContract, members: Mapping[str, int]) -> list[str]:
    """Why this contract cannot, or may not, lead to a decision; empty if nothing stands in the way.

    ``members`` counts the members per role (``proposer``, ``verifier``, ``committer``, ``finalizer``) of the
    membership the task will pin. Nothing here makes a contract invalid.
    """
    warnings = [
        f"nobody in this membership is a {role}, so nobody can {duty}"
        for role, duty in (
            ("proposer", "propose a candidate"),
            ("verifier", "verify and vote"),
            ("finalizer", "commit the decision and sign its finality"),
            ("committer", "schedule another round when a vote fails"),
        )
        if members.get(role, 0) < 1
    ]
    return warnings + _quorum_warnings(contract, members.get("verifier", 0)) + _bucket_warnings(contract)


def _quorum_warnings(contract: TaskContract, verifiers: int) -> list[str]:
    quorum, attesting = contract.acceptance.quorum_threshold, contract.acceptance.da_quorum_threshold
    warnings = []
    if 0 < verifiers < quorum:
        warnings.append(f"quorum_threshold is {quorum}, but this membership has {verifiers} verifier(s)")
    if 1 < verifiers == quorum:
        warnings.append(
            f"quorum_threshold is {quorum} and so is the number of verifiers: a verifier that proposes a candidate "
            "cannot vote for it, so its candidate cannot be accepted"
        )
    if 0 < verifiers < attesting:
        warnings.append(
            f"da_quorum_threshold is {attesting}, but this membership has {verifiers} verifier(s): a candidate with "
            "evidence cannot become final"
        )
    return warnings


def _bucket_warnings(contract: TaskContract) -> list[str]:
    quorum, attesting = contract.acceptance.quorum_threshold, contract.acceptance.da_quorum_threshold
    bucket, verifiers = contract.budget.verify_cost_units, contract.assignment.verify.max_verifiers
    share = -(-bucket // verifiers)
    costs = (
        (bucket, quorum * _VOTE_COST, attesting, f"verify_cost_units is {bucket}, but a quorum of {quorum} costs"),
        (share, _VOTE_COST, 1, f"one verifier may spend {share} of verify_cost_units, but its vote costs"),
    )
    warnings = []
    for available, votes, evidence, sentence in costs:
        if available < votes:
            warnings.append(f"{sentence} {votes}: no candidate can be accepted")
        elif available < votes + evidence:
            more = votes + evidence
            warnings.append(f"{sentence} {more} with one piece of evidence: such a candidate cannot become final")
    return warnings
