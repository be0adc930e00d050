"""Was a freed object used, freed again, or written over by its neighbour?

An object is free where a list of free objects has it now. That it was so when it was used follows only if nobody freed it
since, which is why nothing here is a FACT; who freed it is not known without a track of slub_debug.
"""

from __future__ import annotations

from collections.abc import Iterator

from orcdbg.analysis.case import Case, Input
from orcdbg.analysis.crash_site import Route, Vector, name_of
from orcdbg.analysis.detector import Detector
from orcdbg.analysis.detectors.lists import nodes_named
from orcdbg.analysis.findings import Exhibit, Finding, FindingKind, derived, hypothesis
from orcdbg.analysis.pointers import Involved, involved_pointers
from orcdbg.base.errors import MemoryFault, OrcdbgError
from orcdbg.subsystems.slab import ObjectPart, ObjectState, SlabObject

# The allocator's own functions have free objects in hand all the time.
_ALLOCATOR = (
    "kmem_cache_",
    "kfree",
    "__kfree",
    "kmalloc",
    "__kmalloc",
    "__slab_",
    "___slab_",
    "slab_",
    "set_freepointer",
)
_OTHERS_OF_ALLOCATOR = (
    "get_freepointer",
    "free_to_partial_list",
    "free_debug_processing",
    "___cache_free",
    "__free_slab",
)
_LONGEST_RUN = 4096


def _is_oops(case: Case) -> bool:
    return case.has_fault and case.site.route in (Route.OOPS, Route.WARNING)


def _is_in_allocator(case: Case) -> bool:
    name = name_of(case.fault.frame) or ""
    return name.startswith((*_ALLOCATOR, *_OTHERS_OF_ALLOCATOR))


def _uses_objects(case: Case) -> bool:
    return _is_oops(case) and not _is_in_allocator(case)


def _freed(case: Case) -> Iterator[Finding]:
    pointers = [*involved_pointers(case), *(Involved("list node", node) for node in nodes_named(case))]
    for pointer in pointers:
        obj = case.slab_object(pointer.value)
        if obj is None or obj.state is not ObjectState.FREE or obj.part is not ObjectPart.OBJECT:
            continue
        # Such a cache lets its readers look at freed objects until a grace period ends.
        if "TYPESAFE_BY_RCU" in obj.cache.debug:
            continue
        yield derived(
            FindingKind.USE_AFTER_FREE,
            Exhibit(f"{pointer.role} = {pointer.value:#x}", f"whatis {pointer.value:#x}"),
            Exhibit(f"object {obj.start:#x} of {obj.cache.name}: {obj.proof.value}", f"kmem {obj.start:#x}"),
            addresses=[obj.start, pointer.value],
            **_names(case, obj, pointer),
        )
        return


def _names(case: Case, obj: SlabObject, pointer: Involved) -> dict[str, str | int]:
    return {
        "role": pointer.role,
        "object": f"{obj.start:#x}",
        "cache": obj.cache.name,
        "offset": obj.offset,
        "proof": obj.proof.value,
        "place": case.name(case.fault.ip),
    }


def _frees(case: Case) -> bool:
    if not _is_oops(case) or case.fault.exception is not Vector.INVALID_OPCODE:
        return False
    return _is_in_allocator(case)


def _freed_again(case: Case) -> Iterator[Finding]:
    """A register of the freeing function's BUG() has the start of an object that is free already."""
    for register in ("rsi", "rbx", "rax", "rdi", "rbp", "r12", "r13", "r14", "r15"):
        value = case.fault.registers.get(register, 0)
        obj = case.slab_object(value) if value >> 63 else None
        if obj is None or obj.state is not ObjectState.FREE or value != obj.start:
            continue
        yield derived(
            FindingKind.DOUBLE_FREE,
            Exhibit(f"{register} = {value:#x}", f"whatis {value:#x}"),
            Exhibit(f"object {obj.start:#x} of {obj.cache.name}: {obj.proof.value}", f"kmem {obj.start:#x}"),
            addresses=[obj.start],
            **_names(case, obj, Involved(register, value)),
        )
        return


def _overrun(case: Case) -> Iterator[Finding]:
    """The bad pointer is of one byte again and again, and these bytes begin in the object before its own."""
    try:
        loads = case.instruction.loads
    except OrcdbgError:
        return
    for load in loads.values():
        obj, data = case.slab_object(load.place), (load.now or 0).to_bytes(8, "little")
        if obj is None or obj.number is None or data != data[:1] * 8 or data == bytes(8):
            continue
        begin = _run_before(case, load.place, data[0])
        if begin < obj.start and obj.number > 0:
            yield hypothesis(
                FindingKind.OVERRUN,
                Exhibit(f"{begin:#x} to {load.place + 8:#x}: {data[0]:02x}", f"rd {begin:#x} 8"),
                addresses=[obj.start, begin],
                object=f"{obj.start:#x}",
                cache=obj.cache.name,
                byte=f"{data[0]:02x}",
                begin=f"{begin:#x}",
            )


def _run_before(case: Case, place: int, byte: int) -> int:
    """Where the run of equal bytes that holds `place` begins."""
    try:
        before = case.session.memory.read(place - _LONGEST_RUN, _LONGEST_RUN)
    except MemoryFault:
        return place
    return place - (len(before) - len(before.rstrip(bytes([byte]))))


_INPUTS = (Input.STACK, Input.REGISTERS, Input.SLABS)
USE_AFTER_FREE = Detector("use after free", _INPUTS, _uses_objects, _freed)
DOUBLE_FREE = Detector("double free", _INPUTS, _frees, _freed_again)
OVERRUN = Detector("an overrun", _INPUTS, _uses_objects, _overrun)
