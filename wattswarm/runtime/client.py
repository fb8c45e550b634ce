"""The HTTP client for executors: bounded, with one deadline a call, and no trust in what comes back.

A body is read in pieces and given up at ``body_bytes_max``; a server that trickles, hangs or streams for ever ends
at the deadline. Redirects are not followed and proxies of the environment are not used. Every way to fail is a
``RuntimeFailure`` whose ``kind`` says which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TypeVar
from urllib.parse import urlsplit

import httpcore
import msgspec
import trio

from wattswarm.kernel import limits
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.runtime.contract import (
    Capabilities,
    ExecuteRequest,
    ExecuteResponse,
    Health,
    VerifyRequest,
    VerifyResponse,
    to_json,
)

T = TypeVar("T")
FailureKind = Literal["timeout", "unreachable", "http_status", "too_large", "not_json", "bad_shape"]
body_bytes_max = limits.event_bytes_max
connections_max = 32
check_deadline_ms = 5_000


class RuntimeFailure(Exception):
    """An executor did not answer as the contract says. ``status``: the HTTP status, for ``http_status``."""

    def __init__(self, kind: FailureKind, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.status = status

    @property
    def missing(self) -> bool:
        """Whether the executor lacks the endpoint: such an executor is not used again."""
        return self.status in (404, 405)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The four checks of an executor: endpoint -> what is wrong, empty if nothing; and what it can do."""

    faults: dict[str, str]
    capabilities: Capabilities | None

    @property
    def good(self) -> bool:
        """Whether the executor may be used."""
        return not any(self.faults.values())


def check_url(url: str) -> str:
    """A base URL in the form it is kept in. Raises ``Refused`` that says what was expected."""

    def refuse(expected: str) -> Refused:
        return Refused("executor_url", "the executor's URL cannot be used", (Problem("url", repr(url), expected),))

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("a URL like http://127.0.0.1:8787") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refuse("http:// or https://, a host, and a port if it is not the usual one")
    if parts.username or parts.password:
        raise refuse("no user name or password in the URL")
    if parts.query or parts.fragment:
        raise refuse("no query and no fragment")
    if not url.isascii() or any(c <= " " for c in url):
        raise refuse("plain ASCII without blanks")
    return url.rstrip("/")


class RuntimeClient:
    """A client of one executor. A lifetime: use it with ``async with``."""

    def __init__(self, base_url: str) -> None:
        self.base_url = check_url(base_url)
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=connections_max, max_keepalive_connections=connections_max, keepalive_expiry=30.0
        )

    async def __aenter__(self) -> RuntimeClient:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await self._pool.aclose()

    async def health(self) -> Health:
        """GET /health; the status must be ``ok``."""
        health = await self._call("GET", "/health", None, Health, check_deadline_ms)
        if health.status != "ok":
            raise RuntimeFailure("bad_shape", f"GET /health: status is {health.status!r}, expected 'ok'")
        return health

    async def capabilities(self) -> Capabilities:
        """GET /capabilities."""
        return await self._call("GET", "/capabilities", None, Capabilities, check_deadline_ms)

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        """POST /execute, answered within ``deadline_ms`` or failed."""
        return await self._call("POST", "/execute", to_json(request), ExecuteResponse, deadline_ms)

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        """POST /verify, answered within ``deadline_ms`` or failed."""
        return await self._call("POST", "/verify", to_json(request), VerifyResponse, deadline_ms)

    async def check(self) -> CheckReport:
        """The four checks that an executor must pass to be registered and used."""
        faults = dict.fromkeys(("/health", "/capabilities", "/execute", "/verify"), "")
        capabilities = None
        try:
            await self.health()
        except RuntimeFailure as failure:
            faults["/health"] = failure.message
        try:
            capabilities = await self.capabilities()
        except RuntimeFailure as failure:
            faults["/capabilities"] = failure.message
        for path in ("/execute", "/verify"):
            faults[path] = await self._missing(path)
        return CheckReport(faults, capabilities)

    async def _missing(self, path: str) -> str:
        """Why an endpoint counts as missing: only 404 or silence do."""
        try:
            with deadline(check_deadline_ms, f"OPTIONS {path}"):
                async with self._exchange("OPTIONS", path, None) as response:
                    return f"OPTIONS {path}: 404, the executor does not serve it" if response.status == 404 else ""
        except RuntimeFailure as failure:
            return failure.message

    async def _call(self, method: str, path: str, body: bytes | None, shape: type[T], deadline_ms: int) -> T:
        what = f"{method} {path}"
        with deadline(deadline_ms, what):
            async with self._exchange(method, path, body) as response:
                if response.status != 200:
                    raise RuntimeFailure(
                        "http_status", f"{what}: HTTP status {response.status}, expected 200", response.status
                    )
                content = await _read(response, what)
        try:
            return msgspec.json.decode(content, type=shape)
        except msgspec.ValidationError as error:
            raise RuntimeFailure("bad_shape", f"{what}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RuntimeFailure("not_json", f"{what}: the answer is not JSON: {error}") from None

    @asynccontextmanager
    async def _exchange(self, method: str, path: str, body: bytes | None) -> AsyncIterator[httpcore.Response]:
        headers = [(b"Accept", b"application/json")]
        if body is not None:
            headers.append((b"Content-Type", b"application/json"))
        try:
            async with self._pool.stream(method, self.base_url + path, headers=headers, content=body) as response:
                yield response
        except httpcore.TimeoutException:
            raise RuntimeFailure("timeout", f"{method} {path}: no answer in time") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            said = str(error) or type(error).__name__
            raise RuntimeFailure("unreachable", f"{method} {path} at {self.base_url}: {said}") from None


async def _read(response: httpcore.Response, what: str) -> bytes:
    content = bytearray()
    async for piece in response.aiter_stream():
        content += piece
        if len(content) > body_bytes_max:
            raise RuntimeFailure("too_large", f"{what}: the answer is over {body_bytes_max} bytes")
    return bytes(content)


@contextmanager
def deadline(deadline_ms: int, what: str) -> Iterator[None]:
    """End the body after ``deadline_ms`` with a ``RuntimeFailure`` of kind timeout."""
    with trio.CancelScope(deadline=trio.current_time() + deadline_ms / 1000) as scope:
        yield
    if scope.cancelled_caught:
        raise RuntimeFailure("timeout", f"{what}: no complete answer within {deadline_ms} ms")
