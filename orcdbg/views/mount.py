"""How do mounted file systems look?"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.commands.mount import Mounts
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view


def _lines(result: Mounts, width: Width) -> Iterator[Line]:
    rows = (
        (address(m.mount), address(m.superblock), m.type, m.device, m.path or "(unreadable)", ",".join(m.options))
        for m in result.mounts
    )
    yield from columns(("MOUNT", "SUPERBLK", "TYPE", "DEVNAME", "DIRNAME", "OPTIONS"), rows, symbol=4)
    yield from problem_lines(result.problems)


def _json(result: Mounts) -> Json:
    mounts = [record(mount, ("mount", "superblock")) for mount in result.mounts]
    return {"mounts": mounts, "problems": list(result.problems)}


view(Mounts, text=_lines, json=_json)
