"""Configuration: which of flag, environment, file and default speaks, and what a wrong value is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from wattswarm.config import Setting, Udp, load
from wattswarm.kernel.refusal import Refused


def write(path: Path, text: str) -> dict[str, str | None]:
    (path / "config.toml").write_text(text)
    return {"state_dir": str(path)}


def test_defaults_are_an_embedded_server_in_the_working_directory() -> None:
    config = load({}, {})
    assert (config.state_dir, config.pg_url) == (Path(".wattswarm"), None)
    assert {setting.origin for setting in config.settings.values()} == {"default"}


def test_daemon_takes_part_and_listens_on_loopback_by_default_and_announces_nothing() -> None:
    config = load({}, {})
    assert (config.listen, config.advertise, config.bootstrap) == ("127.0.0.1:0", (), ())
    assert config.udp == Udp(enabled=False, mode="multicast", addr="239.255.42.99", port=37931)
    assert (config.autopilot, config.observers) == (True, None)


def test_address_of_announcements_follows_their_mode() -> None:
    environment = {"WATTSWARM_UDP_ANNOUNCE_MODE": "broadcast", "WATTSWARM_UDP_ANNOUNCE_ENABLED": "yes"}
    assert load({}, environment).udp == Udp(enabled=True, mode="broadcast", addr="255.255.255.255", port=37931)


def test_file_may_use_the_types_of_its_language(tmp_path: Path) -> None:
    flags = write(tmp_path, 'autopilot = false\nobservers = 3\nbootstrap = ["a.example:1", "[::1]:2"]')
    config = load(flags, {})
    assert (config.autopilot, config.observers, config.bootstrap) == (False, 3, ("a.example:1", "[::1]:2"))


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WATTSWARM_LISTEN", "7700", "host:port"),
        ("WATTSWARM_LISTEN", "127.0.0.1:77000", "host:port"),
        ("WATTSWARM_BOOTSTRAP", "a.example:1,b.example", "host:port"),
        ("WATTSWARM_UDP_ANNOUNCE_ENABLED", "perhaps", "true or false"),
        ("WATTSWARM_UDP_ANNOUNCE_PORT", "-1", "a number"),
        ("WATTSWARM_UDP_ANNOUNCE_MODE", "anycast", "multicast, broadcast"),
        ("WATTSWARM_OBSERVERS", "many", "a number"),
    ],
)
def test_wrong_value_is_refused_with_what_was_expected(variable: str, value: str, expected: str) -> None:
    with pytest.raises(Refused) as refused:
        load({}, {variable: value})
    assert all(part in str(refused.value) for part in (variable, value, expected))


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
