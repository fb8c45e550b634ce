"""A reference runtime of one's own: a process on a free port of loopback, for demos, benches and tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

stop_s = 10


@contextmanager
def reference_runtime(*flags: str, within: Sequence[str] = ()) -> Iterator[str]:
    """Start one with ``flags``; its URL once it is ready. It ends when left. Blocks while it starts and stops.

    ``within``: words before its command, such as make it run in a network namespace.

    Ctrl-C at a terminal is for whoever started it: it is ended from here, and never dies in mid-start by itself.
    """
    command = [*within, sys.executable, "-m", "wattswarm.runtime.reference", "--listen", "127.0.0.1:0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    try:
        ready = process.stdout.readline().split()
        assert ready, "a runtime on a free port starts"
        yield ready[-1]
    finally:
        process.terminate()
        try:
            process.wait(stop_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
