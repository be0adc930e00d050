"""What happens after `orcdbg serve`: which snapshot is offered where, and until when?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from orcdbg.base.errors import RemoteError, UsageError
from orcdbg.base.exit_status import ExitStatus
from orcdbg.cli.entry import end
from orcdbg.cli.options import type_options
from orcdbg.cli.plugins import Loaded
from orcdbg.commands.debugger import Debugger
from orcdbg.gdb.endpoint import Endpoint, parse_endpoint
from orcdbg.gdb.served_snapshot import ServedSnapshot
from orcdbg.gdb.server import Clients, listen
from orcdbg.target.opening import open_session
from orcdbg.views.page import safe

DEFAULT = "127.0.0.1:1234"


def run_serve(options: Namespace, files: Sequence[str], plugins: Loaded) -> int:
    """Offers a snapshot to clients, until it is interrupted."""
    if options.remote is not None or options.steps:
        raise UsageError("serve offers a snapshot: neither --remote nor commands go with it")
    endpoint = parse_endpoint(options.listen or DEFAULT)
    session = open_session(
        *files,
        slide=options.kaslr,
        phys_base=options.phys_base,
        readers=plugins.readers,
        extra_passes=plugins.passes,
        debug_folders=options.debug_dir,
        type_options=type_options(options),
    )
    target = ServedSnapshot(session, Debugger(session).task)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if endpoint.path and Path(endpoint.path).exists():
        raise RemoteError(f"{endpoint}: is there already", "remove it, if no other server listens there")
    with listen(endpoint) as listener:
        ours = os.lstat(endpoint.path) if endpoint.path else None
        try:
            if not endpoint.path:
                endpoint = Endpoint(endpoint.host, listener.getsockname()[1])
            gdb = f"target remote {endpoint.path or endpoint}"
            print(
                safe(f"orcdbg: {len(target.threads)} threads on {endpoint}; in gdb: {gdb}"), file=sys.stderr, flush=True
            )
            Clients(listener, target.afresh).serve()
            return ExitStatus.DONE
        finally:
            if ours is not None:
                _remove(endpoint.path, ours)


def _remove(path: str, ours: os.stat_result) -> None:
    """Removes the socket, unless something else has its name by now."""
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino):
            Path(path).unlink()
