"""What commands share: the session that global options make, and the way an async command meets an open node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import wraps
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

    def config(self) -> Config:
        """The configuration under these options; what the program says of itself follows it from here on."""
        from wattswarm.config import load
        from wattswarm.logs import configure

        config = load(self.flags)
        configure(config)
        return config

    def node(self, *, make: bool = True) -> AbstractAsyncContextManager[Node]:
        """The configured node, opened. ``make`` False: refuse if none lives there."""
        from wattswarm.node import open_node

        return open_node(self.config(), make=make)


def add(group: click.Group, name: str, *examples: str) -> Callable[[F], click.Command]:
    """Make an (async) function a command of ``group``: it gets the session first, has ``--json``, and examples."""

    def wrap(function: F) -> click.Command:
        @click.pass_obj
        @wraps(function)
        def call(session: Session, *args: Any, **kwargs: Any) -> Any:
            outcome = function(session, *args, **kwargs)
            return _finish(outcome) if isinstance(outcome, Awaitable) else outcome

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


def _finish(awaitable: Awaitable[Any]) -> Any:
    import trio

    async def whole() -> Any:
        return await awaitable

    return trio.run(whole)
