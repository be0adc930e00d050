"""Which audit messages had the kernel not handed to a reader yet?

Mirrors kernel/audit.c: three queues of socket buffers, each of which holds a netlink message with the text of a record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from orcdbg.base.errors import Corrupt, MemoryFault, NotFound
from orcdbg.base.sizes import U64
from orcdbg.base.walks import Budget
from orcdbg.kernel.linux import Linux

# audit_backlog_limit is 64 by default, some thousands where somebody raised it.
MAX_MESSAGES, MAX_TEXT = 1 << 16, 16 << 20
_HEADER = struct.Struct("<IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_LONGEST = 16 << 10  # MAX_AUDIT_MESSAGE_LENGTH is 8970
_QUEUES = ("audit_queue", "audit_retry_queue", "audit_hold_queue")


class AuditMessage(NamedTuple):
    """A message: which queue holds it, the type of linux/audit.h, and the text; that is not safe for a terminal."""

    queue: str
    type: int
    text: str


def read_audit(linux: Linux) -> tuple[list[AuditMessage], list[str]]:
    """The messages queue by queue, oldest first, and what could not be read of them.

    Raises:
        NotFound: the kernel has no such queues.
    """
    budget = Budget(MAX_MESSAGES, MAX_TEXT)
    heads = [(name, address) for name in _QUEUES if (address := linux.find_address(name)) is not None]
    if not heads:
        raise NotFound("audit queue", _QUEUES[0], "the kernel was built without CONFIG_AUDIT")

    messages: list[AuditMessage] = []
    for name, head in heads:
        for buffer in _buffers(linux, head, name, budget):
            try:
                messages.append(_message(linux, buffer, name, budget))
            except (Corrupt, MemoryFault) as error:
                budget.note_error(f"a message of {name}", buffer, error)
    return messages, budget.lines()


def _buffers(linux: Linux, head: int, name: str, budget: Budget) -> Iterator[int]:
    """The socket buffers of a `struct sk_buff_head`, whose first members are those of a list_head."""
    try:
        first = linux.member("sk_buff_head", "next", head)
    except MemoryFault as error:
        budget.note_error(name, head, error)
        return
    yield from linux.chain(first, budget, name, ends=(head,))


def _message(linux: Linux, buffer: int, queue: str, budget: Budget) -> AuditMessage:
    length, data = linux.member("sk_buff", "len", buffer), linux.member("sk_buff", "data", buffer)
    if not _HEADER.size <= length <= _LONGEST:
        raise Corrupt(f"a message of {queue} claims {length} bytes")
    whole = budget.read(linux.memory, data & U64, length, f"messages of {queue}")
    size, type_, *_ = _HEADER.unpack_from(whole)
    # audit_log_end() writes the length behind the header before 4.x and the whole later; the buffer's own length bounds both.
    text = whole[_HEADER.size : max(min(size, length), _HEADER.size) if size > _HEADER.size else length]
    return AuditMessage(queue, type_, text.rstrip(b"\0").decode("utf-8", "backslashreplace"))
