"""orcdbg: a debugger for stopped Linux kernels that knows which patches the kernel applied to its own text."""

from __future__ import annotations

__version__ = "0.1.0"
