"""A registered executor, watched while it is used: one that turns out to lack an endpoint is disabled.

404 and 405 are for good, until it is added again; whoever keeps an eye on its health hears of every other failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.client import RuntimeClient
from wattswarm.runtime.contract import ExecuteRequest, ExecuteResponse, VerifyRequest, VerifyResponse
from wattswarm.runtime.executors import Executors
from wattswarm.runtime.failure import RuntimeFailure

T = TypeVar("T")


def _nobody_asks(_failure: RuntimeFailure) -> None:
    """For those who use an executor once."""


class Watched:
    """A registered executor that is disabled when it turns out to lack an endpoint (404, 405)."""

    def __init__(
        self,
        client: RuntimeClient,
        executors: Executors,
        name: str,
        failed: Callable[[RuntimeFailure], None] = _nobody_asks,
    ) -> None:
        self._client = client
        self._executors = executors
        self._name = name
        self._failed = failed

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
                with suppress(Refused):  # it was removed meanwhile
                    self._executors.disable(self._name, failure.message)
            self._failed(failure)
            raise
