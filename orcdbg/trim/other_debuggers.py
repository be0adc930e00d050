"""What do crash and drgn read of a snapshot before they look at any stack?

Found by running them on trimmed snapshots; a name that a kernel does not have is passed over.
"""

from __future__ import annotations

# Variables. crash's kernel_init(), task_init() and vm_init() read most of them, drgn's Linux helpers the rest.
VARIABLES = (
    # Which kernel this is.
    "linux_banner",
    "init_uts_ns",
    "saved_command_line",
    "system_state",
    "tainted_mask",
    "kallsyms_num_syms",
    # CPUs.
    "__per_cpu_offset",
    "__per_cpu_start",
    "__per_cpu_end",
    "__cpu_possible_mask",
    "__cpu_present_mask",
    "__cpu_online_mask",
    "__cpu_active_mask",
    "nr_cpu_ids",
    "cpu_info",
    "boot_cpu_data",
    "idt_table",
    "nr_irqs",
    # Tasks and modules.
    "init_task",
    "init_thread_union",
    "init_pid_ns",
    "pid_hash",
    "nr_threads",
    "arch_task_struct_size",
    "task_state_array",
    "modules",
    # Time.
    "jiffies",
    "jiffies_64",
    "xtime",
    "tk_core",
    "shadow_timekeeper",
    # How it crashed.
    "crashing_cpu",
    "panic_cpu",
    "panic_on_oops",
    "crash_notes",
    "kexec_crash_image",
    # Where memory is.
    "phys_base",
    "page_offset_base",
    "vmalloc_base",
    "vmemmap_base",
    "high_memory",
    "pgdir_shift",
    "ptrs_per_p4d",
    "__pgtable_l5_enabled",
    "init_top_pgt",
    "mem_section",
    "memory_block_size_probed",
    "node_data",
    "node_states",
    "contig_page_data",
    "pageflag_names",
    "nr_swapfiles",
    "slab_caches",
    "kmem_cache",
    # The log, whose rings `log_ranges` has.
    "log_buf",
    "log_buf_len",
    # Under a hypervisor.
    "xen_start_info",
    "pv_info",
    # The table by which the kernel finds ORC rows.
    "lookup_num_blocks",
)

# Functions that crash disassembles while it opens a snapshot.
DISASSEMBLED = (
    "common_interrupt",
    "asm_common_interrupt",
    "schedule",
    "__schedule",
    "do_nanosleep",
    "vfs_read",
    "do_futex",
    "__x64_sys_open",
    "__do_sys_fork",
    "__x64_sys_read",
    "__switch_to",
    "__switch_to_asm",
    "ret_from_fork",
    "ret_from_fork_asm",
    "entry_SYSCALL_64",
)

# Bytes that crash reads of every string, the banner among them, whatever their lengths are (its BUFSIZE).
STRING_READ = 1500
# The gdb inside crash fetches text by lines of so many bytes, from an address that is a multiple of them (its dcache).
TEXT_LINE = 64
