"""How is a named pipe opened, which nobody may ever write into?

Opening one for reading waits for a writer. Who waits without a word looks like a program that hangs.
"""

from __future__ import annotations

import io
import os
import select
from pathlib import Path
from typing import IO

# Seconds without a writer, after which there is a word: the other end of a shell's <(...) is there at once.
PATIENCE = 1.0


def open_for_reading(name: str, patience: float = PATIENCE) -> IO[bytes]:
    """A file opened for reading; of a named pipe, once a program writes into it, with a word on the way where that takes long.

    Args:
        name: a path.
        patience: seconds without a word.

    Raises:
        OSError: it cannot be opened.
    """
    if not Path(name).is_fifo():
        return open(name, "rb")

    # Without O_NONBLOCK the open itself waits. It polls as readable once there are bytes, or once a writer came and went.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if not poll.poll(patience * 1000):
            _say(f"orcdbg: {name} is a pipe, and no program writes into it yet: waiting")
            poll.poll()
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return io.BufferedReader(io.FileIO(descriptor, "rb"))


def _say(words: str) -> None:
    """To where the program's log goes; stderr, where nobody has said."""
    import logging  # only who waits has the time

    logging.getLogger(__name__).warning("%s", words)
