"""Whatever a runtime answers, the client ends with a value or a typed failure within its deadline."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from tests.runtime import hostile
from tests.runtime.hostile import answer, says
from wattswarm.kernel.refusal import Refused
from wattswarm.runtime.client import RuntimeClient, RuntimeFailure, check_url, connections_max
from wattswarm.runtime.contract import ExecuteRequest

request = ExecuteRequest("t", "e", "swarm", {"prompt": "hi"}, "default", {}, "explore", "a")
deadline_ms = 2_000
ok_kept_open = b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"status": "ok"}'

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
        assert trio.current_time() - began < deadline_ms / 1000 + 5


async def test_the_client_works_on_after_a_failure() -> None:
    good = says(answer("200 OK", b'{"candidate_output": {"answer": "x"}}'))
    turn = iter([hostile.hangs, good])

    async def behave(stream: trio.abc.Stream) -> None:
        await next(turn)(stream)

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure):
            await client.execute(request, 100)
        assert (await client.execute(request, 2000)).candidate_output == {"answer": "x"}


async def test_calls_given_up_one_after_the_other_lose_no_connection() -> None:
    """Callers that hold a connection give up, and a few scheduler ticks later those to whom it is just being handed.

    Each round needs all the connections at once, so a single one that was lost is a round that never begins.
    """
    held = trio.Semaphore(0)

    async def behave(_: trio.abc.Stream) -> None:
        held.release()
        await trio.sleep_forever()

    async def call(scope: trio.CancelScope) -> None:
        with scope:
            await client.execute(request, 60_000)

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        for ticks in range(16):
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    holding = [trio.CancelScope() for _ in range(connections_max)]
                    waiting = [trio.CancelScope() for _ in range(connections_max)]
                    for scope in holding:
                        nursery.start_soon(call, scope)
                    for _ in holding:
                        await held.acquire()
                    for scope in waiting:
                        nursery.start_soon(call, scope)
                    await trio.testing.wait_all_tasks_blocked()
                    for scope in holding:
                        scope.cancel()
                    for _ in range(ticks):
                        await trio.lowlevel.checkpoint()
                    for scope in waiting:
                        scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            held = trio.Semaphore(0)  # a waiter may have come as far as the server


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
        "http://a..b",
        "http://.",
        "http://" + "a" * 64,
        "http://" + "a." * 200,
        "http://@h",
        "http://h/?",
        "http://[::1",
        "http://[v1.x]",
        "http://h/\x7f",
    ],
)
def test_a_bad_url_is_refused_with_what_was_expected(url: str) -> None:
    with pytest.raises(Refused) as refusal:
        check_url(url)
    assert refusal.value.problems[0].expected


def test_a_trailing_slash_does_not_matter() -> None:
    assert check_url("http://127.0.0.1:8787/") == "http://127.0.0.1:8787"


async def test_a_connection_is_used_again() -> None:
    opened = 0

    async def behave(stream: trio.abc.Stream) -> None:
        nonlocal opened
        opened += 1
        await stream.send_all(ok_kept_open)
        while await stream.receive_some(65536):
            await stream.send_all(ok_kept_open)

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        for _ in range(5):
            await client.health()
        assert opened == 1


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async with hostile.server(says(ok_kept_open)) as url, RuntimeClient(url) as client:
        for _ in range(5):
            await client.health()
            await trio.testing.wait_all_tasks_blocked()


async def test_a_connection_that_was_idle_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattswarm.runtime.connection.idle_ms_max", 0)
    opened = 0

    async def behave(stream: trio.abc.Stream) -> None:
        nonlocal opened
        opened += 1
        await stream.send_all(ok_kept_open)
        await trio.sleep_forever()

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        for _ in range(3):
            await client.health()
    assert opened == 3


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    """The second answer came in one piece with the first, and the connection stays open."""

    async def behave(stream: trio.abc.Stream) -> None:
        await stream.send_all(ok_kept_open + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        for _ in range(3):
            assert (await client.health()).status == "ok"


async def test_an_answer_given_before_the_request_was_read_is_still_read() -> None:
    too_much = msgspec.structs.replace(request, inputs={"prompt": "x" * 30_000_000})
    async with hostile.server(says(answer("413 Too Large", b"{}"))) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure) as failure:
            await client.execute(too_much, 5000)
    assert failure.value.status == 413


async def test_no_more_connections_than_allowed_are_open_at_once() -> None:
    opened = trio.Semaphore(0)

    async def behave(_: trio.abc.Stream) -> None:
        opened.release()
        await trio.sleep_forever()

    async with hostile.server(behave) as url, RuntimeClient(url) as client, trio.open_nursery() as nursery:
        for _ in range(2 * connections_max):
            nursery.start_soon(client.execute, request, 60_000)
        for _ in range(connections_max):
            await opened.acquire()
        await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        assert opened.value == 0
        nursery.cancel_scope.cancel()


async def test_health_is_ok_or_it_is_not() -> None:
    async with hostile.server(says(answer("200 OK", b'{"status": "down"}'))) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure, match="'down'") as failure:
            await client.health()
    assert failure.value.kind == "bad_shape"


async def test_a_check_of_a_silent_host_takes_one_deadline_and_faults_all_four(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wattswarm.runtime.client.check_deadline_ms", 1_000)
    async with hostile.server(hostile.hangs) as url, RuntimeClient(url) as client:
        began = trio.current_time()
        report = await client.check()
        assert trio.current_time() - began < 3  # one after the other would be 4
    assert all(report.faults.values())


async def test_an_error_status_is_told_although_its_body_never_ends() -> None:
    async def behave(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n")
        await trio.sleep_forever()

    async with hostile.server(behave) as url, RuntimeClient(url) as client:
        with pytest.raises(RuntimeFailure) as failure:
            await client.execute(request, deadline_ms)
        assert failure.value.missing


async def test_the_environment_s_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with hostile.server(says(answer("200 OK", b'{"status": "ok"}'))) as url, RuntimeClient(url) as client:
        assert (await client.health()).status == "ok"


async def test_a_trusted_certificate_is_accepted_and_an_unknown_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said = answer("200 OK", b'{"status": "ok"}')
    async with hostile.server(hostile.encrypted(says(said)), greets=False) as plain:
        url = plain.replace("http://", "https://")
        async with RuntimeClient(url) as client:
            with pytest.raises(RuntimeFailure, match="certificate verify failed") as failure:
                await client.health()
            assert failure.value.kind == "unreachable"
        monkeypatch.setenv("SSL_CERT_FILE", str(hostile.certificate))
        async with RuntimeClient(url) as client:
            assert (await client.health()).status == "ok"


async def test_a_handshake_that_never_ends_is_a_timeout() -> None:
    async with (
        hostile.server(hostile.hangs, greets=False) as url,
        RuntimeClient(url.replace("http://", "https://")) as client,
    ):
        with pytest.raises(RuntimeFailure) as failure:
            await client.execute(request, deadline_ms)
        assert failure.value.kind == "timeout"
