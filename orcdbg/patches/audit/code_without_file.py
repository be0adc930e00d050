"""Which code runs that no file holds, or was patched and is gone: BPF images, livepatches, freed init text?

None of it can be compared; an audit names it, so that its absence from the account is not silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.base.reading import clamped
from orcdbg.base.walks import Budget
from orcdbg.image.vmlinux import Image
from orcdbg.kernel.linux import Linux
from orcdbg.patches.site import PatchPass, known_spans

# Of each kind. Machines have some thousand BPF programs, and a handful of livepatches; each false one costs 30 us.
MAX_NAMED = 1 << 15
_FREED = (".init.text", ".exit.text", ".altinstr_aux", ".altinstr_replacement")


def bpf_images(linux: Linux, budget: Budget) -> list[tuple[str, int, int]]:
    """Name, start and end of each generated BPF image (kernel/bpf/core.c: bpf_kallsyms).

    Args:
        linux: the kernel.
        budget: what the walk draws on; it has what is missing.

    Raises:
        OrcdbgError: the list cannot be read.
    """
    head = linux.find_address("bpf_kallsyms")
    if head is None or not linux.types.has("bpf_ksym", "lnode"):
        return []
    found = []
    for image in linux.walk_list(head, "bpf_ksym", "lnode", budget):
        try:
            name = linux.text_member("bpf_ksym", "name", image)
            found.append((name, linux.member("bpf_ksym", "start", image), linux.member("bpf_ksym", "end", image)))
        except MemoryFault as error:
            budget.note_error("a BPF symbol", image, error)
    return found


def livepatches(linux: Linux, budget: Budget) -> list[int]:
    """Addresses of the livepatches that are applied; they change text through ftrace alone (kernel/livepatch/core.c).

    Args:
        linux: the kernel.
        budget: what the walk draws on; it has what is missing.

    Raises:
        OrcdbgError: the list cannot be read.
    """
    head = linux.find_address("klp_patches")
    if head is None or not linux.types.has("klp_patch", "list"):
        return []
    return list(linux.walk_list(head, "klp_patch", "list", budget))


def freed_sites(image: Image, slide: int, passes: Sequence[PatchPass]) -> int:
    """How many recorded sites lie in text that the boot gives back, and that nothing can be compared with."""
    freed = [image.find_section(name) for name in _FREED]
    ranges = [(s.address + slide, s.end + slide) for s in freed if s is not None]
    count = 0
    for the_pass in passes:
        starts = known_spans(the_pass).starts
        for low, high in ranges:
            count += int(np.count_nonzero((starts >= clamped(low)) & (starts < clamped(high))))
    return count


def notes(linux: Linux) -> list[str]:
    """A line for each kind of code that is there and is not compared."""
    lines = []
    for what, count in (("BPF images", bpf_images), ("livepatches, through ftrace", livepatches)):
        budget = Budget(MAX_NAMED)
        try:
            number = len(count(linux, budget))
        except OrcdbgError as error:
            lines.append(f"{what}: not known: {error}")
            continue
        if number:
            lines.append(f"{number} {what}")
        lines += [f"{what}: not all are known: {line}" for line in budget.lines()]
    return lines
