"""What commands share: the session that global options make, and the way an async command meets an open node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from wattswarm.config import Config
    from wattswarm.node import Node

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Session:
    """The global options of one run."""

    flags: dict[str, str | None]
    as_json: bool
    verbose: bool

    def config(self, more: Mapping[str, str | None] | None = None) -> Config:
        """The configuration under these options, and ``more`` flags of a command.

        What the program says of itself follows it from here on.
        """
        from wattswarm.config import load
        from wattswarm.logs import configure

        config = load({**self.flags, **(more or {})})
        configure(config)
        return config

    @asynccontextmanager
    async def node(self, *, make: bool = True) -> AsyncIterator[Node]:
        """The configured node, opened. ``make`` False: refuse if none lives there.

        It authors nothing while the daemon beside it finds this host's clock ahead.
        """
        from sel.authoring import ClockAhead
        from wattswarm.node import open_node
        from wattswarm.presence import daemon_process, read_state

        async with open_node(self.config(), make=make) as node:
            said = read_state(node.home.path)
            if said is not None and said.clock_off_ms > 0 and daemon_process(node.home.path) is not None:
                objection = ClockAhead(said.clock_off_ms)
                node.log.objection = lambda: objection
            yield node


def add(group: click.Group, name: str, *examples: str) -> Callable[[F], click.Command]:
    """Make an (async) function a command of ``group``: it gets the session first, has ``--json``, and examples."""

    def wrap(function: F) -> click.Command:
        @click.pass_obj
        @wraps(function)
        def call(session: Session, *args: Any, **kwargs: Any) -> Any:
            if iscoroutinefunction(function):
                return finish(partial(function, session, *args, **kwargs))
            return function(session, *args, **kwargs)

        made = group.command(name, epilog=epilog(examples))(call)
        made.params.append(click.Option(["--json"], is_flag=True, expose_value=False, callback=_json, help="as JSON"))
        return made

    return wrap


def epilog(examples: tuple[str, ...]) -> str:
    """The examples at the end of a command's help, one a line; a test runs them all."""
    return "\b\n" + "\n".join(f"Example: {example}" for example in examples)


def _json(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        ctx.obj.as_json = True


class Interrupted(Exception):
    """A signal ended the command, in order. ``code``: the exit code that shells expect of it."""

    def __init__(self, signal_number: int) -> None:
        super().__init__("interrupted")
        self.code = 128 + signal_number


def finish(command: Callable[[], Awaitable[Any]]) -> Any:
    """Run an async command. Ctrl-C, SIGTERM and a terminal that goes away cancel it, so that all it opened is closed.

    Python's own KeyboardInterrupt would come up anywhere, also where it breaks the bridge to asyncio.
    """
    import signal

    import trio

    ends = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        ends.append(signal.SIGHUP)
    stopped: list[int] = []

    async def watch(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        stopped.append(await anext(signals))
        scope.cancel()

    async def whole() -> Any:
        from sel.lifetimes import single_error

        result = None
        with trio.open_signal_receiver(*ends) as signals, single_error():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch, signals, nursery.cancel_scope)
                result = await command()
                nursery.cancel_scope.cancel()
        return result

    result = trio.run(whole)
    if stopped:
        raise Interrupted(stopped[0])
    return result
