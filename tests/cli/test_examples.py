"""Every command's help carries an example, and every example works."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from cli.main import cli, groups
from tests.cli.conftest import Shell

by_hand = {
    "wattswarm executors add rt http://127.0.0.1:8787": "its own test, with the port that is free here",
    f"wattswarm proof fetch {'ab' * 32} --peer 127.0.0.1:7700 --out p.cbor": "test_swarm.py: it needs a peer",
    f"wattswarm peers befriend {'ab' * 32}": "test_peers.py: it needs a member",
    "wattswarm demo": "test_demo.py: it takes seconds",
    "wattswarm dev --nodes 4 --dir swarm": "test_demo.py: it goes on for ever",
    "wattswarm node up": "its own test: it would end the tasks that other examples need",
}
order = [
    "task run-real",
    "task sample",
    "task submit",
    "log export",
    "log import",
    "proof export",
    "proof verify",
    "network init",
    "network invite",
    "network join",
    "members propose",
    "members sign",
]


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    context = click.Context(cli)
    for name in groups:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {each}", command.commands[each]) for each in command.commands)
        else:
            yield name, command


def examples() -> list[str]:
    """The examples of all helps, those that make files before those that read them."""
    found = [example for _, command in commands() for example in examples_of(command)]

    def place(example: str) -> int:
        return next((at for at, name in enumerate(order) if f" {name}" in example), len(order))

    return sorted((example for example in found if example not in by_hand), key=place)


def examples_of(command: click.Command) -> list[str]:
    """What stands behind ``Example:`` in a command's help."""
    return re.findall(r"Example: (.+)", command.epilog or "")


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_has_help_and_an_example(name: str) -> None:
    command = dict(commands())[name]
    assert command.help
    assert examples_of(command)
    assert all(example.startswith("wattswarm ") for example in examples_of(command))


def test_every_example_works(prepared: Shell) -> None:
    for example in examples():
        text, _, target = example.partition(" > ")
        done = prepared(*shlex.split(text)[1:])
        if target:
            (prepared.directory / target.strip()).write_text(done.stdout)


@pytest.mark.parametrize("name", ["", *groups, *(name for name, _ in commands())])
def test_help_of_everything_is_shown(name: str, prepared: Shell) -> None:
    assert "Usage:" in prepared(*name.split(), "--help").stdout
