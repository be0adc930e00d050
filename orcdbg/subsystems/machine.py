"""How long was the machine up, how busy was it, what was it told at boot, and what taints its kernel?

Mirrors kernel/time/timekeeping.c, kernel/sched/loadavg.c, kernel/panic.c, kernel/configs.c, kernel/cpu.c,
arch/x86/kernel/cpu/proc.c.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from orcdbg.base.errors import Corrupt, NotFound, OrcdbgError
from orcdbg.base.sizes import PAGE
from orcdbg.kernel.tasks import online_cpus
from orcdbg.subsystems.kernel_variables import bits_of, per_cpu_variable, total_pages, variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program
from orcdbg.typed.types import EnumType

# FSHIFT (include/linux/sched/loadavg.h), and what get_avenrun() adds to show hundredths: nearly half a one.
_LOAD_SHIFT = 11
_HALF_A_HUNDREDTH = (1 << _LOAD_SHIFT) // 200
_LONGEST_COMMAND_LINE = 4096
_SECOND = 1_000_000_000
_JIFFIES_SHIFT = 8  # JIFFIES_SHIFT of kernel/time/jiffies.c, 100 Hz and more
_LARGEST_CONFIG = 4 << 20
# Fields of dmi_ident, enum dmi_field (include/linux/mod_devicetable.h): some 25.
_MOST_FIRMWARE_STRINGS = 64
# enum e820_type (arch/x86/include/asm/e820/types.h), in the words of /proc/iomem.
_E820_TYPES = {
    1: "System RAM",
    2: "Reserved",
    3: "ACPI Tables",
    4: "ACPI Non-volatile Storage",
    5: "Unusable memory",
    7: "Persistent Memory",
    12: "Persistent Memory (legacy)",
    0xEFFF_FFFF: "Soft Reserved",
}
_MOST_RANGES = 8192
_CONFIG_START, _CONFIG_END = b"IKCFG_ST", b"IKCFG_ED"

# taint_flags[], by bit (kernel/panic.c).
TAINTS = (
    ("P", "a proprietary module was loaded"),
    ("F", "a module was forced to load"),
    ("S", "the CPU is used out of its specification"),
    ("R", "a module was forced to unload"),
    ("M", "a machine check was reported"),
    ("B", "a bad page was found"),
    ("U", "user space asked for it"),
    ("D", "the kernel died before: an oops or BUG"),
    ("A", "an ACPI table was overridden"),
    ("W", "a warning was given"),
    ("C", "a staging driver was loaded"),
    ("I", "a firmware bug is worked around"),
    ("O", "an out-of-tree module was loaded"),
    ("E", "an unsigned module was loaded"),
    ("L", "a soft lockup occurred"),
    ("K", "the kernel was live-patched"),
    ("X", "the distribution uses it"),
    ("T", "built with the randstruct plug-in"),
    ("N", "an in-kernel test was run"),
    ("J", "user space used a mutating fwctl debug operation"),
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU: `speed` in kHz, `microcode` its revision."""

    number: int
    vendor: str
    model: str
    family: int
    model_number: int
    stepping: int
    microcode: int
    is_online: bool


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """A range of physical memory, `end` the first byte behind it, and what the firmware says it is."""

    start: int
    end: int
    kind: str


