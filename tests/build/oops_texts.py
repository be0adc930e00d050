"""Printed reports of the kernel, made up for tests: of several generations, plain and as people paste them."""

from __future__ import annotations

# 6.12: `Oops: `, UID, trace with marks, module, `Kernel Offset`.
NULL_612 = """\
[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000010
[   12.345679] #PF: supervisor read access in kernel mode
[   12.345680] #PF: error_code(0x0000) - not-present page
[   12.345681] PGD 0 P4D 0
[   12.345682] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
[   12.345683] CPU: 3 UID: 1000 PID: 4242 Comm: grinder Tainted: G        W  O       6.12.9-made-up #7 PREEMPT(voluntary)
[   12.345684] Tainted: [W]=WARN, [O]=OOT_MODULE
[   12.345685] Hardware name: Imaginary Machines Model 5, BIOS 0.0 02/30/2025
[   12.345686] RIP: 0010:mill_turn+0x1b/0x60 [mill]
[   12.345687] Code: 90 90 f3 0f 1e fa 0f 1f 44 00 00 53 48 89 fb <48> 8b 43 10 5b c3
[   12.345688] RSP: 0018:ffffc90000d3fd58 EFLAGS: 00010246
[   12.345689] RAX: 0000000000000000 RBX: 0000000000000000 RCX: 0000000000000003
[   12.345690] RDX: 0000000000000001 RSI: 0000000000000001 RDI: ffffffffc0a03200
[   12.345691] FS:  00007f0000000740(0000) GS:ffff88803ed80000(0000) knlGS:0000000000000000
[   12.345692] CS:  0010 DS: 0000 ES: 0000 CR0: 0000000080050033
[   12.345693] CR2: 0000000000000010 CR3: 0000000104aa2000 CR4: 0000000000750ef0
[   12.345694] Call Trace:
[   12.345695]  <TASK>
[   12.345696]  ? __die+0x1f/0x70
[   12.345697]  ? page_fault_oops+0x15c/0x2a0
[   12.345698]  ? asm_exc_page_fault+0x26/0x30
[   12.345699]  ? mill_turn+0x1b/0x60 [mill]
[   12.345700]  mill_grind.constprop.0+0x26/0x50 [mill]
[   12.345701]  ? __pfx_mill_grind+0x10/0x10 [mill]
[   12.345702]  vfs_write+0xf5/0x460
[   12.345703]  ksys_write+0x6d/0xf0
[   12.345704]  do_syscall_64+0x82/0x190
[   12.345705]  entry_SYSCALL_64_after_hwframe+0x76/0x7e
[   12.345706] RIP: 0033:0x7f00deadbeef
[   12.345707] RSP: 002b:00007ffd0000aaaa EFLAGS: 00000202 ORIG_RAX: 0000000000000001
[   12.345708]  </TASK>
[   12.345709] Modules linked in: mill(OE) loop veth bridge
[   12.345710] CR2: 0000000000000010
[   12.345711] ---[ end trace 0000000000000000 ]---
[   12.345712] Kernel panic - not syncing: Fatal exception
[   12.345713] Kernel Offset: 0x1c000000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)
"""
NULL_SIGNATURE = "null-pointer mill_turn [mill] < mill_grind [mill] < vfs_write < ksys_write"

# 4.4: addresses in the lines, no `address:`, RIP twice in its own line.
PAGING_44 = """\
BUG: unable to handle kernel paging request at ffff8800deadb000
IP: [<ffffffff8120aa10>] sieve_shake+0x10/0x40
PGD 1ff5067 PUD 0
Oops: 0002 [#1] SMP
Modules linked in: sieve(O) ext4 mbcache jbd2
CPU: 1 PID: 77 Comm: shaker Tainted: G           O    4.4.200-made-up #3
Hardware name: Imaginary Machines Model 1
task: ffff880036d0e040 ti: ffff880036d10000 task.ti: ffff880036d10000
RIP: 0010:[<ffffffff8120aa10>]  [<ffffffff8120aa10>] sieve_shake+0x10/0x40
RSP: 0018:ffff880036d13e38  EFLAGS: 00010282
RAX: ffff8800deadb000 RBX: ffff880036d13f18 RCX: 0000000000000000
Call Trace:
 [<ffffffff8120ab00>] ? sieve_open+0x40/0x40
 [<ffffffff8120ac25>] sieve_write+0x25/0x80
 [<ffffffff811fd0e8>] vfs_write+0xb8/0x1a0
 [<ffffffff81780a6e>] entry_SYSCALL_64_fastpath+0x12/0x71
Code: 55 48 89 e5 <c6> 00 01 5d c3
RIP  [<ffffffff8120aa10>] sieve_shake+0x10/0x40
---[ end trace 3f2d4a5b6c7d8e9f ]---
"""

