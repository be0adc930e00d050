"""Which character and block devices are there, and which requests are under way?

Mirrors fs/char_dev.c, block/genhd.c, block/blk-mq-tag.c, lib/sbitmap.c, drivers/base/class.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orcdbg.base.errors import NotFound, OrcdbgError
from orcdbg.base.walks import Budget
from orcdbg.subsystems.containers import lists, xarray
from orcdbg.subsystems.kernel_variables import variable
from orcdbg.typed.objects import Object
from orcdbg.typed.program import Program

MAX_DEVICES = 1 << 18
_HASH_SIZE = 255  # CHRDEV_MAJOR_HASH_SIZE, BLKDEV_MAJOR_HASH_SIZE
_MINOR_BITS = 20
_MOST_QUEUES = 8192
_MOST_WORDS = 1 << 16
_IN_FLIGHT = 1  # MQ_RQ_IN_FLIGHT
_SECTOR = 512

# REQ_OP_* (include/linux/blk_types.h), the low byte of cmd_flags.
_OPERATIONS = {
    0: "READ",
    1: "WRITE",
    2: "FLUSH",
    3: "DISCARD",
    5: "SECURE_ERASE",
    9: "WRITE_ZEROES",
    34: "DRV_IN",
    35: "DRV_OUT",
}


@dataclass(frozen=True, slots=True)
class CharacterDevice:
    """A range of character device numbers: `operations` the address of its functions, 0 where there is no device now."""

    major: int
    minor: int
    count: int
    name: str
    cdev: int
    operations: int


@dataclass(frozen=True, slots=True)
class BlockMajor:
    """A major number of block devices that a driver registered."""

    major: int
    name: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk: `size` in bytes, `queue` the address of its request_queue."""

    address: int
    name: str
    major: int
    minor: int
    size: int
    queue: int
    operations: int


@dataclass(frozen=True, slots=True)
class Request:
    """A request that a driver has and has not completed.

    Attributes:
        disk: the disk's name.
        address: of the `struct request`.
        tag: its tag.
        operation: `READ`, `WRITE` and so on.
        sector: where it begins, in units of 512 bytes.
        size: bytes left.
        queued: nanoseconds of the monotonic clock when it was made; None where the queue does not keep that.
        issued: the same when the driver got it.
    """

    disk: str
    address: int
    tag: int
    operation: str
    sector: int
    size: int
    queued: int | None
    issued: int | None


def character_devices(program: Program, budget: Budget) -> list[CharacterDevice]:
    """The registered ranges of character devices, by number."""
    table = program.linux.address("chrdevs")
    handlers = _handlers(program, budget)
    found = []
    for slot in range(_HASH_SIZE):
        try:
            first = int(program.object("unsigned long", table + 8 * slot))
        except OrcdbgError as error:
            budget.note_error("the table of character devices", table + 8 * slot, error)
            break
        for entry in lists.chained(first, program, "char_device_struct", "next", budget):
            try:
                found.append(_character_device(entry, handlers))
            except OrcdbgError as error:
                budget.note_error("a character device", entry.address_ or 0, error)
    return sorted(found, key=lambda device: (device.major, device.minor))


def _handlers(program: Program, budget: Budget) -> list[tuple[int, int, int]]:
    """First number, how many, and the address of the cdev, of all character devices that are there: cdev_map."""
    found: dict[int, tuple[int, int, int]] = {}
    try:
        probes = variable(program, "cdev_map", "struct kobj_map *").member_("probes")
        for slot in range(min(len(probes), _HASH_SIZE)):
            for probe in lists.chained(int(probes[slot]), program, "struct probe", "next", budget):
                # Those of base_probe() stand for all numbers, and load a module.
                if int(probe.member_("range")) >= 1 << 32:
                    continue
                key = probe.address_ or 0
                found[key] = int(probe.member_("dev")), int(probe.member_("range")), int(probe.member_("data"))
    except OrcdbgError as error:
        budget.note_error("cdev_map", 0, error)
    return sorted(found.values())


def _character_device(entry: Object, handlers: list[tuple[int, int, int]]) -> CharacterDevice:
    major, minor = int(entry.member_("major")), int(entry.member_("baseminor"))
    count = int(entry.member_("minorct"))
    cdev = int(entry.member_("cdev"))
    if not cdev:
        # register_chrdev_region() leaves it to the driver which of its numbers have a device.
        first = major << _MINOR_BITS | minor
        inside = (device for start, length, device in handlers if first <= start < first + count and length)
        cdev = next(inside, 0)
    operations = int(entry.program_.object("struct cdev", cdev).member_("ops")) if cdev else 0
    return CharacterDevice(major, minor, count, entry.member_("name").string_(), cdev, operations)


def block_majors(program: Program, budget: Budget) -> list[BlockMajor]:
    """The major numbers that drivers of block devices registered."""
    table = program.linux.address("major_names")
    found = []
    for slot in range(_HASH_SIZE):
        first = int(program.object("unsigned long", table + 8 * slot))
        for entry in lists.chained(first, program, "blk_major_name", "next", budget):
            found.append(BlockMajor(int(entry.member_("major")), entry.member_("name").string_()))
    return sorted(found, key=lambda major: major.major)


