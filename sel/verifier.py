"""A helper process that checks signatures: ``python -m sel.verifier``, for whoever has many.

Threads of one interpreter check signatures while it waits, but fight it for its lock while it works; a process does
not. Request on stdin: u32 count, then per signature u16 length of the message, node id (32), signature (64), message.
Answer on stdout: one byte each, 1 if it holds. Ends when stdin does, also in the midst of a request, and when nobody
reads its answers, so it never outlives who started it.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from wattswarm.kernel import identity

if TYPE_CHECKING:
    import trio

Claim = tuple[bytes, bytes, bytes]
count = struct.Struct(">I")
record = struct.Struct(">H32s64s")
read_bytes = 1 << 16


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer requests until the source ends."""
    with suppress(EOFError):
        while True:
            answer = bytearray()
            for _ in range(count.unpack(_exactly(source, count.size))[0]):
                size, node_id, signature = record.unpack(_exactly(source, record.size))
                answer.append(identity.holds(node_id, _exactly(source, size), signature))
            sink.write(answer)
            sink.flush()


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


class VerifierGone(Exception):
    """The helper process has ended, whoever ended it."""


class Verifier:
    """The helper, from the asking side. Made by ``open_verifier``; one request at a time."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def check(self, claims: Sequence[Claim]) -> list[bool]:
        """Which of the (node id, message, signature) hold. Good ones are remembered in this process.

        Raises ``VerifierGone``.
        """
        import trio  # noqa: PLC0415 - the helper process itself has no use for it

        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = bytearray(count.pack(len(claims)))
        for node_id, message, signature in claims:
            request += record.pack(len(message), node_id, signature)
            request += message
        answer = bytearray()
        try:
            await self._process.stdin.send_all(request)
            while len(answer) < len(claims):
                part = await self._process.stdout.receive_some(read_bytes)
                if not part:
                    raise VerifierGone
                answer += part
        except trio.BrokenResourceError:
            raise VerifierGone from None
        for claim, good in zip(claims, answer, strict=True):
            if good:
                identity.remember(*claim)
        return [bool(good) for good in answer]


@asynccontextmanager
async def open_verifier() -> AsyncIterator[Verifier]:
    """A helper process, ended when left."""
    import trio  # noqa: PLC0415 - the helper process itself has no use for it

    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "sel.verifier"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield Verifier(process)
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.stdout.aclose()
            await process.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    serve(sys.stdin.buffer, sys.stdout.buffer)
