"""One configuration value, and where each part of it came from: flag, environment, config.toml, or default.

The first that speaks wins. Nothing else in the project reads the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wattswarm.kernel.refusal import Problem, Refused

file_name = "config.toml"
default_state_dir = ".wattswarm"
log_levels = ("debug", "info", "warning", "error")
log_formats = ("console", "json")


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


keys: dict[str, Key] = {
    "pg_url": Key("WATTSWARM_PG_URL", None),
    "log_level": Key("WATTSWARM_LOG_LEVEL", "info", log_levels),
    "log_format": Key("WATTSWARM_LOG_FORMAT", "console", log_formats),
}


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is configured. ``pg_url`` None: the embedded Postgres of the state directory."""

    state_dir: Path
    pg_url: str | None
    log_level: str
    log_format: str
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
    return Config(
        path,
        settings["pg_url"].value,
        settings["log_level"].value or "",
        settings["log_format"].value or "",
        settings,
    )


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


def _check(name: str, key: Key, setting: Setting) -> None:
    if key.choices and setting.value not in key.choices:
        raise Refused(
            "config",
            f"a setting from {setting.origin} cannot be used",
            (Problem(name, repr(setting.value), f"one of {', '.join(key.choices)}"),),
        )


def _read(path: Path) -> dict[str, str]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refused("config_file", f"{path} cannot be read: {error}") from None
    problems = [
        Problem(name, type(value).__name__ if name in keys else "an unknown key", f"text, for one of {', '.join(keys)}")
        for name, value in document.items()
        if name not in keys or not isinstance(value, str)
    ]
    if problems:
        raise Refused("config_file", f"{path} cannot be used", tuple(problems))
    return document
