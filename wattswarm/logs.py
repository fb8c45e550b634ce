"""What the program says of itself, on stderr: lines for people, or JSON objects, one a line (WATTSWARM_LOG_FORMAT).

Modules speak through the standard library's loggers; structlog draws the lines and is loaded with the first of them,
so a quick command that has nothing to say stays quick. Keys, seeds and salts are never said.
"""

from __future__ import annotations

import logging
import sys

from wattswarm.config import Config

root = "wattswarm"


class _Drawn(logging.Formatter):
    """Lines as structlog draws them. ``extra`` of a call becomes keys."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form
        self._inner: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        if self._inner is None:
            self._inner = _formatter(self._form)
        return self._inner.format(record)


def _formatter(form: str) -> logging.Formatter:
    from structlog import dev, processors, stdlib  # noqa: PLC0415 - a tenth of a second, for those who speak

    drawn = processors.JSONRenderer() if form == "json" else dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            stdlib.add_log_level,
            stdlib.ExtraAdder(),
            processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[stdlib.ProcessorFormatter.remove_processors_meta, processors.format_exc_info, drawn],
    )


def configure(config: Config) -> None:
    """Speak as configured from here on. Called once a process, again in tests."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Drawn(config.log_format))
    for name in (root, "sel", "net"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(config.log_level.upper())
        logger.propagate = False
