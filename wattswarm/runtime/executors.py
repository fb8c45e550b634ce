"""The executors of a node: ``<state-dir>/executors.json``, name -> URL and what its last check found.

An executor that fails any of the four checks is not registered, and one whose endpoint turns out to be missing is
disabled until it passes them again. The file is replaced whole, so a crash leaves the old one or the new one;
processes that change it take turns. Blocking, small.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from wattswarm.kernel.refusal import Problem, Refused
from wattswarm.runtime.client import CheckReport, RuntimeClient, check_url
from wattswarm.runtime.contract import Capabilities

file_name = "executors.json"
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]


class Executor(Struct, frozen=True, forbid_unknown_fields=True):
    """A registered executor. ``disabled``: why it is not used, empty if it is."""

    name: Name
    base_url: str
    capabilities: Capabilities
    disabled: str = ""

    def supports(self, task_type: str, profile: str) -> bool:
        """Whether it may be asked for this: both were advertised, and it is not disabled."""
        return not self.disabled and self.capabilities.supports(task_type, profile)


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    executors: list[Executor]


class Executors:
    """The registry of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / file_name

    def all(self) -> list[Executor]:
        """Registered executors, by name. Raises ``Refused`` if the file is damaged or cannot be read."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise Refused("executors_file", f"{self.path} cannot be read: {error.strerror}") from None
        try:
            known = msgspec.json.decode(content, type=_File).executors
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("executors_file", f"{self.path} is damaged: {error}; mend it or remove it") from None
        if len({executor.name for executor in known}) < len(known):
            raise Refused("executors_file", f"{self.path} is damaged: a name is there twice; mend it or remove it")
        return known

    def get(self, name: str) -> Executor:
        """The executor called ``name``. Raises ``Refused`` that lists those there are."""
        known = self.all()
        for executor in known:
            if executor.name == name:
                return executor
        there = ", ".join(executor.name for executor in known) or "none; `wattswarm executors add NAME URL` adds one"
        raise Refused("unknown_executor", f"no executor {name!r} is registered; there is: {there}")

    def put(self, executor: Executor) -> None:
        """Register, or replace the one of that name."""
        with self._turn():
            others = [known for known in self.all() if known.name != executor.name]
            self._write(sorted([*others, executor], key=lambda known: known.name))

    def remove(self, name: str) -> None:
        """Forget the executor called ``name``. Raises ``Refused`` if there is none."""
        with self._turn():
            gone = self.get(name)
            self._write([known for known in self.all() if known.name != gone.name])

    def disable(self, name: str, why: str) -> None:
        """Keep the executor called ``name`` but do not use it: an endpoint was missing. ``put`` enables it again."""
        with self._turn():
            found = self.get(name)
            disabled = msgspec.structs.replace(found, disabled=why)
            self._write([disabled if known.name == name else known for known in self.all()])

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Read, change and write without another process between; a lock on the directory, which is never replaced."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise Refused("executors_file", f"{self.path.parent} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
            os.fsync(directory)
        except OSError as error:
            raise Refused("executors_file", f"{self.path} cannot be written: {error.strerror}") from None
        finally:
            os.close(directory)

    def _write(self, executors: list[Executor]) -> None:
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{file_name}.", delete=False) as file:
            try:
                file.write(msgspec.json.format(msgspec.json.encode(_File(executors))))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, self.path)
            except BaseException:
                os.unlink(file.name)
                raise


async def check(base_url: str) -> CheckReport:
    """The four checks of the executor at ``base_url``."""
    async with RuntimeClient(base_url) as client:
        return await client.check()


async def checked(name: str, base_url: str) -> Executor:
    """An executor that passed its checks, ready to be registered. Raises ``Refused`` that names each failed one."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise Refused(
            "executor_name",
            "the executor's name cannot be used",
            (Problem("name", repr(name), "1 to 64 of A-Z a-z 0-9 . _ -"),),
        ) from None
    url = check_url(base_url)
    report = await check(url)
    if not report.good or report.capabilities is None:
        problems = tuple(Problem(path, fault, "a working endpoint") for path, fault in report.faults.items() if fault)
        raise Refused("executor_check", f"the executor at {url} was not registered: it fails its checks", problems)
    return Executor(name, url, report.capabilities)
