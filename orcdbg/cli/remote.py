"""How is a live guest opened from the command line, and let go whatever happens?"""

from __future__ import annotations

import contextlib
import signal
from argparse import Namespace
from collections.abc import Iterator, Sequence

from orcdbg.base.errors import UsageError
from orcdbg.cli.entry import end
from orcdbg.cli.options import type_options
from orcdbg.commands.debugger import Debugger
from orcdbg.gdb.opening import open_guest
from orcdbg.patches.kernel_patches import MakePasses


@contextlib.contextmanager
def attached(options: Namespace, passes: Sequence[MakePasses]) -> Iterator[Debugger]:
    """The debugger over the guest that `--remote` names. The guest runs on after it, also after an error or a signal.

    Raises:
        UsageError: other files than one vmlinux were given.
    """
    if len(options.files) != 1:
        raise UsageError("--remote takes the place of a snapshot: one file is needed, the vmlinux")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    session, guest = open_guest(
        options.files[0], options.remote, options.kaslr, options.phys_base, passes, type_options(options)
    )
    with guest:
        debugger = Debugger(session, guest)
        debugger.move(guest.stop.cpu)
        yield debugger
