"""The executors of a node: ``<state-dir>/executors.json``, name -> URL and what its last check found.

An executor that fails any of the four checks is not registered. The file is replaced whole, so a crash leaves the
old one or the new one. Blocking, small.
"""

from __future__ import annotations

import os
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
    """A registered executor."""

    name: Name
    base_url: str
    capabilities: Capabilities


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    executors: list[Executor]


class Executors:
    """The registry of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / file_name

    def all(self) -> list[Executor]:
        """Registered executors, by name. Raises ``Refused`` if the file is damaged."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            return msgspec.json.decode(content, type=_File).executors
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused("executors_file", f"{self.path} is damaged: {error}; mend it or remove it") from None

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
        others = [known for known in self.all() if known.name != executor.name]
        self._write(sorted([*others, executor], key=lambda known: known.name))

    def remove(self, name: str) -> None:
        """Forget the executor called ``name``. Raises ``Refused`` if there is none."""
        gone = self.get(name)
        self._write([known for known in self.all() if known.name != gone.name])

    def _write(self, executors: list[Executor]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{file_name}.{os.getpid()}")
        try:
            with open(temporary, "xb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_File(executors))))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


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
