"""Configuration: which of flag, environment, file and default speaks, and what a wrong value is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattswarm.config import Setting, load
from wattswarm.kernel.refusal import Refused


def write(path: Path, text: str) -> dict[str, str | None]:
    (path / "config.toml").write_text(text)
    return {"state_dir": str(path)}


def test_defaults_are_an_embedded_server_in_the_working_directory() -> None:
    config = load({}, {})
    assert (config.state_dir, config.pg_url) == (Path(".wattswarm"), None)
    assert set(config.settings.values()) == {
        Setting(".wattswarm", "default"),
        Setting(None, "default"),
        Setting("info", "default"),
        Setting("console", "default"),
    }


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    flags = write(tmp_path, 'pg_url = "from the file"')
    environment = {"WATTSWARM_PG_URL": "from the environment"}
    assert load(flags, {}).settings["pg_url"] == Setting("from the file", str(tmp_path / "config.toml"))
    assert load(flags, environment).settings["pg_url"] == Setting(
        "from the environment", "environment WATTSWARM_PG_URL"
    )
    assert load({**flags, "pg_url": "from the flag"}, environment).settings["pg_url"] == Setting(
        "from the flag", "flag"
    )


def test_state_directory_comes_from_its_variable(tmp_path: Path) -> None:
    assert load({}, {"WATTSWARM_STATE_DIR": str(tmp_path)}).state_dir == tmp_path


def test_empty_variable_says_nothing() -> None:
    assert load({}, {"WATTSWARM_PG_URL": ""}).pg_url is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pg_url = 3", ["config.toml", "pg_url", "int"]),
        ('colour = "blue"', ["config.toml", "colour", "unknown key"]),
        ("pg_url = \n", ["config.toml", "line 1"]),
        ('log_level = "loud"', ["config.toml", "log_level", "'loud'", "debug, info, warning, error"]),
        ('log_format = "xml"', ["log_format", "console, json"]),
    ],
)
def test_wrong_file_is_refused_with_the_key_and_what_was_expected(text: str, said: list[str], tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load(write(tmp_path, text), {})
    assert all(part in str(refused.value) for part in said), str(refused.value)


def test_wrong_variable_is_named() -> None:
    with pytest.raises(Refused, match="environment WATTSWARM_LOG_LEVEL"):
        load({}, {"WATTSWARM_LOG_LEVEL": "loud"})


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Refused, match=r"config\.toml cannot be read"):
        load({"state_dir": str(tmp_path)}, {})
