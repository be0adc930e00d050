"""Where is the user memory of this task?"""

from __future__ import annotations

from orcdbg.base.errors import NotFound
from orcdbg.commands.debugger import Debugger
from orcdbg.kernel.tasks import Task
from orcdbg.snapshot.pagetables import KernelMemory


def user_memory(debugger: Debugger, task: Task) -> KernelMemory:
    """A task's memory by its own page tables.

    Raises:
        NotFound: it has none: a kernel thread, or a task that ended.
        MemoryFault: its page tables cannot be found.
    """
    session = debugger.session
    space = session.object("task_struct", task.address).member_("mm")
    if not int(space):
        raise NotFound("user address space", f"that of task {task.pid}")
    root = session.memory.translate(int(space.member_("pgd")))
    return KernelMemory(session.snapshot.physical, root, session.memory.levels, session.memory.encryption_mask)
