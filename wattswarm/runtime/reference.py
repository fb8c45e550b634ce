"""``wattswarm-runtime``: the reference executor, a deterministic echo.

It shows what the runtime contract means and gives trials something to run against. Its evidence is real: the ref it
returns names bytes that it serves itself, so the digest can be checked. It keeps nothing: those bytes are made again
from the request's path.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import click
import msgspec
import trio
from hypercorn.config import Config as ServerConfig
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wattswarm.kernel import limits
from wattswarm.kernel.codec import sha256
from wattswarm.kernel.policy import evaluate, known, policy_hash_matches
from wattswarm.kernel.refusal import Refused
from wattswarm.kernel.schema import compile_schema
from wattswarm.runtime.contract import ExecuteRequest, VerifyRequest

T = TypeVar("T")
evidence_created_at_ms = 0
confidence = 0.93
request_bytes_max = 8 * limits.event_bytes_max
_LABEL = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line said. ``fail_rate``: the share of /execute and /verify calls answered with 500."""

    provider_family: str = "reference"
    model_id: str = "echo-1"
    task_types: tuple[str, ...] = ("swarm", "topic_interpretation")
    profiles: tuple[str, ...] = ("default",)
    fail_rate: float = 0.0
    latency_ms: int = 0


def answer_of(profile: str, inputs: Any) -> str:
    """``{profile}::{prompt}``; inputs without a text ``prompt`` are echoed as compact JSON."""
    prompt = inputs.get("prompt") if isinstance(inputs, dict) else None
    said = prompt if isinstance(prompt, str) else msgspec.json.encode(inputs).decode()
    return f"{profile}::{said}"


def evidence_of(execution_id: str) -> bytes:
    """The bytes behind the evidence ref of an execution."""
    return f"reference runtime: evidence of execution {execution_id}\n".encode()


