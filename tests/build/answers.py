"""Answers made by code: a result of any type with something in each of its fields, whatever a snapshot may lack."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from orcdbg.commands.dev import Devices, Disks
from orcdbg.commands.files import FilePages, Files
from orcdbg.commands.irq import Gates, Interrupts, Softirqs
from orcdbg.commands.list import ListNodes
from orcdbg.commands.locks import LockStates
from orcdbg.commands.mach import Machine, MemoryMapOfMachine
from orcdbg.commands.mount import MountFiles, MountInodes, Mounts
from orcdbg.commands.net import Neighbours, Network, Sockets
from orcdbg.commands.ps import LastRuns, TaskArguments, TaskLimits, TaskLines, TaskSummary, TaskTimes
from orcdbg.commands.runq import RunQueues
from orcdbg.commands.sig import SignalTable
from orcdbg.commands.sys import MachineIdentity, SyscallTable, Taints
from orcdbg.commands.task import TaskStructures
from orcdbg.commands.timer import HighResolutionTimers, Timers
from orcdbg.commands.tree import TreeEntries
from orcdbg.commands.vm import Memory, MemoryStructures
from orcdbg.commands.vtop import TaskMappings
from orcdbg.commands.waitq import WaitQueue
from orcdbg.commands.waits import Waits
from orcdbg.commands.workqueue import Workqueues
from orcdbg.typed.values import Scalar, ScalarKind

# Answers that the sample, whose memory is cut down to what stacks need, has little or nothing of.
RESULTS = (
    *(
        Devices,
        Disks,
        FilePages,
        Files,
        Gates,
        HighResolutionTimers,
        Interrupts,
        LastRuns,
        ListNodes,
        Machine,
        MachineIdentity,
    ),
    *(
        Memory,
        MemoryMapOfMachine,
        MemoryStructures,
        MountFiles,
        MountInodes,
        Mounts,
        Neighbours,
        Network,
        RunQueues,
        SignalTable,
        Sockets,
        Softirqs,
    ),
    *(
        SyscallTable,
        Taints,
        TaskArguments,
        TaskLimits,
        TaskLines,
        TaskStructures,
        TaskSummary,
        TaskTimes,
        Timers,
        TreeEntries,
    ),
    *(LockStates, TaskMappings, WaitQueue, Waits, Workqueues),
)

ADDRESS = 0xFFFF_8880_0501_0000


def made(type_: Any) -> Any:
    """A value of a type: records with all their fields, lists of one element."""
    origin, parts = typing.get_origin(type_), typing.get_args(type_)
    if origin in (types.UnionType, typing.Union):
        if Scalar in parts:
            return Scalar(ScalarKind.INT, 1)
        return made(next(part for part in parts if part is not type(None)))
    if origin is tuple:
        return (made(parts[0]),) if parts[-1] is Ellipsis else tuple(made(part) for part in parts)
    if origin in (list, Sequence):
        return [made(parts[0])]
    if origin in (dict, Mapping):
        return {made(parts[0]): made(parts[1])}
    if origin is frozenset:
        return frozenset([made(parts[0])])
    if isinstance(type_, type) and dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_)
        return type_(**{field.name: made(hints[field.name]) for field in dataclasses.fields(type_)})
    if isinstance(type_, type) and issubclass(type_, tuple):
        return type_(*(made(hint) for hint in typing.get_type_hints(type_).values()))  # a NamedTuple
    if isinstance(type_, type) and issubclass(type_, enum.Enum):
        return next(iter(type_))
    return {bool: True, int: ADDRESS, float: 1.5, str: "a word", object: None}[type_]
