"""How does the description of an address look?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from orcdbg.commands.kmem import AddressFindings
from orcdbg.subsystems.address_map import Region
from orcdbg.subsystems.page_owner import PageOwner
from orcdbg.subsystems.pages import PageFrame, PageUse
from orcdbg.subsystems.slab import ObjectPart, ObjectState, Proof, SlabObject, SlabPlace
from orcdbg.subsystems.slab_debug import Damage, SlabDebug, Track
from orcdbg.subsystems.user_memory import UserPage
from orcdbg.subsystems.vmalloc import VmallocArea
from orcdbg.target import address_findings as findings
from orcdbg.views.page import Line, line
from orcdbg.views.view import Json, Width, hexadecimal, view


def _lines(result: AddressFindings, width: Width) -> Iterator[Line]:
    for number, (address, found) in enumerate(result.addresses):
        if number:
            yield line("")
        yield line((f"{address:016x}", "header"))
        for finding in found:
            yield from _TEXT[type(finding)](finding)


def _region(finding: findings.RegionFinding) -> Iterator[Line]:
    translation = finding.translation
    if translation.physical is not None:
        yield line(
            f"  {_REGIONS[finding.region]}; physical {translation.physical:x}, in a page of {translation.size // 1024} KiB"
        )
    else:
        yield line(f"  {_REGIONS[finding.region]}; ", ("nothing is mapped there", "doubt"), f": {translation.why}")


_REGIONS = {
    Region.USER: "user space",
    Region.DIRECT_MAP: "direct map of all memory",
    Region.VMALLOC: "vmalloc space",
    Region.VMEMMAP: "array of all struct page",
    Region.CPU_ENTRY_AREA: "entry areas of the CPUs",
    Region.ESPFIX: "stacks of espfix",
    Region.EFI: "EFI run-time services",
    Region.IMAGE: "kernel image",
    Region.MODULES: "module space",
    Region.FIXMAP: "fixmap",
    Region.HOLE: "no area of the address space",
}


def _symbol(finding: findings.SymbolFinding) -> Iterator[Line]:
    where = [f"section {finding.section}"] if finding.section is not None else []
    if finding.module is not None:
        where.append(f"module {finding.module.name}")
    location = finding.location
    if location is None:
        yield line(f"  {' of '.join(where)}")
        return
    kind = "code" if location.is_text else "data"
    name = f"{location.symbol}+{finding.offset:#x}/{location.size:#x}"
    yield line(f"  {kind}: ", (name, "symbol"), f" ({' of '.join(where)})" if where else "")


def _patch(finding: findings.PatchFinding) -> Iterator[Line]:
    site = finding.site
    yield line(
        f"  patched: {site.mechanism} {site.name} at {site.address:016x}, {site.size} bytes; decided by: {site.decided_by}"
    )


def _slab(finding: findings.SlabFinding) -> Iterator[Line]:
    found = finding.slab
    cache, slab = found.cache, found.slab
    if found.number is None:
        yield line("  slab of ", (cache.name, "symbol"), ": behind its last object")
    else:
        style = "doubt" if found.state is ObjectState.UNKNOWN else "symbol"
        yield line(
            "  slab object ",
            (found.state.value, style),
            ": ",
            (cache.name, "symbol"),
            f" #{found.number} at {found.start:016x}, offset {_signed(found.offset)} of {cache.object_size:#x}",
        )
        if found.part is not ObjectPart.OBJECT:
            yield line("    the address is in its ", (found.part.value, "doubt"))
        yield line(f"    {_PROOFS[found.proof]}", f" (CPU {found.proof_cpu})" if found.proof_cpu is not None else "")
    for problem in found.problems:
        yield line(("    ! ", "doubt"), problem)
    place = f"{found.place.value}" + (f" (CPU {found.place_cpu})" if found.place_cpu is not None else "")
    yield line(
        f"    slab {slab.page:016x}: memory {slab.start:016x}, {slab.objects} objects of {cache.size} bytes,"
        f" {slab.in_use} counted as in use; {place}"
    )
    if cache.is_merged:
        names = ", ".join(finding.also) if finding.also else "the kernel keeps no list of their names"
        yield line(f"    the cache serves {cache.users} users, whose objects are mixed: {names}")
    if finding.guess is not None:
        member = f".{finding.member}" if finding.member is not None else ""
        yield line(("    guess: ", "label"), f"struct {finding.guess}{member}, by the name of the cache")
    if finding.debug is not None:
        yield from _debug(finding.debug, finding.symbols)


def _signed(offset: int) -> str:
    return f"{offset:#x}" if offset >= 0 else f"-{-offset:#x}"


_PROOFS = {proof: proof.value for proof in Proof} | {
    Proof.ON_NO_LIST: "on no list of free objects: its slab's, the CPUs' and the nodes' were all read",
    Proof.LIST_BROKEN: "whether it is free cannot be told, since a list of free objects is broken",
}


def _debug(debug: SlabDebug, symbols: Mapping[int, str]) -> Iterator[Line]:
    for damage in debug.damage:
        yield line(
            ("    ! ", "doubt"),
            f"{damage.what} overwritten at {damage.address:016x}: {damage.found.hex(' ')} in place of {damage.expected:02x}",
        )
    for word, track in (("allocated", debug.allocation), ("freed", debug.free)):
        if track is not None:
            yield from _track(word, track, symbols)


def _track(word: str, track: Track, symbols: Mapping[int, str]) -> Iterator[Line]:
    name = symbols.get(track.caller, "?")
    yield line(
        f"    {word} by ",
        (name, "symbol"),
        f" at {track.caller:016x}, pid {track.pid}, CPU {track.cpu}, at jiffy {track.jiffies}",
    )
    for address in track.stack:
        yield line(f"      {address:016x}  ", (symbols.get(address, "?"), "symbol"))
    if track.problem is not None:
        yield line(("    ! ", "doubt"), track.problem)


def page_line(page: PageFrame) -> Line:
    """A page frame in one line."""
    order = f", order {page.order}" if page.order is not None else ""
    tail = f", in the compound page at {page.head:016x}" if page.is_tail else ""
    kind = page.type_name if page.use is PageUse.OTHER and page.type_name else page.use.value
    counts = f"references {page.references}"
    counts += f", mapped {page.map_count} times" if page.map_count is not None else ""
    flags = " ".join(page.flag_names) or "none"
    return line(
        f"  page {page.address:016x}, frame {page.pfn:x}: ",
        (kind, "symbol"),
        f"{order}{tail}; {counts}; flags: {flags}",
    )


def owner_lines(owner: PageOwner | None) -> Iterator[Line]:
    """Whose a page is."""
    if owner is None:
        return
    if owner.is_anonymous:
        yield line(f"    anonymous memory, anon_vma {owner.mapping:016x}")
    elif not owner.inode:
        yield line(f"    mapping {owner.mapping:016x}, which no inode owns, offset {owner.offset:#x}")
    else:
        path = owner.path if owner.path is not None else "a file without a name in memory"
        yield line(
            "    file ",
            (path, "symbol"),
            f" of {owner.file_system} on {owner.device}, inode {owner.inode_number} at {owner.inode:016x},"
            f" offset {owner.offset:#x}",
        )


def _page(finding: findings.PageFinding) -> Iterator[Line]:
    yield page_line(finding.page)
    yield from owner_lines(finding.owner)


def _page_struct(finding: findings.PageStructFinding) -> Iterator[Line]:
    yield line(
        f"  byte {finding.offset} of the struct page of frame {finding.page.pfn:x}, physical {finding.page.physical:x}"
    )
    yield page_line(finding.page)
    yield from owner_lines(finding.owner)


def _vmalloc(finding: findings.VmallocFinding) -> Iterator[Line]:
    area = finding.area
    caller = f", for {finding.caller}" if finding.caller is not None else ""
    kinds = " ".join(area.kinds) or f"flags {area.flags:#x}"
    physical = f", physical {area.physical:x}" if area.physical else ""
    yield line(
        f"  vmalloc area {area.start:016x} to {area.end:016x}: {kinds}, {area.pages} pages{physical}",
        (caller, "symbol"),
    )


def _per_cpu(finding: findings.PerCpuFinding) -> Iterator[Line]:
    place = finding.place
    is_of_variables = place.is_static or place.module is not None
    name = place.variable or ("between variables" if is_of_variables else "allocated memory")
    offset = f"+{place.offset:#x}" if place.offset else ""
    module = f" [{place.module}]" if place.module is not None else ""
    yield line(
        f"  per-CPU memory of CPU {place.cpu}: ", (f"{name}{offset}{module}", "symbol"), f", pointer {place.pointer:#x}"
    )


def _stack(finding: findings.StackFinding) -> Iterator[Line]:
    stack, task = finding.stack, finding.task
    whose = f"CPU {stack.cpu}" if task is None else f"task {task.pid} {task.comm} at {task.address:016x}"
    yield line(f"  stack ({stack.kind.value}) of ", (whose, "symbol"), f": {stack.begin:016x} to {stack.end:016x}")


def _user(finding: findings.UserFinding) -> Iterator[Line]:
    yield line(f"  user memory of task {finding.task.pid} {finding.task.comm}: ", *user_page_pieces(finding.page))


def user_page_pieces(page: UserPage) -> list[str | tuple[str, str]]:
    """What is at a user address, as pieces of a line."""
    pieces: list[str | tuple[str, str]] = [(page.state.value, "symbol")]
    if page.physical is not None:
        pieces.append(f", physical {page.physical:x}")
    if page.swap is not None:
        path = f" {page.swap.path}" if page.swap.path is not None else ""
        pieces.append(f", swap file {page.swap.type}{path}, page {page.swap.offset:#x}")
    if page.file is not None:
        pieces.append(f"; maps {page.file}, offset {page.file_offset or 0:#x}")
    return pieces


def _physical(finding: findings.PhysicalFinding) -> Iterator[Line]:
    yield line(f"  as a physical address: memory, at {finding.virtual:016x} in the direct map")


def _problem(finding: findings.ProblemFinding) -> Iterator[Line]:
    yield line(("! ", "doubt"), finding.what)


_TEXT: dict[type, Callable[[Any], Iterator[Line]]] = {
    findings.RegionFinding: _region,
    findings.SymbolFinding: _symbol,
    findings.PatchFinding: _patch,
    findings.SlabFinding: _slab,
    findings.PageFinding: _page,
    findings.PageStructFinding: _page_struct,
    findings.VmallocFinding: _vmalloc,
    findings.PerCpuFinding: _per_cpu,
    findings.StackFinding: _stack,
    findings.UserFinding: _user,
    findings.PhysicalFinding: _physical,
    findings.ProblemFinding: _problem,
}


# JSON


def _json(result: AddressFindings) -> Json:
    return {
        "addresses": [
            {"address": hexadecimal(address), "findings": [finding_json(finding) for finding in found]}
            for address, found in result.addresses
        ]
    }


def finding_json(finding: findings.Finding) -> Json:
    """A FINDING of the contract."""
    kind, fields = _JSON[type(finding)]
    return {"kind": kind, **fields(finding)}


def _region_json(finding: findings.RegionFinding) -> Json:
    translation = finding.translation
    return {
        "region": finding.region.value,
        "physical": hexadecimal(translation.physical),
        "page_size": translation.size or None,
        "why": translation.why,
    }


def _symbol_json(finding: findings.SymbolFinding) -> Json:
    location = finding.location
    return {
        "symbol": location.symbol if location is not None else None,
        "offset": finding.offset,
        "size": location.size if location is not None else None,
        "text": location.is_text if location is not None else None,
        "section": finding.section,
        "module": finding.module.name if finding.module is not None else None,
    }


def _patch_json(finding: findings.PatchFinding) -> Json:
    site = finding.site
    return {
        "mechanism": site.mechanism,
        "name": site.name,
        "site": hexadecimal(site.address),
        "size": site.size,
        "decided_by": site.decided_by,
    }


def _slab_json(finding: findings.SlabFinding) -> Json:
    found = finding.slab
    return {
        **object_json(found),
        "merged": list(finding.also),
        "users": found.cache.users,
        "guess": finding.guess,
        "member": finding.member,
        "debug": None if finding.debug is None else debug_json(finding.debug, finding.symbols),
    }


def object_json(found: SlabObject) -> Json:
    """The fields of an address in a slab."""
    return {
        "cache": found.cache.name,
        "cache_address": hexadecimal(found.cache.address),
        "object_size": found.cache.object_size,
        "size": found.cache.size,
        "object": hexadecimal(found.start) if found.number is not None else None,
        "number": found.number,
        "offset": found.offset,
        "part": found.part.value,
        "state": found.state.value,
        "proof": _PROOF_WORDS[found.proof],
        "cpu": found.proof_cpu,
        "slab": hexadecimal(found.slab.page),
        "slab_memory": hexadecimal(found.slab.start),
        "slab_objects": found.slab.objects,
        "slab_in_use": found.slab.in_use,
        "slab_place": _PLACE_WORDS[found.place],
        "slab_cpu": found.place_cpu,
        "problems": list(found.problems),
    }


_PROOF_WORDS = {proof: proof.name.lower().replace("_", "-") for proof in Proof}
_PLACE_WORDS = {place: place.name.lower().replace("_", "-") for place in SlabPlace}


def proof_word(proof: Proof) -> str:
    """A proof as the contract writes it."""
    return _PROOF_WORDS[proof]


def place_word(place: SlabPlace) -> str:
    """The list that a slab is on, as the contract writes it."""
    return _PLACE_WORDS[place]


def debug_json(debug: SlabDebug, symbols: Mapping[int, str]) -> Json:
    """SLABDEBUG of the contract."""
    return {
        "allocated": None if debug.allocation is None else track_json(debug.allocation, symbols),
        "freed": None if debug.free is None else track_json(debug.free, symbols),
        "damage": [damage_json(damage) for damage in debug.damage],
    }


def track_json(track: Track, symbols: Mapping[int, str]) -> Json:
    """TRACK of the contract."""
    return {
        "caller": hexadecimal(track.caller),
        "symbol": symbols.get(track.caller),
        "stack": [{"address": hexadecimal(address), "symbol": symbols.get(address)} for address in track.stack],
        "cpu": track.cpu,
        "pid": track.pid,
        "jiffies": track.jiffies,
        "problem": track.problem,
    }


def damage_json(damage: Damage) -> Json:
    """DAMAGE of the contract."""
    return {
        "what": damage.what,
        "address": hexadecimal(damage.address),
        "expected": damage.expected,
        "found": damage.found.hex(),
    }


def page_json(page: PageFrame, owner: PageOwner | None) -> Json:
    """PAGE of the contract."""
    return {
        "page": hexadecimal(page.address),
        "pfn": page.pfn,
        "physical": hexadecimal(page.physical),
        "flags": hexadecimal(page.flags),
        "flag_names": list(page.flag_names),
        "type": page.type_name,
        "use": page.use.value,
        "head": hexadecimal(page.head),
        "order": page.order,
        "references": page.references,
        "map_count": page.map_count,
        "owner": None if owner is None else owner_json(owner),
    }


def owner_json(owner: PageOwner) -> Json:
    """PAGEOWNER of the contract."""
    return {
        "mapping": hexadecimal(owner.mapping),
        "anonymous": owner.is_anonymous,
        "inode": hexadecimal(owner.inode) if owner.inode else None,
        "inode_number": owner.inode_number if owner.inode else None,
        "device": owner.device or None,
        "file_system": owner.file_system or None,
        "path": owner.path,
        "offset": owner.offset,
    }


def _page_struct_json(finding: findings.PageStructFinding) -> Json:
    return {"offset": finding.offset, "page": page_json(finding.page, finding.owner)}


def vmalloc_json(area: VmallocArea, caller: str | None) -> Json:
    """VMALLOCAREA of the contract."""
    return {
        "area": hexadecimal(area.area),
        "vm": hexadecimal(area.vm) if area.vm else None,
        "start": hexadecimal(area.start),
        "end": hexadecimal(area.end),
        "flags": hexadecimal(area.flags),
        "kinds": list(area.kinds),
        "pages": area.pages,
        "physical": hexadecimal(area.physical) if area.physical else None,
        "caller": caller,
    }


def _per_cpu_json(finding: findings.PerCpuFinding) -> Json:
    place = finding.place
    return {
        "cpu": place.cpu,
        "pointer": hexadecimal(place.pointer),
        "variable": place.variable,
        "offset": place.offset,
        "static": place.is_static,
        "module": place.module,
    }


def _stack_json(finding: findings.StackFinding) -> Json:
    stack, task = finding.stack, finding.task
    return {
        "stack": stack.kind.value,
        "begin": hexadecimal(stack.begin),
        "end": hexadecimal(stack.end),
        "cpu": stack.cpu,
        "task": hexadecimal(task.address) if task is not None else None,
        "pid": task.pid if task is not None else None,
        "comm": task.comm if task is not None else None,
    }


def _user_json(finding: findings.UserFinding) -> Json:
    return {
        "task": hexadecimal(finding.task.address),
        "pid": finding.task.pid,
        "page": user_page_json(finding.page),
    }


def user_page_json(page: UserPage) -> Json:
    """USERPAGE of the contract."""
    swap = page.swap
    return {
        "state": page.state.value,
        "physical": hexadecimal(page.physical),
        "page_size": page.size or None,
        "area": hexadecimal(page.area) if page.area else None,
        "file": page.file,
        "file_offset": page.file_offset,
        "swap_type": None if swap is None else swap.type,
        "swap_offset": None if swap is None else swap.offset,
        "swap_file": None if swap is None else swap.path,
    }


_JSON: dict[type, tuple[str, Callable[[Any], Json]]] = {
    findings.RegionFinding: ("region", _region_json),
    findings.SymbolFinding: ("symbol", _symbol_json),
    findings.PatchFinding: ("patch", _patch_json),
    findings.SlabFinding: ("slab", _slab_json),
    findings.PageFinding: ("page", lambda finding: {"page": page_json(finding.page, finding.owner)}),
    findings.PageStructFinding: ("page-struct", _page_struct_json),
    findings.VmallocFinding: ("vmalloc", lambda finding: {"area": vmalloc_json(finding.area, finding.caller)}),
    findings.PerCpuFinding: ("per-cpu", _per_cpu_json),
    findings.StackFinding: ("stack", _stack_json),
    findings.UserFinding: ("user", _user_json),
    findings.PhysicalFinding: ("physical", lambda finding: {"virtual": hexadecimal(finding.virtual)}),
    findings.ProblemFinding: ("problem", lambda finding: {"what": finding.what}),
}


view(AddressFindings, text=_lines, json=_json)
