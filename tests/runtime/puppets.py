"""Executors that answer as told and logs in memory, for tests of who drives tasks. Time is the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from sel.log import Log, open_log
from sel.memory import MemoryGuard, MemoryStore
from tests.cast import artifact, digest_of, genesis_ms, keys_of
from tests.world import World
from wattswarm.kernel.event import Draft
from wattswarm.kernel.payloads import work
from wattswarm.kernel.task.fold import TaskState, status
from wattswarm.runtime.contract import ExecuteRequest, ExecuteResponse, GivenRef, VerifyRequest, VerifyResponse
from wattswarm.runtime.failure import RuntimeFailure
from wattswarm.runtime.part import Hands

wide = {"assignment.claim.max_concurrency": {"propose": 1, "verify": 4}}


def clock() -> int:
    """The hosts' clock: it moves with the test's."""
    return genesis_ms + 1_000 + int(trio.current_time() * 1000)


class Puppet:
    """An executor that answers as told, after ``takes_s``, and keeps what it was asked."""

    def __init__(self, takes_s: float = 0, *, refs: int = 1, output: Any = None, fails: int = 0) -> None:
        self.takes_s, self.refs, self.fails = takes_s, refs, fails
        self.output = output or {"answer": "hello", "confidence": 0.9, "check_summary": "ok"}
        self.final_output = self.output
        self.executed: list[ExecuteRequest] = []
        self.verified: list[VerifyRequest] = []

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        self.executed.append(request)
        await self._work("/execute", deadline_ms)
        output = self.final_output if request.stage == "finalize" else self.output
        refs = [artifact(digest_of(f"{request.execution_id} {number}")) for number in range(self.refs)]
        given = [GivenRef(r.uri, r.digest, r.size_bytes, r.mime, r.created_at, r.producer) for r in refs]
        return ExecuteResponse(output, [], given)

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        self.verified.append(request)
        await self._work("/verify", deadline_ms)
        return VerifyResponse(True, 1.0, [100], digest_of(request.candidate.candidate_id), "puppet", "puppet-1")

    async def _work(self, path: str, deadline_ms: int) -> None:
        if self.takes_s * 1000 > deadline_ms:
            await trio.sleep(deadline_ms / 1000)
            raise RuntimeFailure("timeout", f"POST {path}: no complete answer within {deadline_ms} ms")
        await trio.sleep(self.takes_s)
        if self.fails:
            self.fails -= 1
            raise RuntimeFailure("http_status", f"POST {path}: HTTP status 500, expected 200", 500)


def hands(executor: Puppet, *stages: str) -> Hands:
    return Hands(executor, "default", ("puppet", "puppet-1"), frozenset(stages))


@asynccontextmanager
async def log_of(
    world: World, name: str = "ada", at: Callable[[], int] = clock, store: MemoryStore | None = None
) -> AsyncIterator[Log]:
    async with open_log(store or MemoryStore(), world.network, keys_of(name), MemoryGuard(), at) as log:
        yield log


async def create(log: Log, world: World, changes: Mapping[str, Any] | None = None, label: str = "t-1") -> bytes:
    contract = world.contract(label, changes)
    return (await log.author(Draft(work.TaskCreated(contract, log.network.current.hash), None, 1)))[0].id


async def kinds(log: Log, task: bytes) -> list[str]:
    return [event.kind for event in (await log.task(task)).events]


async def said(log: Log, task: bytes, kind: type[Any]) -> list[Any]:
    return [event.payload for event in (await log.task(task)).events if isinstance(event.payload, kind)]


async def status_of(log: Log, task: bytes) -> str:
    state = (await log.task(task)).folded.state
    assert isinstance(state, TaskState)
    return status(state)
