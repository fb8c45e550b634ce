"""A network from its founding to a second member, by commands alone, and what a user does wrong on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import Shell

stranger = "ab" * 32


def said(shell: Shell, who: str, *words: str) -> Any:
    return json.loads(shell("--state-dir", who, *words, "--json").stdout)


def carry(shell: Shell, source: str, *targets: str) -> None:
    """What one node holds, to others."""
    shell("--state-dir", source, "log", "export", "--out", f"{source}.cbor")
    for target in targets:
        shell("--state-dir", target, "log", "import", f"{source}.cbor")


def test_two_founders_take_a_third_in(fresh: Shell) -> None:
    ben, cy = (said(fresh, who, "network", "show")["node_id"] for who in ("ben", "cy"))
    founded = said(fresh, "ada", "network", "init", "--name", "ours", "--founder", f"{ben}=verifier,finalizer")
    invite = fresh("--state-dir", "ada", "network", "invite", "--address", "192.0.2.7:7700").stdout
    assert len(invite.splitlines()) == 1
    for who in ("ben", "cy"):
        joined = said(fresh, who, "network", "join", invite.strip())
        assert joined["network_id"] == founded["network_id"]
    assert joined["roles"] == []
    assert (fresh.directory / "cy" / "bootstrap").read_text() == "192.0.2.7:7700\n"
    observer = fresh("--state-dir", "cy", "network", "show")
    assert f"members propose --add {cy}=" in observer.stderr
    assert "2 finalizers: a decision needs 2; all must be there" in observer.stdout

    proposed = said(fresh, "ada", "members", "propose", "--add", f"{cy}=proposer,verifier")
    assert (proposed["applied"], proposed["authored"]) == (False, ["MEMBERSHIP_PROPOSED", "MEMBERSHIP_SIGNED"])
    (proposal,) = proposed["proposals"]
    assert proposal["not_committed"] == sorted([ben, said(fresh, "ada", "network", "show")["node_id"]])
    carry(fresh, "ada", "ben")
    shown = fresh("--state-dir", "ben", "members", "list").stdout
    assert "(not approved here)" in shown
    assert f"+ {cy[:8]}… proposer,verifier" in shown
    assert said(fresh, "ben", "members", "sign", "1")["authored"] == ["MEMBERSHIP_SIGNED", "MEMBERSHIP_SIGNED"]
    carry(fresh, "ben", "ada")
    refused = fresh("--state-dir", "ben", "members", "apply", "1", ok=False)
    assert "1 finalizers have committed to it, expected 2 of 2" in refused.stderr
    assert said(fresh, "ada", "members", "list")["version"] == 1
    carry(fresh, "ada", "ben", "cy")
    assert {said(fresh, who, "network", "show")["membership_version"] for who in ("ada", "ben", "cy")} == {1}
    assert said(fresh, "cy", "network", "show")["roles"] == "proposer,verifier"
    (fresh.directory / "task.json").write_text(fresh("--state-dir", "cy", "task", "sample", "--task-id", "t").stdout)
    fresh("--state-dir", "cy", "task", "submit", "task.json")
    (created,) = said(fresh, "cy", "log", "show", "--kind", "TASK_CREATED")
    assert created["payload"]["membership"] == proposal["membership_hash"], "a task pins the newest version known"


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A directory with a network of one finalizer, whose version 1 has one member more."""
    directory = tmp_path_factory.mktemp("founded")
    directory.chmod(0o755)
    shell = Shell(directory)
    shell("network", "init", "--name", "one")
    shell("members", "propose", "--add", f"{stranger}=proposer,verifier")
    return shell


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["members", "propose"], "nothing changes"),
        (["members", "propose", "--add", f"{stranger}=king"], "NODE_ID=role,role"),
        (["members", "propose", "--add", "xyz=verifier"], "64 hex digits"),
        (["members", "propose", "--add", f"{stranger}=verifier,proposer"], "a member with these roles already"),
        (["members", "propose", "--add", "abab=verifier", "--add", "ababab=finalizer"], "twice"),
        (["members", "propose", "--remove", "cd" * 32], "no member of membership version 1"),
        (["members", "sign", "2"], "no open proposal '2'"),
        (["members", "apply", "nonsense"], "no open proposal 'nonsense'"),
        (["network", "join", "nonsense"], "not an invite"),
        (["network", "init"], "--fresh"),
        (["network", "init", "--founder", "abc=finalizer"], "64 hex digits"),
        (["network", "invite", "--address", "0.0.0.0:7700"], "others can dial"),
        (["--state-dir", "nowhere", "network", "invite"], "no node lives in nowhere"),
        (["--state-dir", "nowhere", "members", "list"], "no node lives in nowhere"),
    ],
)
def test_a_mistake_is_one_clear_error_and_changes_nothing(founded: Shell, words: list[str], expected: str) -> None:
    before = json.loads(founded("--json", "log", "head").stdout)
    done = founded(*words, ok=False)
    assert done.returncode == 1
    assert expected in done.stderr
    assert json.loads(founded("--json", "log", "head").stdout) == before
    assert not (founded.directory / "nowhere").exists()


def test_the_last_finalizer_does_not_leave(founded: Shell) -> None:
    me = json.loads(founded("--json", "network", "show").stdout)["node_id"]
    done = founded("members", "propose", "--remove", me[:8], ok=False)
    assert "leave no finalizer" in done.stderr


def test_a_version_that_is_applied_is_said_to_be(founded: Shell) -> None:
    for word in ("sign", "apply"):
        assert "version 1 is applied already" in founded("members", word, "1").stderr


def test_an_invite_without_an_address_says_so(founded: Shell) -> None:
    done = founded("network", "invite")
    assert "carries no address" in done.stderr
    assert done.stdout.startswith("wattswarm1_")
    assert "this host only" in founded("network", "invite", "--address", "127.0.0.1:7").stderr
