"""The walk of the README, and what a user does wrong on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Shell

chain = [
    "TASK_CREATED",
    "TASK_CLAIMED",
    "CANDIDATE_PROPOSED",
    "TASK_CLAIMED",
    "EVIDENCE_AVAILABLE",
    "VERIFIER_RESULT_SUBMITTED",
    "VOTE_COMMIT",
    "VOTE_REVEAL",
    "DECISION_COMMITTED",
    "FINALITY_VOTE",
    "DECISION_FINALIZED",
]


def said(shell: Shell, *words: str) -> Any:
    return json.loads(shell(*words, "--json").stdout)


def test_a_task_goes_the_whole_way_and_every_byte_of_it_is_checked(
    fresh: Shell, runtime_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    fresh("executors", "add", "rt", runtime_url)
    found = said(fresh, "task", "run-real", "--executor", "rt", "--profile", "default", "--task_id", "task-real-1")
    assert found["terminal_state"] == "FINALIZED"
    assert found["final_answer"] == "default::hello"
    assert found["committed_candidate_id"] == found["finalized_candidate_id"] == found["candidate_id"]
    assert [event["kind"] for event in said(fresh, "log", "show")] == chain
    assert {event["verdict"] for event in said(fresh, "log", "show")} == {"accepted"}
    decision = said(fresh, "task", "decision", "task-real-1")
    assert (decision["state"], decision["output"]["answer"]) == ("FINALIZED", "default::hello")
    assert said(fresh, "log", "verify")["ok"]
    assert said(fresh, "log", "replay")["same_as_before"]
    fresh("proof", "export", "task-real-1", "--out", "p.cbor")
    elsewhere = Shell(tmp_path_factory.mktemp("elsewhere"))
    proof = said(elsewhere, "proof", "verify", str(fresh.directory / "p.cbor"))
    assert proof["final_commit_hash"] == decision["final_commit_hash"]
    assert not list(elsewhere.directory.iterdir())
    network = proof["network_id"]
    assert said(elsewhere, "proof", "verify", str(fresh.directory / "p.cbor"), "--network", network)["network_pinned"]
    refused = elsewhere("proof", "verify", str(fresh.directory / "p.cbor"), "--network", "00" * 32, ok=False)
    assert refused.returncode == 1


def test_an_export_imports_into_an_observer_with_the_same_fingerprint_and_root(prepared: Shell) -> None:
    prepared("log", "export", "--out", "whole.cbor")
    prepared("--state-dir", "observer", "log", "import", "whole.cbor")
    mine, theirs = said(prepared, "log", "head"), said(prepared, "--state-dir", "observer", "log", "head")
    for name in ("events", "fingerprint", "certificates_fingerprint", "state_root", "network_id"):
        assert mine[name] == theirs[name]
    again = said(prepared, "--state-dir", "observer", "log", "import", "whole.cbor")
    assert (again["stored"], again["duplicates"]) == (0, mine["events"])


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["log", "head"], 1, "no node lives in"),
        (["task", "decision", "x"], 1, "no node lives in"),
        (["task", "submit", "missing.json"], 2, "does not exist"),
        (["nonsense"], 2, "No such command"),
        (["executors", "add", "rt", "ftp://x"], 1, "http://"),
        (["executors", "check", "rt"], 1, "no executor 'rt'"),
        (["--pg-url", "postgresql://x@127.0.0.1:1/x", "task", "submit", "good.json"], 1, "cannot be reached"),
    ],
)
def test_a_mistake_is_one_clear_error(fresh: Shell, words: list[str], code: int, expected: str) -> None:
    if "good.json" in words:
        (fresh.directory / "good.json").write_text("{}")
    done = fresh(*words, ok=False)
    assert done.returncode == code
    assert expected in done.stderr


def test_a_bad_contract_names_every_fault_and_changes_nothing(prepared: Shell) -> None:
    before = said(prepared, "log", "head")
    contract = json.loads(prepared("task", "sample", "--task-id", "bad").stdout)
    contract["acceptance"]["quorum_threshold"] = 0
    contract["budget"]["cost_units"] = "many"
    (prepared.directory / "bad.json").write_text(json.dumps(contract))
    done = prepared("task", "submit", "bad.json", ok=False)
    assert done.returncode == 1
    assert "acceptance.quorum_threshold" in done.stderr
    assert "budget.cost_units" in done.stderr
    assert said(prepared, "log", "head") == before


def test_a_label_is_created_once(prepared: Shell) -> None:
    done = prepared("task", "submit", "task-stop.json", ok=False)
    assert done.returncode == 1
    assert "names task" in done.stderr


def test_a_profile_that_the_executor_lacks_is_refused_before_anything_is_authored(prepared: Shell) -> None:
    before = said(prepared, "log", "head")
    done = prepared("task", "run-real", "--executor", "rt", "--profile", "psychic", ok=False)
    assert done.returncode == 1
    assert "profile" in done.stderr
    assert said(prepared, "log", "head") == before


def test_a_copied_state_directory_authors_nothing_until_it_is_recovered(prepared: Shell, tmp_path: Path) -> None:
    prepared("log", "head")
    tmp_path.chmod(0o755)
    shutil.copytree(
        prepared.directory / ".wattswarm",
        tmp_path / ".wattswarm",
        ignore=shutil.ignore_patterns("pg", "*.lock"),
    )
    copy = Shell(tmp_path)
    (tmp_path / "t.json").write_text(copy("task", "sample", "--task-id", "t-copy").stdout)
    done = copy("task", "submit", "t.json", ok=False)
    assert done.returncode == 1
    assert "copied or restored" in done.stderr
    assert "node recover" in done.stderr


def test_config_show_says_where_each_value_comes_from(prepared: Shell) -> None:
    shown = said(prepared, "config", "show")
    assert shown["state_dir"] == {"value": ".wattswarm", "from": "default"}
    assert shown["pg_url"]["from"] == "the embedded server"


def test_the_doctor_passes_a_healthy_node(prepared: Shell) -> None:
    assert all(check["ok"] for check in said(prepared, "doctor"))