def _class_private(program: Program, budget: Budget) -> Object:
    """The private data of block_class."""
    block_class = variable(program, "block_class", "struct class")
    if block_class.has_member_("p"):
        return block_class.member_("p").deref_()
    # Since 6.4 (7b884b7f24b4) all classes are on a list, and class_to_subsys() searches it.
    classes = variable(program, "class_kset", "struct kset *").member_("list")
    for entry in lists.entries(classes, "kobject", "entry", budget):
        private = entry.address_of_().container_of_("struct subsys_private", "subsys.kobj").deref_()
        if int(private.member_("class")) == block_class.address_:
            return private
    raise NotFound("class of devices", "block")


def disks(program: Program, budget: Budget) -> list[Disk]:
    """The disks, partitions left out, in the kernel's order."""
    found = []
    for device in _block_devices(program, budget):
        try:
            disk = _disk_of(device)
            if disk is not None:
                found.append(_disk(disk))
        except OrcdbgError as error:
            budget.note_error("a block device", device.address_ or 0, error)
    return found


def _block_devices(program: Program, budget: Budget) -> Iterator[Object]:
    """The `struct device`s of block_class: disks and partitions."""
    private = _class_private(program, budget)
    nodes = lists.entries(private.member_("klist_devices.k_list"), "klist_node", "n_node", budget)
    for node in nodes:
        inside = node.address_of_().container_of_("struct device_private", "knode_class")
        yield inside.member_("device").deref_()


def _disk_of(device: Object) -> Object | None:
    """The `struct gendisk` of a whole disk's device; None for a partition."""
    program = device.program_
    pointer = device.address_of_()
    if program.catalog.find("struct", "hd_struct") is not None:
        # Before 5.11 (0d02129e76ed) a disk's first part is a member of it, and a partition's is not.
        part = pointer.container_of_("struct hd_struct", "__dev")
        return part.container_of_("struct gendisk", "part0").deref_() if not int(part.member_("partno")) else None
    part = pointer.container_of_("struct block_device", "bd_device")
    disk = part.member_("bd_disk")
    return disk.deref_() if int(disk.member_("part0")) == int(part) else None


def _disk(disk: Object) -> Disk:
    part = disk.member_("part0")
    sectors = part.first_of_("bd_nr_sectors", "nr_sects")
    # 5.11 to 5.15: bdev_nr_sectors() asks the inode.
    size = int(part.member_("bd_inode").member_("i_size")) if sectors is None else int(sectors) * _SECTOR
    return Disk(
        disk.address_ or 0,
        disk.member_("disk_name").string_(),
        int(disk.member_("major")),
        int(disk.member_("first_minor")),
        size,
        int(disk.member_("queue")),
        int(disk.member_("fops")),
    )


def requests(program: Program, disk: Disk, budget: Budget) -> list[Request]:
    """The requests of a disk that its driver has: those whose tag is taken, and whose state says so."""
    queue = program.object("struct request_queue", disk.queue)
    found: dict[int, Request] = {}
    for hardware_queue in _hardware_queues(queue, budget):
        try:
            tags = hardware_queue.member_("tags")
            if not int(tags):
                continue
            for request in _tagged(tags.deref_(), budget):
                if int(request.member_("q")) == disk.queue and int(request.member_("state")) == _IN_FLIGHT:
                    found[request.address_ or 0] = _request(request, disk.name)
        except OrcdbgError as error:
            budget.note_error(f"the requests of {disk.name}", hardware_queue.address_ or 0, error)
    return list(found.values())


def _hardware_queues(queue: Object, budget: Budget) -> Iterator[Object]:
    count = min(int(queue.member_("nr_hw_queues")), _MOST_QUEUES)
    if queue.has_member_("hctx_table"):
        # From 5.18 (4e5cc99e1e48) to 7.0 in an xarray.
        for entry in xarray.entries(queue.member_("hctx_table"), budget):
            yield queue.program_.object("blk_mq_hw_ctx", entry.value)
        return
    table = queue.member_("queue_hw_ctx")
    # A disk whose driver takes bios itself has none.
    if not int(table):
        return
    for number in budget.entries(count, int(table), "hardware queues"):
        if int(table[number]):
            yield table[number].deref_()


def _tagged(tags: Object, budget: Budget) -> Iterator[Object]:
    """The requests whose tags are taken."""
    table = tags.member_("rqs")
    reserved = int(tags.member_("nr_reserved_tags"))
    for name, base in (("breserved_tags", 0), ("bitmap_tags", reserved)):
        for bit in _taken(tags.member_(name), budget):
            if base + bit < int(tags.member_("nr_tags")) and int(table[base + bit]):
                yield table[base + bit].deref_()


def _taken(queue: Object, budget: Budget) -> Iterator[int]:
    """Numbers of the bits of a `sbitmap_queue` that are set and not cleared."""
    bitmap = queue.member_("sb")
    depth, shift = int(bitmap.member_("depth")), int(bitmap.member_("shift"))
    words = min(int(bitmap.member_("map_nr")), _MOST_WORDS)
    for number in budget.entries(words, int(bitmap.member_("map")), "words of tags"):
        word = bitmap.member_("map")[number]
        value = int(word.member_("word")) & ~int(word.member_("cleared"))
        for bit in range(64):
            tag = (number << min(shift, 6)) + bit
            if value >> bit & 1 and tag < depth:
                yield tag


def _request(request: Object, disk: str) -> Request:
    operation = int(request.member_("cmd_flags")) & 0xFF
    return Request(
        disk,
        request.address_ or 0,
        int(request.member_("tag")),
        _OPERATIONS.get(operation, str(operation)),
        int(request.member_("__sector")),
        int(request.member_("__data_len")),
        int(request.member_("start_time_ns")) or None,
        int(request.member_("io_start_time_ns")) or None,
    )
