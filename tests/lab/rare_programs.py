"""Small programs that come into the kernel by rare ways, again and again: each is what `as` makes of the lines above it."""

from __future__ import annotations

from tests.lab.program import HEADERS, executable, executable_32

# 1: mov $20,%eax; int $0x80; jmp 1b: getpid by a 32-bit call, from either kind of program.
_INT80 = bytes.fromhex("b814000000 cd80 ebf7")
# getpid by the vDSO's entry, which is in the auxiliary vector: sysenter or syscall, or int $0x80 where the CPU has neither.
LOOP_BY_VDSO = bytes.fromhex("89e6 ad 8d748604 ad 85c0 75fb ad 89c2 ad 83fa20 75f7 89c7 b814000000 ffd7 ebf7")
# A handler for SIGTRAP; then, again and again, with TF set: nop; getpid; nop. Each of them raises #DB.
_TRAPS = bytes.fromhex(
    "488d0554000000 48890555000000 488d0547000000 48890557000000"
    "b80d000000 bf05000000 488d3536000000 31d2 41ba08000000 0f05"
    "9c 810c2400010000 9d 90 b827000000 0f05 90 9c 812424fffeffff 9d b818000000 0f05 ebdc"
    "c3 b80f000000 0f05 0000000000000000 0000000400000000 0000000000000000 0000000000000000"
)
# sigreturn to a code segment that does not exist: the kernel's iret raises #GP, and the program dies.
_BAD_IRET = bytes.fromhex(
    "bc00184000 48c7042406000000 4889a424a0000000 4889a424a8000000 48c78424b000000002020000"
    "66c78424b80000000310 66c78424be0000002b00 b80f000000 0f05"
)
# 1: call f; sched_yield; jmp 1b; f: push %rbp; getpid; pop %rbp; ret
_CALLS = bytes.fromhex("e809000000 b818000000 0f05 ebf2 55 b827000000 0f05 5d c3")
# io_uring_setup(1, {.flags = IORING_SETUP_SQPOLL}), which starts a worker; then pause.
WORKER = bytes.fromhex("be00104000 c7460802000000 bf01000000 b8a9010000 0f05 b822000000 0f05 ebf7")

PROGRAMS = {
    "p_int80": executable(_INT80),
    "p_int80_32": executable_32(_INT80),
    "p_vdso_32": executable_32(LOOP_BY_VDSO),
    "p_traps": executable(_TRAPS),
    "p_bad_iret": executable(_BAD_IRET),
    "p_calls": executable(_CALLS),
    "p_worker": executable(WORKER),
}
# Where the function that `p_calls` calls is in its file.
CALLED_OFFSET = HEADERS + 14
