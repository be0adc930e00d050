"""What do stacks not say where a snapshot stands alone, without its image?"""

from __future__ import annotations

import re
from typing import Any

# Only the text as built tells by which jumps a function goes on to another. No mark hangs on it.
_TAIL_CALL = re.compile(r"the call before it enters \S+, which goes on to \S+ by the jumps? at ")


def without_tail_calls(stacks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stacks as JSON, without the notes that name tail calls; they are changed in place."""
    for frame in (frame for stack in stacks for frame in stack["frames"]):
        frame["notes"] = [note for note in frame["notes"] if not _TAIL_CALL.match(note)]
    return stacks
