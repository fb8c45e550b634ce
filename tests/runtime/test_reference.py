"""The reference runtime as a process: what it advertises it does, and it stops when told."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
import trio

from wattswarm.kernel.codec import sha256
from wattswarm.kernel.contract_draft import contract_from_json, sample_contract
from wattswarm.kernel.payloads.work import Candidate
from wattswarm.kernel.policy import Policy, PolicyBinding, evaluate, policies
from wattswarm.kernel.schema import compile_schema
from wattswarm.runtime.client import RuntimeClient, RuntimeFailure
from wattswarm.runtime.contract import CandidateToVerify, ExecuteRequest, VerifyRequest
from wattswarm.runtime.reference import answer_of, request_bytes_max

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


@pytest.fixture(scope="module")
def runtime_url() -> Iterator[str]:
    with runtime() as (_, url):
        yield url


def asking(profile: str = "default") -> ExecuteRequest:
    return ExecuteRequest("task-1", "exec-1", "swarm", {"prompt": "hello"}, profile, contract, "explore", "a-1")


async def fetched(url: str) -> bytes:
    """The body of a GET, read by nothing of ours."""

    def read() -> bytes:
        with urllib.request.urlopen(url, timeout=5) as response:
            content: bytes = response.read()
            return content

    return await trio.to_thread.run_sync(read)


async def test_it_echoes_and_serves_the_evidence_that_it_names() -> None:
    with runtime() as (_, url):
        async with RuntimeClient(url) as client:
            assert (await client.check()).good
            said = await client.execute(asking(), deadline_ms)
            assert said == await client.execute(asking(), deadline_ms)
        assert said.candidate_output["answer"] == "default::hello"
        assert said.candidate_output["confidence"] == 0.93
        assert said.candidate_output["check_summary"]
        assert len(said.evidence_inline) == 1
        ref = said.evidence_refs[0]
        content = await fetched(ref.uri)
        assert ref.digest == f"sha256:{sha256(content).hex()}"
        assert ref.size_bytes == len(content)


@pytest.mark.parametrize("policy", policies, ids=lambda policy: policy.policy_id)
async def test_it_judges_by_each_built_in_policy_and_refuses_other_bindings(policy: Policy) -> None:
    binding = PolicyBinding(policy.policy_id, policy.policy_version, policy.policy_hash, {})
    with runtime() as (_, url):
        async with RuntimeClient(url) as client:
            good = (await client.execute(asking(), deadline_ms)).candidate("c", "exec-1")
            for candidate in (good, Candidate("c", "exec-1", {"answer": 5}, [], [])):
                shown = CandidateToVerify(candidate.candidate_id, candidate.execution_id, candidate.output)
                asked = VerifyRequest(shown, contract["output_schema"], binding)
                verdict = await client.verify(asked, deadline_ms)
                assert verdict == await client.verify(asked, deadline_ms)
                own = evaluate(binding, compile_schema(contract["output_schema"]), candidate.output)
                assert (verdict.passed, verdict.score, tuple(verdict.reason_codes)) == (
                    own.passed,
                    own.score,
                    own.reason_codes,
                )
                assert verdict.passed is (candidate is good)
                assert len(bytes.fromhex(verdict.verifier_result_hash)) == 32
            for field in ("policy_id", "policy_version", "policy_hash"):
                unknown = msgspec.structs.replace(binding, **{field: "00"})
                with pytest.raises(RuntimeFailure) as failure:
                    await client.verify(msgspec.structs.replace(asked, policy=unknown), deadline_ms)
                assert failure.value.status == 400


async def test_what_it_did_not_advertise_is_refused() -> None:
    with runtime("--profiles", "careful") as (_, url):
        async with RuntimeClient(url) as client:
            assert (await client.execute(asking("careful"), deadline_ms)).candidate_output["answer"] == "careful::hello"
            for asked in (asking(), msgspec.structs.replace(asking("careful"), task_type="other")):
                with pytest.raises(RuntimeFailure) as failure:
                    await client.execute(asked, deadline_ms)
                assert failure.value.status == 400


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_cleanly_with_a_call_in_flight(sign: signal.Signals) -> None:
    with runtime("--latency-ms", "60000") as (process, url):
        async with RuntimeClient(url) as client, trio.open_nursery() as nursery:
            await client.health()

            async def fails() -> None:
                with pytest.raises(RuntimeFailure):
                    await client.execute(asking(), 20_000)

            nursery.start_soon(fails)
            await client.capabilities()
            process.send_signal(sign)
            assert await trio.to_thread.run_sync(lambda: process.wait(timeout=10)) == 0


async def test_fail_rate_fails_that_share_of_the_calls() -> None:
    outcomes: list[int | None] = []
    with runtime("--fail-rate", "0.25") as (_, url):
        async with RuntimeClient(url) as client:
            for _ in range(8):
                try:
                    await client.execute(asking(), deadline_ms)
                    outcomes.append(None)
                except RuntimeFailure as failure:
                    outcomes.append(failure.status)
    assert outcomes == [None, None, None, 500] * 2


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/execute", b"\xff", 400),
        ("/execute", b'{"x": ' + b"[" * 100_000, 400),
        ("/execute", b"{}", 400),
        ("/execute", b" " * (request_bytes_max + 1), 413),
        ("/verify", b'{"candidate": 1}', 400),
        ("/evidence/a%0ab", None, 404),
        ("/evidence/" + "x" * 129, None, 404),
    ],
)
def test_bad_requests_are_told_so(runtime_url: str, path: str, body: bytes | None, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(runtime_url + path, body, timeout=5)
    assert error.value.status == status
    assert b"error" in error.value.read()
    error.value.close()


def test_a_taken_port_is_one_clear_line(runtime_url: str) -> None:
    taken = runtime_url.removeprefix("http://")
    command = [sys.executable, "-m", "wattswarm.runtime.reference", "--listen", taken]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


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
