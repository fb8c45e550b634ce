"""The client of an executor: one deadline a call, every size bounded, and no trust in what comes back.

A body is read in pieces and given up at ``body_bytes_max``; a server that trickles, hangs or streams for ever ends
at the deadline. Redirects are not followed and proxies of the environment are not used. Every way to fail is a
``RuntimeFailure`` whose ``kind`` says which. What an answer means for a task is the caller's business.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
import trio

from wattswarm.kernel import limits
from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.runtime.connection import Connections, Endpoint, connections_max
from wattswarm.runtime.contract import (
    Capabilities,
    ExecuteRequest,
    ExecuteResponse,
    Health,
    VerifyRequest,
    VerifyResponse,
    to_json,
)
from wattswarm.runtime.failure import FailureKind, RuntimeFailure

__all__ = [
    "CheckReport",
    "FailureKind",
    "RuntimeClient",
    "RuntimeFailure",
    "body_bytes_max",
    "check_deadline_ms",
    "check_url",
    "connections_max",
    "deadline",
]

T = TypeVar("T")
body_bytes_max = limits.event_bytes_max
check_deadline_ms = 5_000
_URL_CHARS_MAX: Final = 1_024
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_PORTS: Final = {"http": 80, "https": 443}


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
    _endpoint_of(url)
    return url.rstrip("/")


def _endpoint_of(url: str) -> Endpoint:
    def refuse(expected: str) -> Refused:
        return Refused("executor_url", "the executor's URL cannot be used", (Problem("url", repr(url[:80]), expected),))

    if not url.isascii() or any(c <= " " or c == "\x7f" for c in url) or len(url) > _URL_CHARS_MAX:
        raise refuse(f"plain ASCII without blanks, at most {_URL_CHARS_MAX} characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise refuse("a URL like http://127.0.0.1:8787") from None
    if parts.scheme not in _PORTS or not _is_host(parts) or port == 0:
        raise refuse("http:// or https://, a host, and a port if it is not the usual one")
    if "@" in parts.netloc:
        raise refuse("no user name or password in the URL")
    if "?" in url or "#" in url:
        raise refuse("no query and no fragment")
    assert parts.hostname is not None
    port = port or _PORTS[parts.scheme]
    return Endpoint(parts.hostname, port, parts.netloc, parts.path.rstrip("/"), parts.scheme == "https")


def _is_host(parts: SplitResult) -> bool:
    """Whether the URL names an IPv6 address in brackets, an IPv4 address, or a name that a resolver would take."""
    host = parts.hostname or ""
    if "[" not in parts.netloc:
        return _HOST.fullmatch(host) is not None
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


class RuntimeClient:
    """A client of one executor. A lifetime: use it with ``async with``. Raises ``Refused`` for a bad URL."""

    def __init__(self, base_url: str) -> None:
        self.base_url = check_url(base_url)
        self._connections = Connections(_endpoint_of(base_url))

    async def __aenter__(self) -> RuntimeClient:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._connections.close()

    async def health(self) -> Health:
        """GET /health; the status must be ``ok``."""
        health = await self._call("GET", "/health", b"", Health, check_deadline_ms)
        if health.status != "ok":
            raise RuntimeFailure("bad_shape", f"GET /health: status is {health.status!r}, expected 'ok'")
        return health

    async def capabilities(self) -> Capabilities:
        """GET /capabilities."""
        return await self._call("GET", "/capabilities", b"", Capabilities, check_deadline_ms)

    async def execute(self, request: ExecuteRequest, deadline_ms: int) -> ExecuteResponse:
        """POST /execute, answered within ``deadline_ms`` or failed."""
        return await self._call("POST", "/execute", to_json(request), ExecuteResponse, deadline_ms)

    async def verify(self, request: VerifyRequest, deadline_ms: int) -> VerifyResponse:
        """POST /verify, answered within ``deadline_ms`` or failed."""
        return await self._call("POST", "/verify", to_json(request), VerifyResponse, deadline_ms)

    async def check(self) -> CheckReport:
        """The four checks that an executor must pass to be registered and used, side by side."""
        faults = dict.fromkeys(("/health", "/capabilities", "/execute", "/verify"), "")
        found: list[Capabilities] = []

        async def health() -> None:
            await self.health()

        async def capabilities() -> None:
            found.append(await self.capabilities())

        async def served(path: str) -> None:
            status, _ = await self._answer("OPTIONS", path, b"", check_deadline_ms)
            if status == 404:
                raise RuntimeFailure("http_status", f"OPTIONS {path}: 404, the executor does not serve it", status)

        async def note(path: str) -> None:
            try:
                await checks[path]()
            except RuntimeFailure as failure:
                faults[path] = failure.message

        checks: dict[str, Callable[[], Awaitable[None]]] = {
            "/health": health,
            "/capabilities": capabilities,
            "/execute": lambda: served("/execute"),
            "/verify": lambda: served("/verify"),
        }
        async with trio.open_nursery() as nursery:
            for path in faults:
                nursery.start_soon(note, path)
        return CheckReport(faults, found[0] if found else None)

    async def _answer(self, method: str, path: str, body: bytes, deadline_ms: int) -> tuple[int, bytes]:
        with deadline(deadline_ms, f"{method} {path}"):
            return await self._connections.call(method, path, body, body_bytes_max)

    async def _call(self, method: str, path: str, body: bytes, shape: type[T], deadline_ms: int) -> T:
        what = f"{method} {path}"
        status, content = await self._answer(method, path, body, deadline_ms)
        if status != 200:
            raise RuntimeFailure("http_status", f"{what}: HTTP status {status}, expected 200", status)
        try:
            return msgspec.json.decode(content, type=shape)
        except msgspec.ValidationError as error:
            raise RuntimeFailure("bad_shape", f"{what}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RuntimeFailure("not_json", f"{what}: the answer is not JSON: {error}") from None


@contextmanager
def deadline(deadline_ms: int, what: str) -> Iterator[None]:
    """End the body after ``deadline_ms`` with a ``RuntimeFailure`` of kind timeout."""
    with trio.CancelScope(deadline=trio.current_time() + deadline_ms / 1000) as scope:
        yield
    if scope.cancelled_caught:
        raise RuntimeFailure("timeout", f"{what}: no complete answer within {deadline_ms} ms")