class _Bad(Exception):
    """A request that the contract does not allow: HTTP ``status``, and the sentence that says why."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Reference:
    """The endpoints, over one ``Settings``."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._calls = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/health", self.health, methods=["GET"]),
                Route("/capabilities", self.capabilities, methods=["GET"]),
                Route("/execute", self.execute, methods=["POST"]),
                Route("/verify", self.verify, methods=["POST"]),
                Route("/evidence/{execution_id}", self.evidence, methods=["GET"]),
            ],
            exception_handlers={_Bad: _refuse},
        )

    async def health(self, _request: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok"})

    async def capabilities(self, _request: Request) -> Response:
        """GET /capabilities."""
        settings = self.settings
        return JSONResponse(
            {
                "task_types": list(settings.task_types),
                "profiles": list(settings.profiles),
                "provider_family": settings.provider_family,
                "model_id": settings.model_id,
            }
        )

    async def execute(self, request: Request) -> Response:
        """POST /execute: the echo, with one inline trace and one evidence ref."""
        asked = await _read(request, ExecuteRequest)
        settings = self.settings
        if asked.task_type not in settings.task_types or asked.profile not in settings.profiles:
            raise _Bad(f"task type {asked.task_type!r} with profile {asked.profile!r} was not advertised")
        await self._take_time()
        content = evidence_of(asked.execution_id)
        answer = answer_of(asked.profile, asked.inputs)
        return _json(
            {
                "candidate_output": {
                    "answer": answer,
                    "confidence": confidence,
                    "check_summary": f"echoed {len(answer)} characters",
                },
                "evidence_inline": [
                    {"mime": "application/json", "content": msgspec.json.encode({"stage": asked.stage}).decode()}
                ],
                "evidence_refs": [
                    {
                        "uri": f"{request.base_url}evidence/{quote(asked.execution_id, safe=':')}",
                        "digest": f"sha256:{sha256(content).hex()}",
                        "size_bytes": len(content),
                        "mime": "text/plain",
                        "created_at": evidence_created_at_ms,
                        "producer": settings.model_id,
                    }
                ],
            }
        )

    async def verify(self, request: Request) -> Response:
        """POST /verify: the built-in policy's evaluation; 400 to a binding that is not one of them."""
        asked = await _read(request, VerifyRequest)
        candidate, binding = asked.candidate, asked.policy
        try:
            schema = compile_schema(asked.output_schema)
        except Refused as refusal:
            raise _Bad(str(refusal)) from None
        if known(binding.policy_id, binding.policy_version) is None or not policy_hash_matches(binding):
            raise _Bad(f"policy {binding.policy_id} version {binding.policy_version} with that hash is not known here")
        await self._take_time()
        verdict = evaluate(binding, schema, candidate.output)
        said = {
            "passed": verdict.passed,
            "score": verdict.score,
            "reason_codes": list(verdict.reason_codes),
            "provider_family": self.settings.provider_family,
            "model_id": self.settings.model_id,
        }
        basis = msgspec.json.encode(
            [candidate.candidate_id, candidate.execution_id, binding.policy_hash, said], order="sorted"
        )
        return _json({**said, "verifier_result_hash": sha256(basis).hex()})

    async def evidence(self, request: Request) -> Response:
        """GET /evidence/{execution_id}: the bytes of an evidence ref."""
        execution_id = request.path_params["execution_id"]
        if _LABEL.fullmatch(execution_id) is None:
            raise _Bad("no execution has that id", 404)
        return Response(evidence_of(execution_id), media_type="text/plain")

    async def _take_time(self) -> None:
        """Take the configured time, then fail if it is this call's turn: every 1/rate-th is, in even steps."""
        if self.settings.latency_ms:
            await trio.sleep(self.settings.latency_ms / 1000)
        self._calls += 1
        rate = self.settings.fail_rate
        if int(self._calls * rate) > int((self._calls - 1) * rate):
            raise _Bad("failing on request (--fail-rate)", 500)


async def _read(request: Request, shape: type[T]) -> T:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > request_bytes_max:
            raise _Bad(f"the request is over {request_bytes_max} bytes", 413)
    try:
        return msgspec.json.decode(content, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Bad(f"the request is not as the contract says: {error}") from None


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, _Bad)
    return _json({"error": str(error)}, error.status)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def run(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT. The ready line goes to stdout, with the real port."""
    config = ServerConfig()
    config.bind = [f"{_bracketed(host)}:{port}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"  # what goes wrong goes to stderr, and nothing else
    config.graceful_timeout = 1.0
    reference = Reference(settings)
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    stop.set()
                    return

            nursery.start_soon(watch)
            binds: Sequence[str] = await nursery.start(_serve, reference, config, stop)
            print(f"wattswarm-runtime ready on {binds[0].rstrip('/')}", flush=True)  # noqa: T201 - the ready line
            await stop.wait()
            nursery.cancel_scope.deadline = trio.current_time() + 2


async def _serve(reference: Reference, config: ServerConfig, stop: trio.Event, task_status: Any) -> None:
    await serve(reference.app(), config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")  # type: ignore[arg-type]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _first(error: BaseException) -> BaseException:
    """The first error that nurseries wrapped."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def parse_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``. Raises ``click.BadParameter``."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"found {text!r}, expected host:port, like 127.0.0.1:8787 (port 0: any free one)")
    return host, int(port)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise click.BadParameter("expected one or more names, separated by commas")
    return names


@click.command(
    epilog="Example: wattswarm-runtime --listen 127.0.0.1:8787 --task-types swarm --profiles default,careful"
)
@click.option("--listen", default="127.0.0.1:8787", show_default=True, help="host:port; port 0 takes a free one")
@click.option("--provider-family", "--provider_family", default="reference", show_default=True)
@click.option("--model-id", "--model_id", default="echo-1", show_default=True)
@click.option("--task-types", "--task_types", default="swarm,topic_interpretation", show_default=True)
@click.option("--profiles", default="default", show_default=True)
@click.option("--fail-rate", "--fail_rate", type=click.FloatRange(0, 1), default=0.0, help="share of calls that fail")
@click.option("--latency-ms", "--latency_ms", type=click.IntRange(0, 600_000), default=0, help="time each call takes")
def main(
    listen: str, provider_family: str, model_id: str, task_types: str, profiles: str, fail_rate: float, latency_ms: int
) -> None:
    """Serve the reference executor: a deterministic echo that follows the runtime contract."""
    host, port = parse_address(listen)
    settings = Settings(provider_family, model_id, _names(task_types), _names(profiles), fail_rate, latency_ms)
    fault: BaseException | None = None
    try:
        trio.run(run, settings, host, port)
    except* OSError as errors:
        fault = _first(errors)
    if fault is not None:
        print(f"cannot listen on {listen}: {fault}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    main()
