"""Which instructions does the emulator not run, and why?

What an instruction does must follow from memory and from the registers that a snapshot has. Anything else stops, with a
word. `cli` and `sti` are run: they only set a flag, and no interrupt ever comes.
"""

from __future__ import annotations

import re

from orcdbg.x86.instructions import Instruction

_PRIVILEGED = "privileged: it changes or reads a state of the CPU that is not emulated"
_PORTS = "I/O: no device answers"
_CHANCE = "its result depends on the machine it runs on"
_TRAP = "it enters the kernel's exception code"
_MODE = "it enters or leaves the kernel"
_VECTOR = "floating point and vector registers are not in the snapshot"
_SEGMENT = "segment registers and descriptor tables are not emulated"
_WHY = {
    "hlt": "it waits for an interrupt",
    "xgetbv": _PRIVILEGED,
    "clzero": "the emulator lacks it",
    **dict.fromkeys(("wrmsr", "rdmsr", "wrmsrns", "clts", "lmsw", "smsw", "invlpg", "invpcid"), _PRIVILEGED),
    **dict.fromkeys(("wbinvd", "wbnoinvd", "invd", "invlpga", "invlpgb", "tlbsync", "xsetbv", "rsm"), _PRIVILEGED),
    **dict.fromkeys(("rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase", "rdpkru", "wrpkru", "serialize"), _PRIVILEGED),
    **dict.fromkeys(("monitor", "mwait", "monitorx", "mwaitx", "umonitor", "umwait", "tpause"), _PRIVILEGED),
    **dict.fromkeys(("getsec", "stgi", "clgi", "skinit", "encls", "enclu", "pconfig", "swapgs"), _PRIVILEGED),
    **dict.fromkeys(("in", "out", "ins", "outs"), _PORTS),
    **dict.fromkeys(("rdtsc", "rdtscp", "rdpmc", "rdpid", "cpuid", "xbegin", "xend", "xabort", "xtest"), _CHANCE),
    **dict.fromkeys(("int3", "int", "into", "int1", "icebp", "ud0", "ud1", "ud2", "ud2b", "bound"), _TRAP),
    **dict.fromkeys(("iret", "syscall", "sysenter", "sysexit"), _MODE),
    **dict.fromkeys(("sysret", "erets", "eretu", "ljmp", "lcall", "lret", "retf"), _MODE),
    **dict.fromkeys(("lgdt", "lidt", "lldt", "ltr", "sgdt", "sidt", "sldt", "str", "verr", "verw"), _SEGMENT),
    **dict.fromkeys(("lar", "lsl", "lss", "lfs", "lgs", "lds", "les"), _SEGMENT),
    **dict.fromkeys(("ldmxcsr", "stmxcsr", "emms"), _VECTOR),
}
# Families, by how their names begin. No integer instruction of x86-64 begins with `f` or `v`, but verr and verw.
_FAMILIES = (
    (re.compile(r"vm(call|mcall|launch|resume|xon|xoff|read|write|clear|ptr|func|run|load|save|gexit)"), _PRIVILEGED),
    (re.compile(r"(xsave|xrstor|f|v)"), _VECTOR),
    (re.compile(r"rd(rand|seed)"), _CHANCE),
    (re.compile(r"(rdssp|incssp|saveprevssp|rstorssp|wrss|wruss|setssbsy|clrssbsy)"), _PRIVILEGED),
    (re.compile(r"\("), "it is no instruction that is known here"),
)
_SIZES = "bwlq"  # AT&T suffixes of operand sizes
# A register operand; `%gs:0x28` is memory and is fine.
_CONTROL = re.compile(r"%(?:cr|dr)\d")
_SEGMENTS = re.compile(r"%[c-gs]s(?![:\w])")
_VECTORS = re.compile(r"%(?:[xyz]?mm\d|st\b|k\d)")


def refusal(insn: Instruction) -> str | None:
    """Why an instruction is not run, or None where it is."""
    name = insn.mnemonic.split()[-1] if insn.mnemonic else "("
    known = _WHY.get(name) or (_WHY.get(name[:-1]) if name[-1] in _SIZES else None)
    if known is not None:
        return known
    for pattern, why in _FAMILIES:
        if pattern.match(name):
            return why
    if "%" not in insn.operands:
        return None
    if _CONTROL.search(insn.operands):
        return _PRIVILEGED
    if _VECTORS.search(insn.operands):
        return _VECTOR
    return _SEGMENT if _SEGMENTS.search(insn.operands) else None
