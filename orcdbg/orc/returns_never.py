"""Which functions of the kernel never return, as far as is known?

It has all names of objtool's lists of 4.14, 4.19, 5.4, 5.15 and 6.6 (tools/objtool/check.c, since 6.4 noreturns.h), and some
that later kernels declare so. mwait_play_dead() is left out: for long it returned where a CPU has no MWAIT.
"""

from __future__ import annotations

NEVER_RETURN = frozenset(
    (
        "__fortify_panic", "__fortify_report", "__ia32_sys_exit", "__ia32_sys_exit_group", "__invalid_creds",
        "__kunit_abort", "__module_put_and_exit", "__module_put_and_kthread_exit", "__reiserfs_panic",
        "__stack_chk_fail", "__tdx_hypercall_failed", "__ubsan_handle_builtin_unreachable", "__x64_sys_exit",
        "__x64_sys_exit_group", "acpi_processor_ffh_play_dead", "arch_call_rest_init", "arch_cpu_idle_dead",
        "bch_btree_panic", "btrfs_assertfail", "complete_and_exit", "cpu_bringup_and_idle", "cpu_die",
        "cpu_startup_entry", "do_exit", "do_group_exit", "do_task_dead", "ex_handler_msr_mce",
        "fortify_panic", "fortify_panic_overflow", "halt_and_catch_fire", "hlt_play_dead",
        "hv_ghcb_terminate", "kthread_complete_and_exit", "kthread_exit", "kunit_try_catch_throw",
        "kvm_spurious_fault", "lbug_with_loc", "machine_real_restart", "make_task_dead", "mpt_halt_firmware",
        "nmi_panic_self_stop", "panic", "panic_smp_self_stop", "play_dead", "rest_init", "resume_play_dead",
        "rewind_stack_and_make_dead", "rewind_stack_do_exit", "rust_begin_unwind", "rust_helper_BUG",
        "sev_es_terminate", "snp_abort", "start_kernel", "start_secondary", "stop_this_cpu", "usercopy_abort",
        "vpanic", "x86_64_start_kernel", "x86_64_start_reservations", "xen_cpu_bringup_again",
        "xen_start_kernel",
    )
)  # fmt: skip
"""Names as compiled, without what the compiler adds to them."""