def timekeeper(program: Program) -> Object:
    """The kernel's clock."""
    keeper = program.linux.find_address("tk_core")
    if keeper is None:
        # Since 6.19 (auxiliary clocks) the first of several.
        return program.object("struct tk_data", program.linux.address("timekeeper_data")).member_("timekeeper")
    if program.catalog.find("struct", "tk_data") is not None:
        return program.object("struct tk_data", keeper).member_("timekeeper")
    # Before 6.13 an anonymous structure of a sequence counter, which lockdep makes longer, and the timekeeper.
    names = ("seqcount_raw_spinlock", "seqcount")
    sizes = [program.type(name).size for name in names if program.catalog.find("struct", name) is not None]
    return program.object("struct timekeeper", keeper + max(-(-sizes[0] // 8) * 8 if sizes else 8, 8))


def monotonic_time(program: Program) -> int:
    """Nanoseconds of CLOCK_MONOTONIC when the clock was last updated: at most some ticks ago, longer on an idle machine."""
    keeper = timekeeper(program)
    base = keeper.member_("tkr_mono")
    shift = int(base.member_("shift"))
    if shift > 63:
        raise Corrupt(f"the clock's shift is {shift}")
    return int(base.member_("base")) + (int(base.member_("xtime_nsec")) >> shift)


def uptime(program: Program) -> int:
    """Nanoseconds since boot, with those asleep: CLOCK_BOOTTIME."""
    nanoseconds = monotonic_time(program) + int(timekeeper(program).member_("offs_boot"))
    if not 0 <= nanoseconds < 1 << 62:
        raise Corrupt(f"{nanoseconds} ns is no time since boot")
    return nanoseconds


def boot_date(program: Program) -> int:
    """Nanoseconds from 1970 to the boot, by the wall clock as it was set last: for times of the log, which begin there.

    Raises:
        Corrupt: that is no date.
    """
    offset = int(timekeeper(program).member_("offs_real"))
    if not 0 < offset < 1 << 62:
        raise Corrupt(f"the wall clock is {offset} ns from the boot")
    return offset


def tick_length(program: Program) -> int:
    """Nanoseconds of a tick, a jiffy: the length that the clock source of jiffies counts by."""
    mult = int(variable(program, "clocksource_jiffies", "struct clocksource").member_("mult"))
    length = mult >> _JIFFIES_SHIFT
    if not 100_000 <= length <= _SECOND:
        raise Corrupt(f"a tick of {length} ns")
    return length


def load_averages(program: Program) -> tuple[float, float, float]:
    """Tasks that ran or waited for disks, on average of 1, 5 and 15 minutes, in the hundredths of /proc/loadavg."""
    address = program.linux.address("avenrun")
    one, five, fifteen = (_hundredths(int(program.object("unsigned long", address + 8 * n))) / 100 for n in range(3))
    return one, five, fifteen


def _hundredths(load: int) -> int:
    """A load as loadavg_proc_show() prints it: rounded by a little less than a half, so 0.3750 is 37 of them."""
    return (load + _HALF_A_HUNDREDTH) * 100 >> _LOAD_SHIFT


def taint_mask(program: Program) -> int:
    """What taints the kernel, by bit."""
    return int(variable(program, "tainted_mask", "unsigned long"))


def taint_letters(mask: int) -> str:
    """The letters of the bits that are set, as in the first line of an oops; empty for a kernel that is not tainted."""
    return "".join(letter for bit, (letter, _) in enumerate(TAINTS) if mask >> bit & 1)


def command_line(program: Program) -> str:
    """What the boot loader told the kernel."""
    pointer = variable(program, "saved_command_line", "char *")
    return pointer.string_(_LONGEST_COMMAND_LINE)


def total_memory(program: Program) -> int:
    """Bytes of memory that the kernel manages."""
    return total_pages(program.linux) * PAGE


def cpu_set(program: Program, name: str) -> list[int]:
    """The CPUs of a mask such as `__cpu_present_mask`."""
    limit = program.linux.cpu_limit()
    return bits_of(program.object("unsigned long", program.linux.address(name)), limit)


def cpus(program: Program) -> list[Cpu]:
    """The CPUs that are present, as /proc/cpuinfo tells them."""
    online = set(online_cpus(program.linux))
    found = []
    for number in cpu_set(program, "__cpu_present_mask"):
        info = per_cpu_variable(program, "cpu_info", "struct cpuinfo_x86", number)
        found.append(
            Cpu(
                number,
                info.member_("x86_vendor_id").string_(),
                info.member_("x86_model_id").string_().strip(),
                int(info.member_("x86")),
                int(info.member_("x86_model")),
                int(info.member_("x86_stepping")),
                int(info.member_("microcode")),
                number in online,
            )
        )
    return found


def firmware_strings(program: Program) -> list[tuple[str, str]]:
    """What the firmware says of the machine, by the kernel's names of what it says; NotFound where the kernel did not ask.

    Mirrors drivers/firmware/dmi_scan.c, dmi_ident.
    """
    table = program.linux.address("dmi_ident")
    names = program.catalog.get("enum dmi_field")
    if not isinstance(names, EnumType):
        raise NotFound("type", "enum dmi_field")
    found = []
    for name, number in names.enumerators:
        if not 0 < number < _MOST_FIRMWARE_STRINGS or name == "DMI_STRING_MAX":
            continue
        text = program.object("char *", table + 8 * number)
        # Fields from DMI_OEM_STRING on stand for lists, and are not in the table.
        if name == "DMI_OEM_STRING":
            break
        if int(text):
            found.append((name.removeprefix("DMI_").lower(), text.string_(256)))
    return found


def memory_map(program: Program) -> list[MemoryRange]:
    """The physical memory as the firmware described it, and the kernel changed that since.

    Mirrors arch/x86/kernel/e820.c.
    """
    table = variable(program, "e820_table", "struct e820_table *").deref_()
    entries = table.member_("entries")
    count = min(int(table.member_("nr_entries")), len(entries))
    found = []
    for number in range(min(count, _MOST_RANGES)):
        entry = entries[number]
        start = int(entry.member_("addr"))
        kind = int(entry.member_("type"))
        found.append(MemoryRange(start, start + int(entry.member_("size")), _E820_TYPES.get(kind, f"type {kind}")))
    return found


def built_configuration(program: Program) -> str:
    """The .config that the kernel was built from, where it has a copy of it (CONFIG_IKCONFIG).

    Raises:
        NotFound: this kernel has none.
        Corrupt: it does not unpack.
    """
    start = program.linux.find_address("kernel_config_data")
    end = program.linux.find_address("kernel_config_data_end")
    if start is None:
        raise NotFound(
            "configuration in the kernel", "CONFIG_IKCONFIG", "the distribution has it as /boot/config-RELEASE"
        )
    size = min(end - start, _LARGEST_CONFIG) if end is not None and end > start else _LARGEST_CONFIG
    try:
        data = program.memory.read(start, size)
    except OrcdbgError:
        data = program.memory.read(start, 64 << 10)
    if data.startswith(_CONFIG_START):
        # Before 5.1 (13610aa908dc) marks stand around it.
        data = data[len(_CONFIG_START) :].partition(_CONFIG_END)[0]
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        return unpack.decompress(data, _LARGEST_CONFIG).decode("utf-8", "backslashreplace")
    except zlib.error as error:
        raise Corrupt(f"the configuration in the kernel does not unpack: {error}") from error
