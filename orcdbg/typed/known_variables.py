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
    # kernel/sched/sched.h, kernel/time/, kernel/workqueue.c, kernel/rcu/tree.h, kernel/irq/irqdesc.c; the first ones per CPU.
    # BTF of 5.10 lacks per-CPU variables.
    "runqueues": "struct rq",
    "kstat": "struct kernel_stat",
    "kernel_cpustat": "struct kernel_cpustat",
    "process_counts": "unsigned long",
    "hrtimer_bases": "struct hrtimer_cpu_base",
    "tick_cpu_sched": "struct tick_sched",
    "tick_cpu_device": "struct tick_device",
    "cpu_worker_pools": "struct worker_pool [2]",
    "rcu_data": "struct rcu_data",
    "call_single_queue": "struct llist_head",
    "root_task_group": "struct task_group",
    "rcu_state": "struct rcu_state",
    "softirq_vec": "struct softirq_action [10]",
    "irq_desc_tree": "struct xarray",
    "sparse_irqs": "struct maple_tree",
    "clocksource_list": "struct list_head",
    "curr_clocksource": "struct clocksource *",
    "cgrp_dfl_root": "struct cgroup_root",
    "init_css_set": "struct css_set",
    "init_struct_pid": "struct pid",
    "system_state": "enum system_states",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "__cpu_online_mask": "struct cpumask",
    "__cpu_active_mask": "struct cpumask",
    "iomem_resource": "struct resource",
    "ioport_resource": "struct resource",
    # arch/x86/: per CPU, then one of all
    "irq_stat": "irq_cpustat_t",
    "cpu_tlbstate": "struct tlb_state",
    "cpu_info": "struct cpuinfo_x86",
    "cpu_tss_rw": "struct tss_struct",
    "gdt_page": "struct gdt_page",
    "current_task": "struct task_struct *",
    "boot_cpu_data": "struct cpuinfo_x86",
    "idt_table": "gate_desc [256]",
    # mm/: per CPU, then one of all
    "vm_event_states": "struct vm_event_state",
    "mem_section": "struct mem_section **",
    "nr_node_ids": "unsigned int",
    "max_pfn": "unsigned long",
    "_totalram_pages": "atomic_long_t",
    "vmap_area_root": "struct rb_root",
    "vmap_nodes": "struct vmap_node *",
    "root_mem_cgroup": "struct mem_cgroup *",
    "sysctl_overcommit_memory": "int",
    # fs/, block/, drivers/
    "mount_hashtable": "struct hlist_head *",
    "inode_hashtable": "struct hlist_head *",
    "dentry_hashtable": "struct hlist_bl_head *",
    "blockdev_superblock": "struct super_block *",
    "chrdevs": "struct char_device_struct *[255]",
    "bus_kset": "struct kset *",
    "class_kset": "struct kset *",
    "devices_kset": "struct kset *",
    "module_kset": "struct kset *",
    # net/: per CPU, then one of all
    "softnet_data": "struct softnet_data",
    "tcp_hashinfo": "struct inet_hashinfo",
    "udp_table": "struct udp_table",
    "rtnl_mutex": "struct mutex",
    "ptype_base": "struct list_head [16]",
    # kernel/printk/
    "prb": "struct printk_ringbuffer *",
    "log_buf": "char *",
    "log_buf_len": "u32",
    "console_drivers": "struct console *",
    # panic
    "panic_cpu": "atomic_t",
    "panic_on_oops": "int",
    "panic_timeout": "int",
    "tainted_mask": "unsigned long",
    "oops_in_progress": "int",
}
