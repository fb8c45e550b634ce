"""A Negentropy that is not ours, from npm, spoken to over one process's standard input and output.

What is installed is named exactly, with its hashes, by ``package-lock.json``, once per environment and never inside the
clone. Without node and npm there is no such peer and its tests are skipped; where ``WATTSWARM_CI`` is set they fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

node_min = 20
install_s = 100
here = Path(__file__).parent
package = ("package.json", "package-lock.json", ".npmrc")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the peer says, and what it learned as an initiator."""

    says: bytes | None
    have: list[bytes]
    need: list[bytes]


class Peer:
    """The running process: one session at a time."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions = questions
        self._answers = answers

    def takes(self, items: Sequence[tuple[int, bytes]], frame_bytes: int) -> None:
        """Begin a session over a set. ``frame_bytes`` 0: no limit."""
        self._ask({"items": [[seconds, item_id.hex()] for seconds, item_id in items], "frame": frame_bytes})

    def opens(self) -> bytes:
        """Its first message."""
        return bytes.fromhex(self._ask({"open": True})["says"])

    def hears(self, message: bytes) -> Answer:
        """Its answer to a message of ours."""
        answer = self._ask({"hears": message.hex()})
        says = None if answer["says"] is None else bytes.fromhex(answer["says"])
        return Answer(says, [*map(bytes.fromhex, answer["have"])], [*map(bytes.fromhex, answer["need"])])

    def _ask(self, question: dict[str, object]) -> dict[str, Any]:
        self._questions.write(json.dumps(question) + "\n")
        self._questions.flush()
        answer: dict[str, Any] = json.loads(self._answers.readline())
        assert "error" not in answer, answer
        return answer


@contextmanager
def running_peer() -> Iterator[Peer]:
    """The peer, installed if need be, until the end of the block."""
    script = _installed() / "peer.mjs"
    shutil.copy(here / "peer.mjs", script)
    with subprocess.Popen(["node", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Peer(process.stdin, process.stdout)
        finally:
            process.stdin.close()


def _installed() -> Path:
    """The directory where the package is installed; without one the test is skipped, or fails where it must not be."""
    contents = b"".join((here / name).read_bytes() for name in package)
    place = _cache() / f"wattswarm-interop-{hashlib.sha256(contents).hexdigest()[:16]}"
    problem = _no_node() or (None if place.exists() else _install(place))
    if problem and "WATTSWARM_CI" in os.environ:
        pytest.fail(f"the other implementation could not be installed: {problem}")
    if problem:
        print(problem, file=sys.stderr)
        pytest.skip("there is no node 20 with npm here that could install the other implementation")
    return place


def _cache() -> Path:
    in_environment = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    return Path(sys.prefix if in_environment else tempfile.gettempdir())


def _no_node() -> str | None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node or npm is missing"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < node_min:
        return f"node {version.strip()} is older than {node_min}"
    return None


def _install(place: Path) -> str | None:
    """Install beside ``place`` and move there what is whole, so that no run ever finds half of it; what went wrong."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"{place.name}-") as directory:
        making = Path(directory) / "made"
        making.mkdir()
        for name in package:
            shutil.copy(here / name, making)
        try:
            subprocess.run(["npm", "ci"], cwd=making, capture_output=True, text=True, check=True, timeout=install_s)
        except subprocess.CalledProcessError as error:
            return f"npm ci: {error.stderr}"
        except subprocess.TimeoutExpired:
            return f"npm ci took more than {install_s} s"
        if not place.exists():
            making.rename(place)
    return None
