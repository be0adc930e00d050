"""How does the account of a trimmed snapshot look?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orcdbg.commands.trim import Trimmed, TrimmedImage
from orcdbg.views.page import Line, line
from orcdbg.views.view import Width, view


def trimmed_lines(result: Trimmed, width: Width) -> Iterator[Line]:
    """What was kept, and how large the file is."""
    yield line(f"{result.path}: {result.size} bytes, {result.kept} of memory, {result.stacks} stacks")
    if result.missing:
        yield line(f"{result.missing} pages that would have been kept are not in the snapshot")


def trimmed_json(result: Trimmed) -> dict[str, Any]:
    """The same for programs."""
    return {
        "path": result.path,
        "size": result.size,
        "kept_bytes": result.kept,
        "stacks": result.stacks,
        "missing_pages": result.missing,
    }


def image_lines(result: TrimmedImage, width: Width) -> Iterator[Line]:
    """How large the file of a trimmed vmlinux is."""
    yield line(f"{result.path}: {result.size} bytes")


def image_json(result: TrimmedImage) -> dict[str, Any]:
    """A trimmed vmlinux for programs."""
    return {"path": result.path, "size": result.size}


view(Trimmed, text=trimmed_lines, json=trimmed_json)
view(TrimmedImage, text=image_lines, json=image_json)
