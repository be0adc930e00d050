"""How are the recorded patches of one boot written to a file, and taken from one?

The form is in docs/journal.md: a JSON document of one object, written with a place a line, so that it is read line by line
and no document, however made, takes more memory than its places do.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from orcdbg.base.errors import Mismatch, UnsupportedFormat
from orcdbg.patches.ledger import Cluster
from orcdbg.patches.site import PatchSite

SCHEMA = 1
# A kernel of 2026 has some 160,000 places in 50 MB.
MAX_FILE, MAX_LINE, MAX_CLUSTERS, MAX_ALL_SITES = 256 << 20, 1 << 16, 1 << 19, 1 << 19
MAX_SITES, MAX_BYTES, MAX_WORDS = 256, 4096, 1024
LISTS = ("clusters", "stack")
_ADDRESS = re.compile(r"0x[0-9a-f]{1,16}")
Json = Mapping[str, Any]


class Rule(NamedTuple):
    """A boundary in patched text where the row as built does not hold."""

    address: int
    stated: str
    true: str


@dataclass(frozen=True, slots=True)
class Journal:
    """The recorded patches of one boot, at its run-time addresses; `stack` are those that a walk asks about."""

    path: str
    build_id: str
    release: str
    slide: int
    clusters: Sequence[Cluster]
    stack: Sequence[Cluster]


def _site_json(site: PatchSite) -> Json:
    return {
        "mechanism": site.mechanism,
        "address": f"{site.address:#x}",
        "size": site.size,
        "name": site.name,
        "image": site.image.hex(),
        "expected": None if site.expected is None else site.expected.hex(),
        "decided_by": site.decided_by,
        "order": site.order,
    }


def cluster_json(cluster: Cluster, memory: bytes | None, rules: Sequence[Rule]) -> Json:
    """One place: its bytes as built, as they must be, as they are, the passes that wrote them, and the rules that hold."""
    return {
        "address": f"{cluster.address:#x}",
        "image": cluster.image.hex(),
        "expected": None if cluster.expected is None else cluster.expected.hex(),
        "memory": None if memory is None else memory.hex(),
        "sites": [_site_json(site) for site in cluster.sites],
        "rows": [{"address": f"{r.address:#x}", "stated_rule": r.stated, "true_rule": r.true} for r in rules],
    }


def write_journal(file: IO[bytes], head: Json, clusters: Iterable[Json], stack: Iterable[Json]) -> int:
    """Writes a journal, place by place; how many places.

    Args:
        file: where to.
        head: build_id, release and slide.
        clusters: all places.
        stack: those that a walk asks about.
    """
    count = 0
    file.write(json.dumps({"orcdbg_patches": SCHEMA, **head}, ensure_ascii=True)[:-1].encode())
    for name, places in zip(LISTS, (clusters, stack), strict=True):
        file.write(f',"{name}":['.encode())
        between = b"\n"
        for place in places:
            file.write(between + json.dumps(place, ensure_ascii=True, separators=(",", ":")).encode())
            between = b",\n"
            count += 1
        file.write(b"\n]")
    file.write(b"}\n")
    return count


class _Damaged(Exception):
    """What a line has is not what the form says."""


def _text(record: Json, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or len(value) > MAX_WORDS:
        raise _Damaged(f"{name} is no text, or too long")
    return value


def _address(record: Json, name: str) -> int:
    value = _text(record, name)
    if not _ADDRESS.fullmatch(value):
        raise _Damaged(f"{name} is no address")
    return int(value, 16)


def _count(record: Json, name: str, limit: int) -> int:
    value = record.get(name)
    if type(value) is not int or not 0 <= value <= limit:
        raise _Damaged(f"{name} is not a number up to {limit}")
    return value


def _hex(record: Json, name: str, size: int | None = None) -> bytes:
    value = record.get(name)
    if not isinstance(value, str) or not 2 <= len(value) <= 2 * MAX_BYTES or not re.fullmatch("[0-9a-f]+", value):
        raise _Damaged(f"{name} is not bytes")
    if len(value) % 2 or (size is not None and len(value) != 2 * size):
        raise _Damaged(f"{name} is not {size} bytes")
    return bytes.fromhex(value)


def _maybe_hex(record: Json, name: str, size: int) -> bytes | None:
    return None if record.get(name) is None else _hex(record, name, size)


def _objects(record: Json, name: str) -> list[Json]:
    value = record.get(name)
    if not isinstance(value, list) or len(value) > MAX_SITES or not all(isinstance(item, dict) for item in value):
        raise _Damaged(f"{name} is no list of places")
    return value


def _site(record: Json, start: int, end: int) -> PatchSite:
    address = _address(record, "address")
    size = _count(record, "size", MAX_BYTES)
    if not (size and start <= address and address + size <= end):
        raise _Damaged(f"a site at {address:#x} leaves its place")

    return PatchSite(
        mechanism=_text(record, "mechanism"),
        address=address,
        size=size,
        name=_text(record, "name"),
        image=_hex(record, "image", size),
        expected=_maybe_hex(record, "expected", size),
        decided_by=_text(record, "decided_by"),
        order=_count(record, "order", 1 << 20),
    )


def _cluster(record: Json, after: int) -> Cluster:
    address = _address(record, "address")
    image = _hex(record, "image")
    if address < after or address + len(image) > 1 << 64:
        raise _Damaged(f"the place at {address:#x} is not in order")

    expected = _maybe_hex(record, "expected", len(image))
    memory = _maybe_hex(record, "memory", len(image))
    sites = tuple(_site(site, address, address + len(image)) for site in _objects(record, "sites"))
    # What a pass wrote there and nobody could tell, memory told.
    return Cluster(address, image, memory if expected is None else expected, sites)


def _object(text: bytes) -> Json:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damaged("not JSON") from error
    if not isinstance(value, dict):
        raise _Damaged("no object")
    return value


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    for _ in range(2 * MAX_CLUSTERS + 8):
        line = file.readline(MAX_LINE + 1)
        if not line:
            return
        if len(line) > MAX_LINE:
            raise _Damaged(f"longer than {MAX_LINE} bytes")
        yield line.rstrip(b"\n")


def _places(lines: Iterator[bytes], ending: bytes) -> list[Cluster]:
    found: list[Cluster] = []
    sites = 0
    for line in lines:
        if line == ending:
            return found
        if len(found) >= MAX_CLUSTERS:
            raise _Damaged(f"more than {MAX_CLUSTERS} places")
        found.append(_cluster(_object(line.removesuffix(b",")), found[-1].end if found else 0))
        sites += len(found[-1].sites)
        if sites > MAX_ALL_SITES:
            raise _Damaged(f"more than {MAX_ALL_SITES} sites")
    raise _Damaged("the document ends before its lists do")


def read_journal(file: IO[bytes], path: str) -> Journal:
    """The journal in a file.

    Raises:
        UnsupportedFormat: it is none, or damaged.
    """
    read = 0

    def counted() -> Iterator[bytes]:
        nonlocal read
        size = 0
        for line in _lines(file):
            read += 1
            size += len(line)
            if size > MAX_FILE:
                raise _Damaged(f"more than {MAX_FILE >> 20} MiB")
            yield line

    lines, first, second = counted(), *(f',"{name}":['.encode() for name in LISTS)
    try:
        top = next(lines, b"")
        if not top.endswith(first):
            raise _Damaged("not a journal of patches")
        head = _object(top.removesuffix(first) + b"}")
        if head.get("orcdbg_patches") != SCHEMA:
            raise _Damaged(f"a journal of schema {SCHEMA} is needed")
        build_id, release, slide = _text(head, "build_id"), _text(head, "release"), _address(head, "slide")
        clusters, stack = _places(lines, b"]" + second), _places(lines, b"]}")
    except _Damaged as error:
        raise UnsupportedFormat(path, f"line {max(read, 1)}: {error}") from error
    return Journal(path, build_id, release, slide, clusters, stack)


def check_journal(journal: Journal, build_id: str | None, slide: int, is_text: Callable[[int], bool]) -> None:
    """Refuses a journal that is not of this boot of this kernel.

    Args:
        journal: what was read.
        build_id: of the snapshot's kernel, in hexadecimal.
        slide: run-time minus link address there.
        is_text: which run-time addresses are the kernel's own text.

    Raises:
        Mismatch: it is of another build.
        UnsupportedFormat: it is of another boot, or has places outside the kernel's text.
    """
    ours = (build_id or "").strip().lower()
    if journal.build_id != ours:
        raise Mismatch("build-id", journal.build_id, ours or "not known", "in place of an image a journal was given")
    if journal.slide != slide:
        raise UnsupportedFormat(journal.path, f"of another boot: its slide is {journal.slide:#x}, here {slide:#x}")
    for cluster in (*journal.clusters, *journal.stack):
        if not (is_text(cluster.address) and is_text(cluster.end - 1)):
            raise UnsupportedFormat(journal.path, f"the place at {cluster.address:#x} is not in the kernel's text")


class JournalLedger:
    """Patches from a journal, asked as those of a `PatchLedger` are."""

    def __init__(self, clusters: Sequence[Cluster]) -> None:
        self._clusters = clusters
        self._starts = [cluster.address for cluster in clusters]

    def __len__(self) -> int:
        """Number of places."""
        return len(self._clusters)

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms with a place here."""
        return sorted({site.mechanism for cluster in self._clusters for site in cluster.sites})

    def clusters(self, mechanism: str | None = None) -> Iterator[Cluster]:
        """All places, by address; with `mechanism` only those with a site of that name."""
        for cluster in self._clusters:
            if mechanism is None or any(site.mechanism == mechanism for site in cluster.sites):
                yield cluster

    def find(self, address: int) -> Cluster | None:
        """The place that covers an address."""
        index = bisect.bisect_right(self._starts, address) - 1
        return self._clusters[index] if index >= 0 and address < self._clusters[index].end else None

    def between(self, start: int, end: int) -> list[Cluster]:
        """The places that touch [start, end)."""
        first = max(bisect.bisect_right(self._starts, start) - 1, 0)
        last = bisect.bisect_left(self._starts, end)
        return [cluster for cluster in self._clusters[first:last] if cluster.end > start]
