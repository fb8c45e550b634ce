"""Finality: what a statement binds, and which signatures prove it (docs/protocol.md §7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from tests.cast import everything, keys_of
from tests.world import World
from wattswarm.kernel import finality
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.membership import Membership
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.judge import FinalityProof
from wattswarm.kernel.refusal import Refused

task, candidate = b"\x02" * 32, b"\x03" * 32


def node(name: str) -> bytes:
    return keys_of(name).node_id


def membership() -> Membership:
    """Four finalizers, of whom three decide, and a verifier."""
    roles = dict.fromkeys(("ada", "ben", "cy", "dee"), everything) | {"eli": frozenset({"verifier"})}
    return World(roles).network.current


pinned = membership()
said = finality.statement(pinned.hash, pinned.hash, task, 1, candidate)


def proof(signers: Sequence[str], statement: bytes = said, **changes: Any) -> FinalityProof:
    signatures = [SignerSignature(node(name), finality.sign(keys_of(name), statement)) for name in signers]
    made = FinalityProof(3, pinned.hash, signatures)
    return msgspec.structs.replace(made, **changes)


def reason_of(made: FinalityProof) -> str:
    with pytest.raises(Refused) as refusal:
        finality.check_proof(made, pinned, said)
    return refusal.value.reason


@pytest.mark.parametrize("part", range(5))
def test_a_statement_binds_network_membership_task_epoch_and_candidate(part: int) -> None:
    parts: list[Any] = [pinned.hash, pinned.hash, task, 1, candidate]
    parts[part] = 2 if part == 3 else b"\x09" * 32
    assert finality.statement(*parts) != said


def test_a_decision_is_named_by_the_hash_of_its_statement() -> None:
    assert finality.final_commit_hash(said) == sha256(said)


@pytest.mark.parametrize("signers", [["ada", "ben", "cy"], ["dee", "ben", "ada"], ["ada", "ben", "cy", "dee"]])
def test_distinct_finalizers_as_many_as_decide_prove_a_statement(signers: list[str]) -> None:
    finality.check_proof(proof(signers), pinned, said)


@pytest.mark.parametrize(
    ("signers", "reason"),
    [
        ([], "too_few_signers"),
        (["ada", "ben"], "too_few_signers"),
        (["ada", "ben", "ada"], "signer_twice"),
        (["ada", "ben", "cy", "dee", "ada"], "signer_twice"),
        (["ada", "ben", "eli"], "signer_role"),
        (["ada", "ben", "cy", "eli"], "signer_role"),
        (["ada", "ben", "fay"], "signer_role"),
    ],
)
def test_a_proof_of_anybody_else_is_refused(signers: list[str], reason: str) -> None:
    assert reason_of(proof(signers)) == reason


def test_signatures_over_another_statement_are_refused() -> None:
    other = finality.statement(pinned.hash, pinned.hash, task, 2, candidate)
    assert reason_of(proof(["ada", "ben", "cy"], other)) == "bad_signature"


def test_one_bad_signature_spoils_a_proof_that_would_suffice_without_it() -> None:
    made = proof(["ada", "ben", "cy", "dee"])
    made.signatures[3] = SignerSignature(node("dee"), made.signatures[0].signature_hex)
    assert reason_of(made) == "bad_signature"


@pytest.mark.parametrize("threshold", [1, 2, 4])
def test_the_reader_computes_the_threshold_itself(threshold: int) -> None:
    assert reason_of(proof(["ada", "ben", "cy"], threshold=threshold)) == "proof_threshold"


def test_a_proof_under_another_membership_version_is_refused() -> None:
    assert reason_of(proof(["ada", "ben", "cy"], membership=b"\x01" * 32)) == "proof_membership"


def test_a_vote_holds_for_its_signer_and_statement_only() -> None:
    signature = finality.sign(keys_of("ada"), said)
    assert finality.vote_holds(node("ada"), said, signature)
    assert not finality.vote_holds(node("ben"), said, signature)
    assert not finality.vote_holds(node("ada"), said + b"\0", signature)


def test_votes_become_a_proof_when_they_are_enough() -> None:
    votes = {node(name): finality.sign(keys_of(name), said) for name in ("dee", "ada", "cy")}
    made = finality.make_proof(pinned, votes)
    assert made is not None
    finality.check_proof(made, pinned, said)
    del votes[node("cy")]
    assert finality.make_proof(pinned, votes) is None


def test_votes_of_others_than_finalizers_do_not_make_a_proof() -> None:
    votes = {node(name): finality.sign(keys_of(name), said) for name in ("ada", "ben", "eli")}
    assert finality.make_proof(pinned, votes) is None


def test_a_made_proof_has_as_many_signers_as_decide_and_always_the_same() -> None:
    votes = {node(name): finality.sign(keys_of(name), said) for name in ("dee", "ada", "cy", "ben")}
    made = finality.make_proof(pinned, votes)
    assert made is not None
    assert [entry.signer_node_id for entry in made.signatures] == sorted(votes)[:3]
