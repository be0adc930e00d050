"""What did the kernel write into its VMCOREINFO note?"""

from __future__ import annotations

from collections.abc import Mapping

from orcdbg.base.errors import UnsupportedFormat


def parse_vmcoreinfo(data: bytes) -> dict[str, str]:
    """The note's `KEY=value` lines; lines without `=` are passed over."""
    lines = data.rstrip(b"\0").decode("ascii", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def number(info: Mapping[str, str], key: str, base: int) -> int | None:
    """The number under `key`, None where it is absent.

    Raises:
        UnsupportedFormat: the value is not a number in that base.
    """
    if key not in info:
        return None
    try:
        return int(info[key], base)
    except ValueError as error:
        raise UnsupportedFormat("VMCOREINFO", f"{key}={info[key]!r} is not a number") from error
