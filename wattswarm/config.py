"""One configuration value, and where each part of it came from: flag, environment, config.toml, or default.

The first that speaks wins. Nothing else in the project takes settings from the environment (tests may shift the clock:
``wattswarm/node.py``).
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wattswarm.kernel.refusal import Problem, Refused

file_name = "config.toml"
bootstrap_name = "bootstrap"
default_state_dir = ".wattswarm"
log_levels = ("debug", "info", "warning", "error")
log_formats = ("console", "json")
udp_modes = ("multicast", "broadcast")
default_udp_addr = {"multicast": "239.255.42.99", "broadcast": "255.255.255.255"}
yes, no = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
Form = Literal["text", "switch", "number", "address", "addresses"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its value and its origin (``flag``, ``environment``, a file's path, or ``default``)."""

    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Key:
    """A setting that there is: its environment variable, its default, and the values it may have (empty: any)."""

    variable: str
    default: str | None
    choices: tuple[str, ...] = ()
    form: Form = "text"


keys: dict[str, Key] = {
    "pg_url": Key("WATTSWARM_PG_URL", None),
    "log_level": Key("WATTSWARM_LOG_LEVEL", "info", log_levels),
    "log_format": Key("WATTSWARM_LOG_FORMAT", "console", log_formats),
    "listen": Key("WATTSWARM_LISTEN", "127.0.0.1:0", form="address"),
    "advertise": Key("WATTSWARM_ADVERTISE", None, form="addresses"),
    "bootstrap": Key("WATTSWARM_BOOTSTRAP", None, form="addresses"),
    "udp_announce_enabled": Key("WATTSWARM_UDP_ANNOUNCE_ENABLED", "false", form="switch"),
    "udp_announce_mode": Key("WATTSWARM_UDP_ANNOUNCE_MODE", "multicast", udp_modes),
    "udp_announce_addr": Key("WATTSWARM_UDP_ANNOUNCE_ADDR", None),
    "udp_announce_port": Key("WATTSWARM_UDP_ANNOUNCE_PORT", "37931", form="number"),
    "autopilot": Key("WATTSWARM_AUTOPILOT", "true", form="switch"),
    "observers": Key("WATTSWARM_OBSERVERS", None, form="number"),
}


@dataclass(frozen=True, slots=True)
class Udp:
    """How a node announces itself to its local network, and hears others."""

    enabled: bool
    mode: str
    addr: str
    port: int


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is configured. ``pg_url`` None: the embedded Postgres of the state directory.

    ``listen``, ``advertise``, ``bootstrap``: host:port. ``observers`` None: as many as suit the listening address.
    """

    state_dir: Path
    pg_url: str | None
    log_level: str
    log_format: str
    listen: str
    advertise: tuple[str, ...]
    bootstrap: tuple[str, ...]
    udp: Udp
    autopilot: bool
    observers: int | None
    settings: Mapping[str, Setting]


def load(flags: Mapping[str, str | None], environment: Mapping[str, str] = os.environ) -> Config:
    """The configuration under ``flags`` (None: not given). Raises ``Refused`` naming the setting that is wrong."""
    state_dir = _first(flags, environment, {}, "state_dir", Key("WATTSWARM_STATE_DIR", default_state_dir), "")
    assert state_dir.value is not None
    path = Path(state_dir.value)
    document = _read(path / file_name)
    settings = {"state_dir": state_dir}
    for name, key in keys.items():
        settings[name] = _first(flags, environment, document, name, key, str(path / file_name))
        _check(name, key, settings[name])
    settings["bootstrap"] = _with_invited(settings["bootstrap"], path / bootstrap_name)
    said = {name: setting.value or "" for name, setting in settings.items()}
    return Config(
        path,
        settings["pg_url"].value,
        said["log_level"],
        said["log_format"],
        said["listen"],
        _list(said["advertise"]),
        _list(said["bootstrap"]),
        _udp(said),
        said["autopilot"].lower() in yes,
        int(said["observers"]) if said["observers"] else None,
        settings,
    )


def _with_invited(setting: Setting, file: Path) -> Setting:
    """The peers to begin with, and those of the invite that the node joined with."""
    try:
        invited = tuple(file.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return setting
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("config_file", f"{file} cannot be read: {error}") from None
    _check("bootstrap", keys["bootstrap"], Setting(",".join(invited), str(file)))
    given = _list(setting.value or "")
    origin = f"{setting.origin}, {file}" if given else str(file)
    return Setting(",".join(dict.fromkeys((*given, *invited))), origin) if invited else setting


def _udp(said: Mapping[str, str]) -> Udp:
    mode = said["udp_announce_mode"]
    addr = said["udp_announce_addr"] or default_udp_addr[mode]
    return Udp(said["udp_announce_enabled"].lower() in yes, mode, addr, int(said["udp_announce_port"]))


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _first(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    document: Mapping[str, str],
    name: str,
    key: Key,
    file: str,
) -> Setting:
    flag = flags.get(name)
    if flag is not None:
        return Setting(flag, "flag")
    if environment.get(key.variable):
        return Setting(environment[key.variable], f"environment {key.variable}")
    if name in document:
        return Setting(document[name], file)
    return Setting(key.default, "default")


_address = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_forms: dict[Form, str] = {
    "text": "text",
    "switch": "true or false",
    "number": "a number from 0 to 65535",
    "address": "host:port, like 127.0.0.1:7700 (port 0: any free one)",
    "addresses": "host:port, several separated by commas",
}


def _fits(form: Form, value: str) -> bool:
    match form:
        case "switch":
            return value.lower() in yes + no
        case "number":
            return value.isascii() and value.isdecimal() and int(value) <= 65_535
        case "address":
            found = _address.fullmatch(value)
            return found is not None and int(found[1]) <= 65_535
        case "addresses":
            return all(_fits("address", part) for part in _list(value))
    return True


def _check(name: str, key: Key, setting: Setting) -> None:
    if setting.value is None:
        return
    expected = ""
    if key.choices and setting.value not in key.choices:
        expected = f"one of {', '.join(key.choices)}"
    elif not _fits(key.form, setting.value):
        expected = _forms[key.form]
    if expected:
        raise Refused(
            "config",
            f"a setting from {setting.origin} cannot be used",
            (Problem(name, repr(setting.value), expected),),
        )


def _read(path: Path) -> dict[str, str]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused("config_file", f"{path} cannot be read: {error}") from None
    problems = [
        Problem(name, type(value).__name__ if name in keys else "an unknown key", _expected(name))
        for name, value in document.items()
        if name not in keys or _said(keys[name].form, value) is None
    ]
    if problems:
        raise Refused("config_file", f"{path} cannot be used", tuple(problems))
    return {name: _said(keys[name].form, value) or "" for name, value in document.items()}


def _expected(name: str) -> str:
    return _forms[keys[name].form] if name in keys else f"one of {', '.join(keys)}"


def _said(form: Form, value: object) -> str | None:
    """A value of the file as text; None if its type cannot say what the setting is."""
    match form, value:
        case _, str(text):
            return text
        case "switch", bool(switch):
            return "true" if switch else "false"
        case "number", int(number) if not isinstance(number, bool):
            return str(number)
        case "addresses", list(several) if all(isinstance(one, str) for one in several):
            return ",".join(several)
    return None