SOFT_LOCKUP_61 = """\
[  100.000001] watchdog: BUG: soft lockup - CPU#2 stuck for 23s! [spinner:911]
[  100.000002] Modules linked in: hub(O)
[  100.000003] CPU: 2 PID: 911 Comm: spinner Tainted: G           O       6.1.50-made-up #1
[  100.000004] RIP: 0010:hub_spin+0x12/0x30 [hub]
[  100.000005] Code: f3 0f 1e fa f3 90 <eb> fc
[  100.000006] RSP: 0018:ffffc900001bbe50 EFLAGS: 00000246
[  100.000007] Call Trace:
[  100.000008]  <IRQ>
[  100.000009]  ? watchdog_timer_fn+0x1a4/0x210
[  100.000010]  ? asm_sysvec_apic_timer_interrupt+0x16/0x20
[  100.000011]  </IRQ>
[  100.000012]  <TASK>
[  100.000013]  hub_ioctl+0x40/0x90 [hub]
[  100.000014]  __x64_sys_ioctl+0x8d/0xd0
[  100.000015]  do_syscall_64+0x5b/0xc0
[  100.000016]  </TASK>
"""

HUNG_515 = """\
INFO: task fetcher:1203 blocked for more than 120 seconds.
      Not tainted 5.15.99-made-up #1
"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.
task:fetcher         state:D stack:    0 pid: 1203 ppid:     1 flags:0x00004000
Call Trace:
 <TASK>
 __schedule+0x2cd/0x890
 schedule+0x4e/0xb0
 well_wait+0x55/0x70 [well]
 well_read+0x1a/0x40 [well]
 vfs_read+0x9a/0x190
 </TASK>
"""

PANIC_419 = """\
[    3.000001] Kernel panic - not syncing: mill: no grain
[    3.000002] CPU: 0 PID: 1 Comm: init Not tainted 4.19.200-made-up #1
[    3.000003] Call Trace:
[    3.000004]  dump_stack+0x5c/0x80
[    3.000005]  panic+0xe7/0x247
[    3.000006]  mill_check+0x15/0x20
[    3.000007]  mill_start+0x33/0x70
[    3.000008]  do_one_initcall+0x46/0x1c3
[    3.000009]  kernel_init+0xa/0x10a
[    3.000010]  ret_from_fork+0x35/0x40
"""

WARNING_66 = """\
------------[ cut here ]------------
refcount_t: underflow; use-after-free.
WARNING: CPU: 1 PID: 55 at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110
Modules linked in:
CPU: 1 PID: 55 Comm: counter Not tainted 6.6.1-made-up #1
RIP: 0010:refcount_warn_saturate+0xba/0x110
Code: 01 e8 aa bb cc dd <0f> 0b c3
RSP: 0018:ffffc90000123e00 EFLAGS: 00010286
Call Trace:
 <TASK>
 pool_put+0x20/0x30
 pool_drop+0x31/0x60
 </TASK>
---[ end trace 0000000000000000 ]---
"""


def as_mailed(text: str, width: int = 76) -> str:
    """As a mail has it: quoted, and broken at blanks where a line is longer than `width`."""
    lines: list[str] = []
    for line in text.splitlines():
        while len(line) > width and " " in line[20:width]:
            at = line.rfind(" ", 20, width)
            lines.append(line[:at])
            line = line[at + 1 :]
        lines.append(line)
    return "".join(f"> {line}\n" for line in lines)


def without_times(text: str) -> str:
    """As a serial console without printk.time has it."""
    return "".join(
        line.partition("] ")[2] + "\n" if line.startswith("[") else line + "\n" for line in text.splitlines()
    )
