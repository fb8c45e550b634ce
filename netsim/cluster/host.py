"""A host of a cluster: a state directory, the daemon on it with its Postgres, and what can be done to both.

A daemon that does not begin because its database does not answer is begun again, as a supervisor does. What faults
mean for the protocol is not known here.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from sel.guard import file_name as guard_name
from sel.liveness import postmaster
from wattswarm.kernel.refusal import Refused
from wattswarm.local_swarm import Member, stop_postgres

again_s = 1.0
ordered_stop_s = 30.0
command_s = 120.0
recover_s = 30
page_bytes = os.sysconf("SC_PAGE_SIZE")
clock_variable = "WATTSWARM_TEST_CLOCK_OFFSET_MS"


def kill_postgres(state_dir: Path) -> None:
    """SIGKILL to the postmaster of a state directory and to all its children, if there is one."""
    leader = postmaster(state_dir / "pg/data")
    if leader:
        for process in (leader, *_children(leader)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


@dataclass
class Host(Member):
    """A member whose daemon is ended and begun at will.

    ``told``: hears what happens here. ``busy``: a fault has this host now. ``skew_ms``: its clock less the true one.
    ``put_back_once``: its log was lost or put back, so that it may have said something twice.
    ``restarts``: how often a supervisor had to begin its daemon again. ``log_file``: where the daemons log to, one
    after the other, outside the state directory, which faults put back.
    """

    log_file: Path = Path()
    told: Callable[[str, str, str], None] = field(default=lambda _who, _what, _detail: None)
    busy: bool = False
    skew_ms: int = 0
    restarts: int = 0
    serving: trio.Event = field(default_factory=trio.Event)
    put_back_once: bool = False
    _since: int = 0
    _recovering: trio.CancelScope | None = None
    _recovered: trio.Event | None = None

    @property
    def path(self) -> Path:
        """The state directory."""
        return self.home.path

    @property
    def log(self) -> Path:
        """What its daemons say."""
        return self.log_file

    @property
    def up(self) -> bool:
        """Whether its daemon serves, on a true clock."""
        return self.serving.is_set() and not self.skew_ms

    async def begin(self) -> None:
        """Have a daemon run that serves, however often it has to be begun; what it says meanwhile is in its log."""
        while True:
            try:
                await self.start()
            except Refused:
                await self.kill()
                self.restarts += 1
                self.told(self.name, "again", self.said()[-200:].strip().replace("\n", " | "))
                await trio.sleep(again_s)
            else:
                self.serving.set()
                self.told(self.name, "serves", f"process {self.process.pid if self.process else 0}")
                return

    async def crash(self) -> None:
        """SIGKILL. Its Postgres goes on alone."""
        self.serving = trio.Event()
        if self.process is not None:
            pid = await self.kill()
            self.told(self.name, "killed", f"process {pid}")

    async def halt(self) -> None:
        """Stop the daemon in order, and its Postgres with it."""
        self.serving = trio.Event()
        if self.process is not None:
            self.process.terminate()
            with trio.move_on_after(ordered_stop_s):
                await self.process.wait()
            await self.kill()

    async def set_clock(self, skew_ms: int) -> None:
        """Begin again on a clock that is so wrong."""
        await self.halt()
        self.skew_ms = skew_ms
        self.environment = {clock_variable: str(skew_ms)} if skew_ms else {}
        await self.begin()

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the daemon that runs, if one does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(which)

    def is_gone(self) -> bool:
        """Whether its daemon ended by itself."""
        return self.serving.is_set() and self.process is not None and self.process.poll() is not None

    def rss_bytes(self) -> int | None:
        """The resident memory of its daemon."""
        with suppress(OSError):
            if self.process is not None:
                return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * page_bytes
        return None

    def said(self) -> str:
        """What its daemons said since ``mark``."""
        with suppress(OSError), self.log_file.open("rb") as file:
            file.seek(self._since)
            return file.read().decode("utf-8", "replace")
        return ""

    def mark(self) -> None:
        """From here on ``said`` begins."""
        self._since = self.log_file.stat().st_size if self.log_file.exists() else 0

    # -- its disk ---------------------------------------------------------------------------------------------------

    async def lose_log(self) -> None:
        """Only the key is left, of which nobody knows what it signed. The daemon must not run."""
        await trio.to_thread.run_sync(self._lose_log)

    def _lose_log(self) -> None:
        stop_postgres(self.path)
        shutil.rmtree(self.path / "pg", ignore_errors=True)
        (self.path / guard_name).unlink(missing_ok=True)

    async def save(self) -> Path:
        """A copy of the whole state directory. The daemon must not run."""
        return await trio.to_thread.run_sync(self._save)

    def _save(self) -> Path:
        stop_postgres(self.path)
        copy = self.path.with_name("backup")
        shutil.rmtree(copy, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.path), str(copy)], check=True)
        return copy

    async def put_back(self, copy: Path) -> None:
        """Make it the state directory again. The daemon must not run."""
        await trio.to_thread.run_sync(self._put_back, copy)

    def _put_back(self, copy: Path) -> None:
        stop_postgres(self.path)
        shutil.rmtree(self.path)
        copy.rename(self.path)

    # -- its operator -----------------------------------------------------------------------------------------------

    async def run(self, *words: str) -> tuple[int, str]:
        """A ``wattswarm`` command on this host: exit code, and what it said."""
        command = [*self.within, sys.executable, "-m", "cli.main", "--state-dir", str(self.path), *words]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("WATTSWARM_")}
        done = None
        with trio.move_on_after(command_s):
            done = await trio.run_process(
                command,
                env={**clean, **self.environment},
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        return (done.returncode, done.stdout.decode("utf-8", "replace")) if done else (-1, "no answer")

    async def recover(self) -> None:
        """``node recover``, until it succeeds: it asks members first, and they may be out of reach."""
        self._recovered = done = trio.Event()
        try:
            with trio.CancelScope() as self._recovering:
                await self._recover()
        finally:
            done.set()

    async def _recover(self) -> None:
        while True:
            code, said = await self.run("node", "recover", "--yes", "--wait", str(recover_s))
            self.told(self.name, "recover", said.strip().splitlines()[-1] if said.strip() else str(code))
            if code == 0:
                return
            await trio.sleep(again_s)

    async def stop_recovering(self) -> None:
        """Whoever recovers it lets go of its state directory."""
        if self._recovering is not None and self._recovered is not None:
            self._recovering.cancel()
            await self._recovered.wait()

    async def end(self) -> None:
        """Nothing of it runs any more, whatever state it is in."""
        self.signal(signal.SIGCONT)
        await super().end()
