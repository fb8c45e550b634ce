"""The fixed vectors of ids, signatures, candidates, proofs and certificates hold here (tests/vectors/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wattswarm.kernel import codec, event, finality, identity
from wattswarm.kernel.bundle import verify_bundle
from wattswarm.kernel.certificate import MembershipCertificate, NotYetKnown, parse_certificate, verify_certificate
from wattswarm.kernel.genesis import parse_genesis
from wattswarm.kernel.membership import Membership, Network, signed_bytes, threshold, version_hash
from wattswarm.kernel.payloads import kinds, plain
from wattswarm.kernel.payloads.fields import SignerSignature
from wattswarm.kernel.payloads.govern import VersionBody
from wattswarm.kernel.payloads.judge import FinalityProof
from wattswarm.kernel.payloads.work import Candidate
from wattswarm.kernel.refusal import Malformed, Refused
from wattswarm.kernel.task.candidate import candidate_hash
from wattswarm.kernel.task.vote import Ballot


def read(name: str) -> Any:
    return json.loads((Path(__file__).parents[1] / "vectors" / name).read_text())


def named(entries: list[dict[str, Any]]) -> pytest.MarkDecorator:
    """Parametrize over named entries."""
    return pytest.mark.parametrize("vector", entries, ids=[entry["name"] for entry in entries])


def value_of(written: Any) -> Any:
    """The value that JSON writes: ``{"bytes": hex}`` stands for bytes."""
    match written:
        case {"bytes": str(digits)} if len(written) == 1:
            return bytes.fromhex(digits)
        case dict():
            return {key: value_of(item) for key, item in written.items()}
        case list():
            return [value_of(item) for item in written]
    return written


def raw(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


# -- ids.json ------------------------------------------------------------------------------------------------------

ids = read("ids.json")
network_id = bytes.fromhex(ids["genesis"]["network_id"])


@named(ids["encoding"]["canonical"])
def test_a_value_has_the_one_encoding_of_the_vector(vector: dict[str, Any]) -> None:
    value = value_of(vector["value"])
    assert codec.encode_checked(value) == raw(vector, "hex")
    decoded = codec.decode(raw(vector, "hex"))
    assert decoded == value
    assert codec.encode(decoded) == raw(vector, "hex")


@named(ids["encoding"]["malformed"])
def test_an_encoding_that_is_not_the_one_is_malformed(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as refusal:
        codec.decode(raw(vector, "hex"))
    assert refusal.value.reason == vector["reason"]


def test_the_vectors_network_is_the_hash_of_its_genesis() -> None:
    genesis = parse_genesis(raw(ids["genesis"], "wire"))
    assert (genesis.body, genesis.network_id) == (raw(ids["genesis"], "body"), network_id)
    assert codec.sha256(genesis.body) == network_id


def test_there_is_an_event_vector_of_every_kind() -> None:
    assert [vector["kind"] for vector in ids["events"]] == list(kinds)


@pytest.mark.parametrize("vector", ids["events"], ids=list(kinds))
def test_an_event_has_the_vectors_body_id_and_signature(vector: dict[str, Any]) -> None:
    said = event.checked(raw(vector, "body"), raw(vector, "signature"), network_id)
    assert said.id == raw(vector, "id") == codec.sha256(raw(vector, "body"))
    body = [
        vector["protocol_version"],
        network_id,
        raw(vector, "author"),
        vector["author_seq"],
        None if vector["prev"] is None else raw(vector, "prev"),
        vector["hlc"],
        None if vector["task"] is None else raw(vector, "task"),
        vector["epoch"],
        vector["kind"],
        value_of(vector["payload"]),
    ]
    assert codec.encode(body) == said.body
    assert said.payload is not None
    assert plain(said.payload) == value_of(vector["payload"])


@named(ids["unsupported"])
def test_an_unsupported_event_has_an_id_and_no_payload(vector: dict[str, Any]) -> None:
    said = event.checked(raw(vector, "body"), raw(vector, "signature"), network_id)
    assert (said.id, said.payload) == (raw(vector, "id"), None)


@named(ids["malformed"])
def test_a_malformed_event_has_its_reason(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as refusal:
        event.checked(raw(vector, "body"), raw(vector, "signature"), network_id)
    assert refusal.value.reason == vector["reason"]


# -- signatures.json -----------------------------------------------------------------------------------------------

signatures = read("signatures.json")


@pytest.mark.parametrize("vector", signatures["keys"])
def test_a_seed_has_its_node_id_and_signs_as_in_the_vector(vector: dict[str, Any]) -> None:
    keys = identity.Keypair(raw(vector, "seed"))
    assert keys.node_id == raw(vector, "node_id")
    assert keys.sign(raw(vector, "message")) == raw(vector, "signature")


@named(signatures["cases"])
def test_a_signature_is_judged_as_in_the_vector(vector: dict[str, Any]) -> None:
    held = identity.verify(raw(vector, "public"), raw(vector, "message"), raw(vector, "signature"))
    assert held == vector["accept"]


# -- candidates.json -----------------------------------------------------------------------------------------------

candidates = read("candidates.json")


@named(candidates["candidates"])
def test_a_candidate_has_its_hash(vector: dict[str, Any]) -> None:
    plain_candidate = value_of(vector["candidate"])
    author = raw(vector, "author")
    assert codec.encode([author, plain_candidate]) == raw(vector, "encoded")
    candidate = msgspec.convert(plain_candidate, Candidate, builtin_types=(bytes,))
    assert candidate_hash(author, candidate) == raw(vector, "candidate_hash") == codec.sha256(raw(vector, "encoded"))


@pytest.mark.parametrize("vector", candidates["votes"])
def test_a_sealed_vote_has_its_hash(vector: dict[str, Any]) -> None:
    ballot = Ballot(
        raw(vector, "task"),
        vector["epoch"],
        vector["attempt"],
        raw(vector, "voter"),
        raw(vector, "candidate_hash"),
        vector["vote"],
        vector["salt"],
        vector["verifier_result_hash"],
    )
    assert ballot.commit_hash() == raw(vector, "commit_hash") == codec.sha256(vector["text"].encode())


# -- proofs.json ---------------------------------------------------------------------------------------------------

proofs = read("proofs.json")


def test_as_many_finalizers_decide_as_in_the_vector() -> None:
    for vector in proofs["thresholds"]:
        assert threshold(vector["finalizers"], "byzantine") == vector["byzantine"]
        assert threshold(vector["finalizers"], "crash") == vector["crash"]


@pytest.mark.parametrize("vector", proofs["statements"])
def test_a_statement_has_its_bytes_and_its_name(vector: dict[str, Any]) -> None:
    statement = finality.statement(
        raw(vector, "network_id"),
        raw(vector, "membership"),
        raw(vector, "task"),
        vector["epoch"],
        raw(vector, "candidate_hash"),
    )
    assert statement == raw(vector, "statement")
    assert finality.final_commit_hash(statement) == raw(vector, "final_commit_hash")


@named(proofs["proofs"])
def test_a_proof_holds_as_in_the_vector(vector: dict[str, Any]) -> None:
    pinned = proofs["membership"]
    finalizers = {bytes.fromhex(node): frozenset({"finalizer"}) for node in pinned["finalizers"]}
    membership = Membership(raw(pinned, "hash"), 0, None, finalizers, {}, pinned["fault_model"])
    pairs = [(bytes.fromhex(signer), bytes.fromhex(signature)) for signer, signature in vector["signatures"]]
    proof = FinalityProof(vector["threshold"], raw(vector, "membership"), [SignerSignature(*pair) for pair in pairs])
    reason = None
    try:
        finality.check_proof(proof, membership, raw(proofs, "proved"))
    except Refused as refusal:
        reason = refusal.reason
    assert (reason is None, reason) == (vector["holds"], vector["reason"])


# -- certificates.json ---------------------------------------------------------------------------------------------

certificates = read("certificates.json")
founded = Network.of(parse_genesis(raw(certificates, "genesis")))


def test_a_membership_version_has_its_hash() -> None:
    for vector in certificates["versions"]:
        assert codec.sha256(raw(vector, "body")) == raw(vector, "hash")
        body = msgspec.convert(codec.decode(raw(vector, "body")), VersionBody, builtin_types=(bytes,))
        assert version_hash(body) == raw(vector, "hash")


def test_a_membership_version_is_signed_by_phase_and_round() -> None:
    for vector in certificates["signing"]:
        message = signed_bytes(
            raw(vector, "network_id"),
            vector["phase"],
            raw(vector, "previous"),
            vector["round"],
            raw(vector, "membership_hash"),
        )
        assert message == raw(vector, "signed")


def test_certificates_hold_wait_or_are_refused_in_their_order() -> None:
    network = founded
    for vector in certificates["certificates"]:
        certificate = parse_certificate(raw(vector, "wire"), network)
        assert (certificate.kind, certificate.id) == (vector["kind"], raw(vector, "id")), vector["name"]
        assert certificate.wire() == raw(vector, "wire"), vector["name"]
        outcome: tuple[str, str | None, str | None] = ("holds", None, None)
        try:
            verify_certificate(certificate, network)
        except NotYetKnown as refusal:
            outcome = ("waits", refusal.reason, refusal.needed.hex())
        except Refused as refusal:
            outcome = ("refused", refusal.reason, None)
        assert outcome == (vector["outcome"], vector["reason"], vector["needs"]), vector["name"]
        if outcome[0] == "holds" and isinstance(certificate, MembershipCertificate):
            network = network.with_version(certificate.update)
    assert [version.number for version in network.ancestry(network.current)] == [2, 1, 0]


@named(certificates["malformed"])
def test_bytes_that_are_no_certificate_have_their_reason(vector: dict[str, Any]) -> None:
    with pytest.raises(Malformed) as refusal:
        parse_certificate(raw(vector, "wire"), founded)
    assert refusal.value.reason == vector["reason"]


@named(certificates["bundles"])
def test_a_bundle_proves_what_the_vector_says_or_is_refused(vector: dict[str, Any]) -> None:
    pinned = None if vector["network_id"] is None else raw(vector, "network_id")
    if vector["report"] is None:
        with pytest.raises(Refused) as refusal:
            verify_bundle(raw(vector, "bundle"), pinned)
        assert refusal.value.reason == vector["reason"]
        return
    report = verify_bundle(raw(vector, "bundle"), pinned)
    found = json.loads(json.dumps(_written(msgspec.to_builtins(report, builtin_types=(bytes,)))))
    assert found == vector["report"]


def _written(value: Any) -> Any:
    match value:
        case bytes():
            return {"bytes": value.hex()}
        case dict():
            return {key: _written(item) for key, item in value.items()}
        case list() | tuple():
            return [_written(item) for item in value]
    return value
