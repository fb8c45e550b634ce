"""Whatever a runtime does, a task ends in the right record within its deadline, and the node works on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from tests.runtime import hostile
from wattswarm.kernel.contract_draft import sample_contract
from wattswarm.kernel.genesis import local_genesis, make_genesis
from wattswarm.kernel.identity import Keypair
from wattswarm.kernel.membership import Network
from wattswarm.kernel.payloads.course import TaskError
from wattswarm.kernel.payloads.judge import VerifierResultSubmitted
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.contract import Capabilities
from wattswarm.runtime.executors import Executor, Executors
from wattswarm.runtime.run_real import run_real

Routes = dict[str, hostile.Behaviour]
keys = Keypair(b"\x21" * 32)
now = 1_790_000_000_000
lease_ms = 2_000
"""How long an executor may take, twice this to execute: a machine that is busy must not look like one that hangs."""
output = {"answer": "default::hello", "confidence": 0.93, "check_summary": "ok"}
png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@asynccontextmanager
async def node() -> AsyncIterator[Log]:
    network = Network.of(local_genesis(keys, now - 1000))
    async with open_log(MemoryStore(), network, keys, MemoryGuard(), lambda: now) as log:
        yield log


def contract(task_id: str = "t-1") -> dict[str, Any]:
    document = sample_contract(task_id, now + 3_600_000, "ed25519:" + keys.node_id.hex())
    document["assignment"]["claim"]["lease_ms"] = lease_ms
    document["budget"].update(time_ms=2 * lease_ms, reuse_verify_time_ms=lease_ms)
    return document


def execute_answer(**changes: Any) -> dict[str, Any]:
    ref = {
        "uri": "http://127.0.0.1/e",
        "digest": "sha256:" + "ab" * 32,
        "size_bytes": 1,
        "mime": "text/plain",
        "created_at": 0,
        "producer": "p",
    }
    return {"candidate_output": output, "evidence_inline": [], "evidence_refs": [ref], **changes}


def verify_answer(**changes: Any) -> dict[str, Any]:
    said = {
        "passed": True,
        "score": 1.0,
        "reason_codes": [100],
        "verifier_result_hash": "r" * 64,
        "provider_family": "f",
        "model_id": "m",
    }
    return {**said, **changes}


def runtime(execute: Any = None, verify: Any = None) -> Routes:
    """A runtime that is good but for what is given: JSON to answer with, or a behaviour."""
    capabilities = {"task_types": ["swarm"], "profiles": ["default"], "provider_family": "f", "model_id": "m"}
    answers = {
        "/capabilities": capabilities,
        "/execute": execute_answer() if execute is None else execute,
        "/verify": verify_answer() if verify is None else verify,
    }
    return {
        path: hostile.says(hostile.answer("200 OK", json.dumps(said).encode())) if isinstance(said, dict) else said
        for path, said in answers.items()
    }


def registered(url: str) -> Executors:
    registry = Executors(Path(tempfile.mkdtemp()))
    registry.put(Executor("rt", url, Capabilities(["swarm"], ["default"], "f", "m")))
    return registry


async def run(log: Log, routes: Routes, task_id: str = "t-1") -> dict[str, Any]:
    async with hostile.routed_server(routes) as url:
        with trio.fail_after(5 * lease_ms / 1000):
            return await run_real(log, registered(url), "rt", "default", contract(task_id))


bad_executions = [
    ("hangs", hostile.hangs, "TIMEOUT", 300),
    ("streams for ever", hostile.streams_for_ever, "OTHER", 303),
    ("trickles", hostile.trickles, "TIMEOUT", 300),
    ("answers HTML", hostile.says(hostile.answer("200 OK", b"<html>", "text/html")), "OTHER", 303),
    ("answers 500", hostile.says(hostile.answer("500 Internal Server Error", b"{}")), "OTHER", 303),
    ("answers 10 MB", hostile.says(hostile.answer("200 OK", b'"' + b"x" * 10_000_000 + b'"')), "OTHER", 303),
    ("a 200 KB candidate", execute_answer(candidate_output={"answer": "x" * 200_000}), "OTHER", 303),
    ("a candidate over 64 KiB", execute_answer(candidate_output={"answer": "x" * 70_000}), "INVALID_OUTPUT", 301),
    ("an output against the schema", execute_answer(candidate_output={"answer": 5}), "INVALID_OUTPUT", 301),
    (
        "an integer beyond 64 bits",
        execute_answer(candidate_output={"answer": "x", "n": 1 << 70}),
        "INVALID_OUTPUT",
        301,
    ),
    (
        "media hidden in base64",
        execute_answer(candidate_output={"answer": f"see {png}"}),
        "INVALID_OUTPUT",
        301,
    ),
    (
        "inline evidence of a foreign type",
        execute_answer(evidence_inline=[{"mime": "image/png", "content": "x"}]),
        "INVALID_OUTPUT",
        301,
    ),
]


@pytest.mark.parametrize(
    ("execute", "reason", "code"), [c[1:] for c in bad_executions], ids=[c[0] for c in bad_executions]
)
async def test_a_bad_execution_is_a_task_error_and_the_node_works_on(execute: Any, reason: str, code: int) -> None:
    async with node() as log:
        found = await run(log, runtime(execute=execute))
        assert found["terminal_state"] == "OPEN"
        assert found["candidate_id"] is None
        record = await log.task(await log.resolve("t-1"))
        errors = [event.payload for event in record.events if isinstance(event.payload, TaskError)]
        assert [(error.reason, error.reason_codes) for error in errors] == [(reason, [code])]
        assert not record.verdicts
        assert (await run(log, runtime(), "t-2"))["terminal_state"] == "FINALIZED"


bad_verifications = [
    ("hangs", hostile.hangs, "inconclusive", [201]),
    ("closes at once", hostile.says(b""), "inconclusive", [200]),
    ("says inconclusive", verify_answer(passed=False, reason_codes=[202]), "inconclusive", [202]),
    ("says failed", verify_answer(passed=False, score=0.0, reason_codes=[101]), "failed", [101]),
]


@pytest.mark.parametrize(
    ("verify", "status", "codes"), [c[1:] for c in bad_verifications], ids=[c[0] for c in bad_verifications]
)
async def test_a_verification_that_does_not_pass_decides_nothing(verify: Any, status: str, codes: list[int]) -> None:
    async with node() as log:
        found = await run(log, runtime(verify=verify))
        assert found["terminal_state"] == "OPEN"
        record = await log.task(await log.resolve("t-1"))
        results = [
            event.payload.result for event in record.events if isinstance(event.payload, VerifierResultSubmitted)
        ]
        assert [(result.verification_status, result.reason_codes) for result in results] == [(status, codes)]
        assert not record.verdicts
        assert (await run(log, runtime(), "t-2"))["terminal_state"] == "FINALIZED"


@pytest.mark.parametrize(
    "verify",
    [
        verify_answer(score=7),
        verify_answer(reason_codes=[]),
        verify_answer(reason_codes=[103]),
        verify_answer(verifier_result_hash=""),
        verify_answer(verification_status="failed"),
        hostile.says(hostile.answer("500 Internal Server Error", b"{}")),
    ],
)
async def test_an_answer_that_is_none_is_a_task_error(verify: Any) -> None:
    async with node() as log:
        found = await run(log, runtime(verify=verify))
        assert found["terminal_state"] == "OPEN"
        assert found["errors"]
        record = await log.task(await log.resolve("t-1"))
        assert isinstance(record.events[-1].payload, TaskError)
        assert not record.verdicts


async def test_a_network_that_needs_others_is_pointed_to_submit() -> None:
    everything = frozenset({"proposer", "verifier", "committer", "finalizer"})
    members = {key.node_id: everything for key in (keys, Keypair(b"\x22" * 32), Keypair(b"\x23" * 32))}
    genesis = make_genesis(name="three", created_at=now, fault_model="byzantine", members=members, signers=[keys])
    async with (
        open_log(MemoryStore(), Network.of(genesis), keys, MemoryGuard(), lambda: now) as log,
        hostile.routed_server(runtime()) as url,
    ):
        with pytest.raises(Refused, match="task submit"):
            await run_real(log, registered(url), "rt", "default", contract())
        assert (await log.head()).events == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"type": "string", "pattern": "(?=a)b"},
        {"allOf": [{"type": "object"}] * 5_000},
    ],
)
async def test_a_hostile_schema_is_refused_before_anything_is_authored(schema: Any) -> None:
    async with node() as log, hostile.routed_server(runtime()) as url:
        document = {**contract(), "output_schema": schema}
        with pytest.raises(Refused, match="output_schema"):
            await run_real(log, registered(url), "rt", "default", document)
        assert (await log.head()).events == 0


async def test_a_pattern_that_explodes_elsewhere_is_matched_in_linear_time() -> None:
    async with (
        node() as log,
        hostile.routed_server(runtime(execute=execute_answer(candidate_output={"a": "a" * 40 + "!"}))) as url,
    ):
        schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
        with trio.fail_after(5):
            found = await run_real(log, registered(url), "rt", "default", {**contract(), "output_schema": schema})
        assert found["terminal_state"] == "OPEN"


async def test_an_executor_without_the_endpoint_is_disabled_at_first_use() -> None:
    gone = hostile.says(hostile.answer("404 Not Found", b"{}"))
    async with node() as log, hostile.routed_server(runtime(execute=gone)) as url:
        registry = registered(url)
        found = await run_real(log, registry, "rt", "default", contract())
        assert found["terminal_state"] == "OPEN"
        before = (await log.head()).events
        with pytest.raises(Refused, match="not used any more"):
            await run_real(log, registry, "rt", "default", contract("t-2"))
        assert (await log.head()).events == before
