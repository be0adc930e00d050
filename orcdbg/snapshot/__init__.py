"""The machine as it was stopped: physical memory, CPU registers, VMCOREINFO, page tables, and where the kernel lay."""
