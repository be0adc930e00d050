"""Which types do the kernel's headers give to variables that people ask for?

Used where neither BTF nor debugging information tells: BTF of most kernels describes per-CPU variables alone. Each is declared
with this type in every kernel from 4.14 on that has it; a type that a kernel has not is not used.
"""

from __future__ import annotations

from collections.abc import Mapping

KNOWN_VARIABLES: Mapping[str, str] = {
    # init/, include/linux/sched/task.h, mm_types.h, nsproxy.h, cred.h, uts_namespace.h, net/net_namespace.h
    "init_task": "struct task_struct",
    "init_mm": "struct mm_struct",
    "init_pid_ns": "struct pid_namespace",
    "init_nsproxy": "struct nsproxy",
    "init_cred": "struct cred",
    "init_uts_ns": "struct uts_namespace",
    "init_user_ns": "struct user_namespace",
    "init_net": "struct net",
    "init_fs": "struct fs_struct",
    "init_files": "struct files_struct",
    "saved_command_line": "char *",
    # include/linux/jiffies.h, timekeeping.h
    "jiffies": "unsigned long",
    "jiffies_64": "u64",
    # kernel/module/internal.h and others: heads of lists
    "modules": "struct list_head",
    "super_blocks": "struct list_head",
    "slab_caches": "struct list_head",
    "net_namespace_list": "struct list_head",
    "workqueues": "struct list_head",
    "vmap_area_list": "struct list_head",
    # kernel/fork.c, sched/
    "nr_threads": "int",
    "total_forks": "unsigned long",
    "max_threads": "int",
    "tasklist_lock": "rwlock_t",
    "nr_cpu_ids": "unsigned int",
    "avenrun": "unsigned long [3]",
    # panic
    "panic_on_oops": "int",
    "panic_timeout": "int",
    "tainted_mask": "unsigned long",
    "oops_in_progress": "int",
}
