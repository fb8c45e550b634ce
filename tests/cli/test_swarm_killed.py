"""Fifty tasks at four daemons, while daemons and databases die by SIGKILL at random moments: every task ends."""

from __future__ import annotations

import pytest

from tests.killing import faults, finality_votes, hosts_of, tasks_count, trial

seed, strikes = 1, 6


@pytest.mark.timeout(300)  # after the harness's own deadlines, which say what was waited for
def test_every_task_ends_and_nobody_votes_twice_whoever_is_killed() -> None:
    with hosts_of(4) as hosts:
        logs = trial(hosts, seed, strikes)
        assert faults(hosts, logs) == []
        assert len(logs[0].states) == tasks_count
        assert len(finality_votes(logs)) == tasks_count
