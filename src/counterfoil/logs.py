"""Logging: one JSON object a line, with the request's id, and no secrets."""

from __future__ import annotations

import logging
import re
import sys
from typing import Any

from counterfoil.settings import Settings

# structlog imports Rich, where it is installed, for tracebacks in color: 10 MB of memory and 50 ms of every start.
# Only what draws on a terminal needs it, and imports it then.
_hidden = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment] # which makes importing it an ImportError
try:
    import structlog
    from structlog import get_logger
    from structlog.contextvars import bind_contextvars, unbind_contextvars
finally:
    del sys.modules["rich"]
    if _hidden is not None:
        sys.modules["rich"] = _hidden

__all__ = ["bind_contextvars", "get_logger", "hide_secrets", "set_up", "unbind_contextvars"]

_SECRET_NAMES = re.compile(
    r"secret|password|token|authorization|api_key|license_key|master|claim|cookie|signature", re.IGNORECASE
)
_SECRET_VALUES = re.compile(
    r"cfk_[0-9a-z]+|LIC1-[A-Za-z2-7]+-[A-Za-z2-7]+|pur_[0-9a-z]{30,}"
    r"|(?<=/)[a-z2-7]{32}(?=/|$)"  # the token in the address of a link that works once
)


def hide_secrets(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Replace what looks like a secret, by its name or by its form, in every value of a log line."""
    for name, value in event.items():
        if _SECRET_NAMES.search(name):
            event[name] = "..."
        elif isinstance(value, str):
            event[name] = _SECRET_VALUES.sub("...", value)
    return event


def set_up(settings: Settings) -> None:
    """Send every log line, ours and the libraries', through one renderer to standard error."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
