"""What are the CPU's registers called, which does a function keep for its caller, and how does the kernel save them all?"""

from __future__ import annotations

# System V ABI, x86-64: rsp apart, what a function must give back as it was.
CALLEE_SAVED = ("rbx", "rbp", "r12", "r13", "r14", "r15")

# Likewise: what a function's integer arguments come in, in order.
ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")

# struct pt_regs, arch/x86/include/asm/ptrace.h: byte offsets. The order is that of PUSH_AND_CLEAR_REGS
# (arch/x86/entry/calling.h), the last pushed first.
PT_REGS = {
    "r15": 0, "r14": 8, "r13": 16, "r12": 24, "rbp": 32, "rbx": 40, "r11": 48, "r10": 56, "r9": 64, "r8": 72, "rax": 80,
    "rcx": 88, "rdx": 96, "rsi": 104, "rdi": 112, "orig_rax": 120, "rip": 128, "cs": 136, "rflags": 144, "rsp": 152,
    "ss": 160,
}  # fmt: skip
PT_REGS_SIZE = 168

IRET_FRAME = {"rip": 0, "cs": 8, "rflags": 16, "rsp": 24, "ss": 32}
"""What the CPU itself pushes for an interrupt or exception, and `iret` takes: byte offsets. A pt_regs ends with these words."""

IRET_SIZE = 40
