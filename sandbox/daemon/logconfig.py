"""The daemon's own log: one line a record on standard error, key=value or JSON, as the journal likes it.

Records carry fields through `logger.info("message", extra={"fields": {"pod": …}})`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class _LineFormatter(logging.Formatter):
    """Base: time in UTC with milliseconds, level, logger, message, fields, traceback."""

    def values(self, record: logging.LogRecord) -> dict[str, Any]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        values.update(getattr(record, "fields", {}))
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return values


class TextFormatter(_LineFormatter):
    """key=value; a value with blanks, quotes or control characters is a JSON string, so that a record is a line."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.values(record).items())


class JsonFormatter(_LineFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.values(record), default=str, ensure_ascii=False)


def _quoted(value: Any) -> str:
    text = str(value)
    plain = text and all(c > " " and c not in '"=\\' and c.isprintable() for c in text)
    return text if plain else json.dumps(text, ensure_ascii=True)


def configure(level: str, format: str) -> None:
    """Sets up the root logger once; a later call changes level and format (SIGHUP)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What is written to a closed standard error is lost, and must not become a traceback on it.
    logging.raiseExceptions = False
    # Libraries speak at their own pace: a pod's life is told by our loggers.
    for library in ("asyncio", "aiohttp", "pyroute2"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
