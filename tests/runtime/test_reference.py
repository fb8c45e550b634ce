"""The reference runtime as a process: what it advertises it does, and it stops when told."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpcore
import pytest

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.runtime.client import RuntimeClient, RuntimeFailure
from wattswarm.runtime.contract import ExecuteRequest, VerifyRequest
from wattswarm.runtime.reference import answer_of

contract = contract_from_json(sample_contract("task-1", 1_900_000_000_000, "ed25519:" + "ab" * 32))
deadline_ms = 5_000


@contextmanager
def runtime(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "wattswarm.runtime.reference", "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("wattswarm-runtime ready on http://127.0.0.1:")
        yield process, ready.split()[-1]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def asking(profile: str = "default") -> ExecuteRequest:
    return ExecuteRequest("task-1", "exec-1", "swarm", {"prompt": "hello"}, profile, contract, "explore", "a-1")


async def test_it_echoes_verifies_and_serves_its_evidence() -> None:
    with runtime() as (process, url):
        async with RuntimeClient(url) as client:
            assert (await client.check()).good
            said = await client.execute(asking(), deadline_ms)
            assert said == await client.execute(asking(), deadline_ms)
            assert said.candidate_output["answer"] == "default::hello"
            ref = said.evidence_refs[0]
            async with httpcore.AsyncConnectionPool() as pool:
                content = (await pool.request("GET", ref.uri)).content
            assert ref.digest == f"sha256:{sha256(content).hex()}"
            assert ref.size_bytes == len(content)
            policy = contract["acceptance"]["verifier_policy"]
            candidate = {"output": said.candidate_output}
            verdict = await client.verify(VerifyRequest(candidate, contract["output_schema"], policy), deadline_ms)
            assert (verdict.passed, verdict.score, verdict.reason_codes) == (True, 1.0, [100])
            bad = {"output": {"answer": 5}}
            verdict = await client.verify(VerifyRequest(bad, contract["output_schema"], policy), deadline_ms)
            assert (verdict.passed, verdict.reason_codes) == (False, [101])
            unknown = {**policy, "policy_hash": "00" * 32}
            with pytest.raises(RuntimeFailure) as failure:
                await client.verify(VerifyRequest(candidate, contract["output_schema"], unknown), deadline_ms)
            assert failure.value.status == 400
            with pytest.raises(RuntimeFailure) as failure:
                await client.execute(asking("never-advertised"), deadline_ms)
            assert failure.value.status == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


async def test_fail_rate_fails_that_share_of_the_calls() -> None:
    with runtime("--fail-rate", "0.5") as (_, url):
        async with RuntimeClient(url) as client:
            outcomes: list[int | None] = []
            for _ in range(8):
                try:
                    await client.execute(asking(), deadline_ms)
                    outcomes.append(200)
                except RuntimeFailure as failure:
                    outcomes.append(failure.status)
    assert outcomes.count(500) == 4
    assert outcomes.count(200) == 4


@pytest.mark.parametrize("flags", [["--listen", "nowhere"], ["--fail-rate", "2"], ["--profiles", " , "]])
def test_bad_flags_are_usage_errors(flags: list[str]) -> None:
    command = [sys.executable, "-m", "wattswarm.runtime.reference", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert "expected" in done.stderr or "range" in done.stderr
    assert "Traceback" not in done.stderr


def test_inputs_without_a_prompt_are_echoed_whole() -> None:
    assert answer_of("p", {"a": 1}) == 'p::{"a":1}'
    assert answer_of("p", [1, 2]) == "p::[1,2]"
