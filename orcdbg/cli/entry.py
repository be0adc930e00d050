"""Where does the program begin?

An interruption, or too little memory, ends it in one line also while it is being loaded.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

_FAILED, _INTERRUPTED = 1, 130  # as `base.exit_status` has them, which may be what could not be loaded


def start() -> int:
    """Loads the program and runs it; returns its exit status."""
    # numpy's library of linear algebra takes 30 MB of address space for each CPU as it is loaded, and nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # else somebody has it ignored, as nohup does
            signal.signal(number, end)
    try:
        from orcdbg.cli.main import main

        return main()
    except KeyboardInterrupt:
        return _last_words("interrupted", _INTERRUPTED)
    except MemoryError:
        return _last_words("not enough memory", _FAILED)
    except (ImportError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        return _last_words(f"cannot be loaded: {error}", _FAILED)


def end(number: int, _: object) -> NoReturn:
    """Ends the program by a signal, by way of everything that wants to be done before: nothing half-written is left."""
    sys.exit(128 + number)


def _last_words(text: str, status: int) -> int:
    if sys.stderr is not None:
        print(f"orcdbg: {text}", file=sys.stderr)
    return status
