"""Which command gets what is missing?

A release and a build-id come from the files. A command line that a user may copy has nothing of them but characters that no
shell takes for more than a letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orcdbg.symbols.btf_made import PAHOLE, find_program, pahole_command

_RELEASE = re.compile(r"[\w.+~-]{1,64}", re.ASCII)
_BUILD_ID = re.compile(r"[0-9a-f]{16,64}")
# What a distribution calls its kernels' releases, and how it gives their debugging information.
_BY_RELEASE = (
    (re.compile(r".*\.(?:el|fc|amzn)\d+.*"), "debuginfo-install kernel-{}"),
    (re.compile(r"\d.*-(?:generic|lowlatency|aws|azure|gcp|kvm|oracle)"), "apt install linux-image-unsigned-{}-dbgsym"),
    (re.compile(r"\d.*-(?:amd64|rt-amd64|cloud-amd64)"), "apt install linux-image-{}-dbg"),
)

BTF_FROM_DWARF = "orcdbg --make-btf VMLINUX SNAPSHOT"
TRIM_WITH_TEXT = "orcdbg trim VMLINUX SNAPSHOT -o FILE --text"


def command_for_image(release: str | None, build_id: str | None) -> str | None:
    """The one command that gets the debug vmlinux of a kernel, None where nothing tells which it is.

    Args:
        release: what `uname -r` said, as the files have it; untrusted.
        build_id: likewise, in hexadecimal.
    """
    if release is not None and _RELEASE.fullmatch(release) and not release.startswith("-"):
        for pattern, command in _BY_RELEASE:
            if pattern.fullmatch(release):
                return command.format(release)

    if build_id is not None and _BUILD_ID.fullmatch(build_id):
        return f"debuginfod-find debuginfo {build_id}"
    return None


def command_for_types(environment: Mapping[str, str]) -> str:
    """The command that makes BTF of an image's DWARF, or installs what makes it; `environment` has PATH."""
    has_pahole = find_program(PAHOLE, environment) is not None
    return BTF_FROM_DWARF if has_pahole else pahole_command(environment)


def command_for_modules(release: str | None) -> str:
    """The command that takes modules' files into account; `release` as for `command_for_image`."""
    is_safe = release is not None and _RELEASE.fullmatch(release)
    folder = f"/usr/lib/modules/{release}" if is_safe else "DIR"
    return f"patch audit --modules {folder}"
