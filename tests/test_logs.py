"""What the program says of itself: lines or JSON, from the level that was asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattswarm.config import load
from wattswarm.logs import configure


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("wattswarm", "sel")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def speak(tmp_path: Path, **environment: str) -> None:
    configure(load({"state_dir": str(tmp_path)}, environment))
    log = logging.getLogger("wattswarm.somewhere")
    log.debug("too quiet")
    log.info("it happened", extra={"task_id": "t-1"})
    logging.getLogger("sel.somewhere").warning("the log speaks too")


def test_json_lines_hold_what_was_said_and_about_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speak(tmp_path, WATTSWARM_LOG_FORMAT="json")
    said = capsys.readouterr()
    first, second = map(json.loads, said.err.splitlines())
    assert (first["event"], first["level"], first["task_id"]) == ("it happened", "info", "t-1")
    assert second["event"] == "the log speaks too"
    assert not said.out


def test_level_is_the_configured_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speak(tmp_path, WATTSWARM_LOG_LEVEL="error")
    assert not capsys.readouterr().err
    speak(tmp_path, WATTSWARM_LOG_LEVEL="debug")
    assert "too quiet" in capsys.readouterr().err


def test_lines_are_for_people_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    speak(tmp_path)
    assert "it happened" in capsys.readouterr().err
