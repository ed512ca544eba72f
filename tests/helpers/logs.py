"""What mmengine's logger writes, which pytest's caplog does not see."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


@contextmanager
def logged(told: Callable[[logging.LogRecord], object] = logging.LogRecord.getMessage) -> Iterator[list]:
    """Give a list that gets what `told` returns, by default the text, of each line that is logged meanwhile."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(told(record))
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
