"""How does a process that has the program loaded make one for each dump?

To load the program takes as long as to look at a small dump. So a server loads it once, and forks a process for each job: that
has a memory of its own, and whatever becomes of it, the server is as it was. Nothing but the job's two files comes from the
other side.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_FAILED = 70  # sysexits.h, EX_SOFTWARE: what no work should end with


def serve(connection: socket.socket, work: Callable[[], None]) -> None:
    """Works until the other side goes: forks for each message, which brings the files that become standard input and output.

    It answers with a message of the process's number, and, when that has ended, one of how it did.

    Args:
        connection: of whole messages (SOCK_SEQPACKET).
        work: what the forked process does; its end is the process's.
    """
    _die_with_parent(None)
    # What is there now stays as it is, so that its pages stay shared with all processes that are forked.
    gc.collect()
    gc.freeze()
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1, 2)
        if not message:
            return
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _work(connection, descriptors, work, server)
        for descriptor in descriptors:
            os.close(descriptor)
        _say(connection, {"pid": pid})
        _, status, usage = os.wait4(pid, 0)
        _say(connection, {"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime})


def _say(connection: socket.socket, message: dict[str, float]) -> None:
    connection.send(json.dumps(message).encode())


def _die_with_parent(parent: int | None) -> None:
    """Has the system end this process when that which started it ends, however it does; `parent` is its number where known."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(_FAILED)  # it has ended a moment ago


def _work(connection: socket.socket, descriptors: list[int], work: Callable[[], None], server: int) -> NoReturn:
    """The forked process: it never returns to the server's loop."""
    status = _FAILED
    try:
        _die_with_parent(server)
        signal.set_wakeup_fd(-1)
        connection.close()
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        work()
        status = 0
    finally:
        os._exit(status)
