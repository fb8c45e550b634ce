"""``wattswarm-node``: the daemon in the foreground. Logs go to stderr, the ready line to stdout, signals end it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.main import dashes, run
from cli.options import epilog

if TYPE_CHECKING:
    from wattswarm.config import Config

F = TypeVar("F", bound=Callable[..., Any])
stop_s_max = 25.0
"""Longer than an orderly end takes, the embedded Postgres included; after that the process ends by itself."""

_options = (
    click.option("--listen", metavar="HOST:PORT", help="where peers reach this node [127.0.0.1:0]"),
    click.option("--advertise", metavar="HOST:PORT", multiple=True, help="where peers should reach it, if elsewhere"),
    click.option("--bootstrap", metavar="HOST:PORT", multiple=True, help="a peer to begin with; again for more"),
    click.option("--udp/--no-udp", default=None, help="find peers on the local network [no]"),
    click.option("--autopilot/--no-autopilot", default=None, help="take part in tasks by this node's roles [yes]"),
    click.option("--observers", type=click.IntRange(0), help="how many non-members may read along"),
)


def daemon_options(function: F) -> F:
    """The options of a daemon; ``function`` gets them as ``flags``, ready for the configuration."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        names = ("listen", "advertise", "bootstrap", "udp", "autopilot", "observers")
        return function(*args, flags=_flags({name: kwargs.pop(name) for name in names}), **kwargs)

    for option in reversed(_options):
        call = option(call)
    return call  # type: ignore[return-value]


def _flags(given: Mapping[str, Any]) -> dict[str, str | None]:
    def text(value: Any) -> str | None:
        match value:
            case None | ():
                return None
            case bool():
                return "true" if value else "false"
            case tuple():
                return ",".join(value)
        return str(value)

    return {("udp_announce_enabled" if name == "udp" else name): text(value) for name, value in given.items()}


def words(flags: Mapping[str, str | None]) -> list[str]:
    """The command line that says the same."""
    switches = {"udp_announce_enabled": "udp", "autopilot": "autopilot"}
    said: list[str] = []
    for name, value in flags.items():
        if value is None:
            continue
        if name in switches:
            said.append(f"--{'' if value == 'true' else 'no-'}{switches[name]}")
        else:
            several = value.split(",") if name in ("advertise", "bootstrap") else [value]
            said += [word for one in several for word in (f"--{name.replace('_', '-')}", one)]
    return said


def serve(config: Config) -> int:
    """Run the daemon until SIGTERM or SIGINT; exit code 0 when it stopped in order."""
    import trio

    trio.run(_serve, config)
    return 0


async def _serve(config: Config) -> None:
    import trio

    from sel.lifetimes import single_error
    from wattswarm.daemon import run_daemon
    from wattswarm.neighbours import attach

    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, single_error():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, signals, stop, nursery.cancel_scope)
            async with trio.open_nursery() as living:
                ready = await living.start(partial(run_daemon, config, stop=stop, attach=attach))
                home = ready.node.home
                click.echo(
                    f"ready node_id={home.keys.node_id.hex()} network_id={home.genesis.network_id.hex()} "
                    f"listen={ready.listen or 'none'}"
                )
                sys.stdout.flush()
            nursery.cancel_scope.cancel()


async def _watch(signals: AsyncIterator[int], stop: Any, scope: Any) -> None:
    """The first signal asks for an orderly end, the next one for a quick one."""
    await anext(signals)
    stop.set()
    last = threading.Timer(stop_s_max, _give_up)
    last.daemon = True
    last.start()
    await anext(signals)
    scope.cancel()


def _give_up() -> None:
    import os

    click.echo(f"error: not stopped in order within {stop_s_max:g} s; what was acknowledged is safe", err=True)
    os._exit(1)


@click.command(
    context_settings={"token_normalize_func": dashes, "help_option_names": ["-h", "--help"]},
    epilog=epilog(("wattswarm-node --listen 127.0.0.1:7700",)),
)
@click.option("--state-dir", metavar="DIR", help="where this node lives [.wattswarm, or WATTSWARM_STATE_DIR]")
@click.option("--pg-url", metavar="URL", help="a PostgreSQL server, instead of the embedded one [WATTSWARM_PG_URL]")
@click.option("--db", "--store", "ignored", hidden=True, expose_value=False, help="accepted for old scripts, no effect")
@click.option("-v", "--verbose", is_flag=True, expose_value=False, help="show the traceback of an unexpected error")
@click.version_option(package_name="wattswarm")
@daemon_options
def command(state_dir: str | None, pg_url: str | None, flags: dict[str, str | None]) -> int:
    """Run this node: take part in its network's tasks until SIGTERM or Ctrl-C."""
    from wattswarm.config import load
    from wattswarm.logs import configure

    config = load({"state_dir": state_dir, "pg_url": pg_url, **flags})
    configure(config)
    return serve(config)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    sys.exit(run(lambda: command(arguments, standalone_mode=False)))


if __name__ == "__main__":
    main()
