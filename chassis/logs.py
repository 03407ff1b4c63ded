"""Structured logs on standard error: one JSON object a line, or coloured text on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog

_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
"""Without the values of local variables: passwords and keys are among them."""


def configure(log_format: Literal["auto", "json", "console"], level: str) -> None:
    """Sets up structlog and the standard library's loggers for this process."""
    plain = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Any] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if plain
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # libraries log through the standard library: the same lines, warnings and above
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))
    # the bus says itself, once, what is wrong with the connection
    logging.getLogger("nats").setLevel(logging.CRITICAL)


def logger(name: str) -> Any:
    """A logger bound to the service's name."""
    return structlog.get_logger(service=name)
