"""Whatever a runtime answers, the client ends with a value or a typed failure within its deadline."""

from __future__ import annotations

import pytest
import trio

from tests.runtime import hostile
from tests.runtime.hostile import answer, says
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.client import RuntimeClient, RuntimeFailure, check_url
from wattswarm.runtime.contract import ExecuteRequest

request = ExecuteRequest("t", "e", "swarm", {"prompt": "hi"}, "default", {}, "explore", "a")
deadline_ms = 400

failures = [
    ("hangs", hostile.hangs, "timeout"),
    ("streams for ever", hostile.streams_for_ever, "too_large"),
    ("trickles", hostile.trickles, "timeout"),
    ("closes half-way", hostile.closes_half_way, "unreachable"),
    ("closes at once", says(b""), "unreachable"),
    ("answers HTML", says(answer("200 OK", b"<html>no</html>", "text/html")), "not_json"),
    ("answers 500", says(answer("500 Internal Server Error", b"{}")), "http_status"),
    (
        "answers 302",
        says(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        "http_status",
    ),
    ("answers 10 MB of JSON", says(answer("200 OK", b'"' + b"x" * 10_000_000 + b'"')), "too_large"),
    ("answers cut JSON", says(answer("200 OK", b'{"candidate_output": ')), "not_json"),
    ("answers NaN", says(answer("200 OK", b'{"candidate_output": NaN}')), "not_json"),
    ("nests 50,000 deep", says(answer("200 OK", b'{"candidate_output": ' + b"[" * 50_000)), "not_json"),
    ("answers another shape", says(answer("200 OK", b'{"answer": 1}')), "bad_shape"),
    ("sends huge headers", says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n"), "unreachable"),
    ("speaks no HTTP", says(b"SSH-2.0-OpenSSH_9.2\r\n"), "unreachable"),
]


@pytest.mark.parametrize(("behave", "kind"), [f[1:] for f in failures], ids=[f[0] for f in failures])
async def test_a_bad_runtime_ends_in_a_typed_failure_within_its_deadline(behave: hostile.Behaviour, kind: str) -> None:
    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        began = trio.current_time()
        with pytest.raises(RuntimeFailure) as failure:
            await client.execute(request, deadline_ms)
        assert failure.value.kind == kind
        assert trio.current_time() - began < deadline_ms / 1000 + 2


async def test_the_client_works_on_after_a_failure() -> None:
    good = says(answer("200 OK", b'{"candidate_output": {"answer": "x"}}'))
    turn = iter([hostile.hangs, good])

    async def behave(stream: trio.SocketStream) -> None:
        await next(turn)(stream)

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure):
            await client.execute(request, 100)
        assert (await client.execute(request, 2000)).candidate_output == {"answer": "x"}


async def test_nobody_listening_is_unreachable() -> None:
    async with hostile.server(hostile.hangs) as url:
        pass
    async with RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure) as failure:
            await client.health()
        assert failure.value.kind == "unreachable"


async def test_a_check_names_each_endpoint_that_is_missing() -> None:
    async with hostile.server(says(answer("404 Not Found", b"{}"))) as url, RuntimeClient(url) as client:
        report = await client.check()
    assert not report.good
    assert all(report.faults.values())


async def test_404_marks_the_endpoint_as_missing() -> None:
    async with hostile.server(says(answer("404 Not Found", b"{}"))) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure) as failure:
            await client.execute(request, deadline_ms)
        assert failure.value.missing


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://h",
        "http://",
        "127.0.0.1:8787",
        "http://u:p@h",
        "http://h:0",
        "http://h:99999",
        "http://h/?q=1",
        "http://h /",
    ],
)
def test_a_bad_url_is_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_url(url)
    assert refusal.value.problems[0].expected


def test_a_trailing_slash_does_not_matter() -> None:
    assert check_url("http://127.0.0.1:8787/") == "http://127.0.0.1:8787"
