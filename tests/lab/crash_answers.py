"""What do crash's answers and orcdbg's hold that both show? Fields by what they belong to, without any layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Fields = dict[Any, Any]

_OF_TASK = re.compile(r'(?ms)^PID: (\d+)\s+TASK: (\w+)\s+CPU: (\d+)\s+COMMAND: "(.*?)"\n(.*?)(?=^PID: |\Z)')


def _hex(text: str | None) -> int:
    return int(text or "0", 16)


def _rows(text: str, pattern: str) -> list[tuple[str, ...]]:
    """The groups of each line that a pattern matches whole."""
    found = (re.fullmatch(pattern, line.rstrip()) for line in text.splitlines())
    return [match.groups("") for match in found if match]


def _kilobytes(size: int | None) -> int:
    return (size or 0) >> 10


# Tasks


def ps(text: str) -> Fields:
    pattern = r"(>?) +(\d+) +(\d+) +(\d+) +(\w{16}) +(\w+) +[\d.]+ +(\d+) +(\d+) +(.*)"
    return {
        _hex(task): {
            "pid": int(pid),
            "ppid": int(ppid),
            "cpu": int(cpu),
            "state": state,
            "running": bool(mark),
            "mapped": int(mapped),
            "resident": int(resident),
            "kernel": comm.startswith("["),
            "comm": comm.strip("[]"),
        }
        for mark, pid, ppid, cpu, task, state, mapped, resident, comm in _rows(text, pattern)
    }


def our_ps(answer: Json) -> Fields:
    return {
        _hex(task["task"]): {
            "pid": task["pid"],
            "ppid": task["ppid"],
            "cpu": task["cpu"],
            "state": task["state"],
            "running": task["running"],
            "mapped": _kilobytes(task["mapped"]),
            "resident": _kilobytes(task["resident"]),
            "kernel": task["kernel_thread"],
            "comm": task["comm"].strip("[]"),
        }
        for task in answer["tasks"]
    }


def _of_tasks(text: str) -> Iterator[tuple[int, str]]:
    for _, task, _, _, body in _OF_TASK.findall(text):
        yield _hex(task), body


def files(text: str) -> Fields:
    found: Fields = {}
    for task, body in _of_tasks(text):
        for root, cwd in re.findall(r"(?m)^ROOT: (.*?) +CWD: (.*?) *$", body):
            found[task, "root"], found[task, "cwd"] = root, cwd
        for number, file, dentry, inode, kind, path in _rows(body, r" *(\d+) (\w{16}) (\w{16}) (\w{16}) (\w+) *(.*)"):
            found[task, int(number)] = _hex(file), _hex(dentry), _hex(inode), kind, path
    return found


def our_files(answer: Json) -> Fields:
    found: Fields = {}
    for task in answer["tasks"]:
        address = _hex(task["task"])
        # A task that has died has neither any more, of which crash says nothing.
        found |= {(address, name): task[name] for name in ("root", "cwd") if task[name] is not None}
        for file in task["files"]:
            addresses = (_hex(file[name]) for name in ("file", "dentry", "inode"))
            found[address, file["descriptor"]] = (*addresses, file["type"], file["path"])
    return found


def vm(text: str) -> Fields:
    found: Fields = {}
    for task, body in _of_tasks(text):
        for mm, pgd, resident, total in _rows(body, r" *(\w+) +(\w+) +(\d+)k +(\d+)k"):
            found[task] = _hex(mm), _hex(pgd), int(resident), int(total)
        for area, start, end, flags, name in _rows(body, r"(\w{16}) +(\w+) +(\w+) +(\w+) ?(.*)"):
            if not flags.endswith("k"):
                found[task, _hex(area)] = _hex(start), _hex(end), _hex(flags), name
    return found


def our_vm(answer: Json) -> Fields:
    found: Fields = {}
    for task in answer["tasks"]:
        address = _hex(task["task"])
        sizes = ((task[name] or 0) * 4 for name in ("resident", "total"))
        found[address] = (_hex(task["mm"]), _hex(task["pgd"]), *sizes)
        for area in task["areas"]:
            numbers = (_hex(area[name]) for name in ("start", "end", "flags"))
            # What is no file's has a name of the kernel's, which crash does not show.
            found[address, _hex(area["address"])] = (*numbers, area["name"] if area["file"] else "")
    return found


def sig(text: str) -> Fields:
    found: Fields = {}
    for task, body in _of_tasks(text):
        for address, threads in re.findall(r"SIGNAL_STRUCT: (\w+)\s+NR_THREADS: (\d+)", body):
            found[task] = _hex(address), int(threads)
        for number, _, handler, mask, flags in _rows(body, r" *\[(\d+)\] (\w+) +(\w+) (\w+) (\w+).*"):
            named = {"SIG_DFL": 0, "SIG_IGN": 1}
            found[task, int(number)] = (
                named.get(handler, -1) if handler in named else _hex(handler),
                _hex(mask),
                _hex(flags),
            )
        found[task, "blocked"] = _hex(re.findall(r"BLOCKED: (\w+)", body)[0])
        found[task, "pending"] = [_hex(one) for one in re.findall(r"(?m)^ +SIGNAL: (\w+)", body)]
    return found


def our_sig(answer: Json) -> Fields:
    found: Fields = {}
    for task in answer["tasks"]:
        address = _hex(task["task"])
        numbers = {one["name"]: one["number"] for one in task["handling"]}

        def mask(names: list[str], numbers: dict[str, int] = numbers) -> int:
            return sum(1 << numbers[name] - 1 for name in names)

        found[address] = _hex(task["signal_struct"]), task["threads"]
        for one in task["handling"]:
            found[address, one["number"]] = _hex(one["handler"]), _hex(one["mask"]), _hex(one["flags"])
        found[address, "blocked"] = mask(task["blocked"])
        found[address, "pending"] = [mask(task["pending"]), mask(task["shared_pending"])]
    return found


def sockets(text: str) -> Fields:
    """Each socket, and which tasks have some: perhaps none."""
    found: Fields = {}
    for task, body in _of_tasks(text):
        having = found.setdefault("tasks", set())
        rows = _rows(body, r" *(\d+) (\w{16}) (\w{16}) (\w+)[\w/]*:(\w+) *(\S*) *(\S*)")
        assert rows or "No open sockets" in body, body
        if rows:
            having.add(task)
        for number, socket, sock, family, kind, source, destination in rows:
            found[task, int(number)] = _hex(socket), _hex(sock), family, kind, _end(source), _end(destination)
    return found


def _end(text: str) -> tuple[tuple[int, ...], int] | None:
    """An address's numbers and its port."""
    if not text:
        return None
    address, _, port = text.rpartition("-")
    if ":" in address:
        return tuple(int(part, 16) for part in address.split(":")), int(port)
    return tuple(int(part) for part in address.split(".")), int(port)


def _our_end(text: str | None) -> tuple[tuple[int, ...], int] | None:
    match = re.fullmatch(r"\[?([^]]+)\]?:(\d+)", text or "")
    if not match:
        return None
    address, port = match.groups()
    if ":" in address:
        before, _, after = address.partition("::")
        first, last = ([int(part, 16) for part in half.split(":") if part] for half in (before, after))
        return (*first, *[0] * (8 - len(first) - len(last)), *last), int(port)
    return tuple(int(part) for part in address.split(".")), int(port)


def our_sockets(answer: Json) -> Fields:
    found: Fields = {"tasks": {_hex(task["task"]) for task in answer["tasks"]}}
    for task in answer["tasks"]:
        for one in task["sockets"]:
            ends = (_our_end(one[name]) for name in ("source", "destination"))
            found[_hex(task["task"]), one["descriptor"]] = (
                _hex(one["socket"]),
                _hex(one["sock"]),
                one["family"],
                one["type"],
                *ends,
            )
    return found


# The machine


def mount(text: str) -> Fields:
    return {
        _hex(address): (_hex(superblock), kind, device, path)
        for address, superblock, kind, device, path in _rows(text, r"(\w{16}) (\w{16}) (\S+) +(\S+) +(.*)")
    }


def our_mount(answer: Json) -> Fields:
    return {
        _hex(one["mount"]): (_hex(one["superblock"]), one["type"], one["device"], one["path"])
        for one in answer["mounts"]
    }


def net(text: str) -> Fields:
    return {
        _hex(address): (name, [part for part in addresses.split(", ") if part])
        for address, name, addresses in _rows(text, r"(\w{16}) +(\S+) *(.*)")
    }


def our_net(answer: Json) -> Fields:
    return {
        _hex(one["address"]): (one["name"], [address.partition("/")[0] for address in one["addresses"]])
        for one in answer["devices"]
    }


def irq(text: str) -> Fields:
    found: Fields = {}
    number = None
    for line in text.splitlines():
        first = re.match(r" *(\d+) +(\w{16}) +(.*)", line)
        if first:
            number = int(first.group(1))
            found[number] = _hex(first.group(2)), []
        elif re.match(r" *\d+ +\(unused\)", line):
            number = None
        action = re.search(r'(\w{16}) +"(.*)"\s*$', line)
        if action and number is not None:
            found[number][1].append((_hex(action.group(1)), action.group(2)))
    return found


def our_irq(answer: Json) -> Fields:
    return {
        one["number"]: (_hex(one["address"]), [(_hex(act["address"]), act["name"]) for act in one["actions"]])
        for one in answer["interrupts"]
    }


def irq_counts(text: str) -> Fields:
    return {
        int(number): ([int(count) for count in counts.split()], names)
        for number, counts, names in _rows(text, r" *(\d+):((?: +\d+)+)  \S+ +(.*)")
    }


def our_irq_counts(answer: Json) -> Fields:
    return {
        one["number"]: (
            [one["counts"][cpu] for cpu in sorted(one["counts"], key=int)],
            ",".join(action["name"] for action in one["actions"]),
        )
        for one in answer["interrupts"]
    }


def softirqs(text: str) -> Fields:
    return {int(number): (_hex(action), name) for number, action, name in _rows(text, r" *\[(\d+)\] +(\w+) +<(.*?)>")}


def our_softirqs(answer: Json) -> Fields:
    return {one["number"]: (_hex(one["action"]), one["function"]) for one in answer["softirqs"]}


def timers(text: str) -> Fields:
    found: Fields = {}
    cpu = 0
    for line in text.splitlines():
        base = re.match(r"TIMER_BASES\[(\d+)\]", line)
        cpu = int(base.group(1)) if base else cpu
        for expires, address, function, name in _rows(line, r" *(\d+) +-?\d+ +(\w{16}) +(\w{16}) +<(.*)>"):
            found[_hex(address)] = cpu, int(expires), _hex(function), name.partition("+")[0]
    return found


def our_timers(answer: Json) -> Fields:
    return {
        _hex(one["address"]): (one["cpu"], one["expires"], _hex(one["function"]), _plain(one["symbol"]))
        for one in answer["timers"]
    }


def _plain(symbol: str | None) -> str:
    """A symbol without its module, which crash has in brackets of its own."""
    return (symbol or "").partition(" [")[0]


def hrtimers(text: str) -> Fields:
    found: Fields = {}
    cpu = 0
    for line in text.splitlines():
        of_cpu = re.match(r"CPU: (\d+)", line)
        cpu = int(of_cpu.group(1)) if of_cpu else cpu
        pattern = r" *(\d+) +(\d+) +-?\d+ +(\w{16}) +(\w{16}) +<(.*)>"
        for soft, expires, address, function, name in _rows(line, pattern):
            found[_hex(address)] = cpu, int(soft), int(expires), _hex(function), name
    return found


def our_hrtimers(answer: Json) -> Fields:
    return {
        _hex(one["address"]): (
            one["cpu"],
            one["soft_expires"],
            one["expires"],
            _hex(one["function"]),
            _plain(one["symbol"]),
        )
        for one in answer["timers"]
    }


def runq(text: str) -> Fields:
    found: Fields = {}
    for cpu, address, body in re.findall(r"(?ms)^CPU (\d+) RUNQUEUE: (\w+)\n(.*?)(?=^CPU|\Z)", text):
        current, *queued = re.findall(r"PID: (\d+) +TASK: (\w+)", body)
        found[int(cpu)] = _hex(address), _hex(current[1]), sorted(_hex(task) for _, task in queued)
    return found


def our_runq(answer: Json) -> Fields:
    return {
        queue["cpu"]: (
            _hex(queue["address"]),
            _hex(queue["current"]["task"]),
            sorted(_hex(task["task"]) for task in queue["queued"]),
        )
        for queue in answer["queues"]
    }


def dev(text: str) -> Fields:
    characters, _, blocks = text.partition("BLKDEV")
    found: Fields = {}
    for which, part in (("character", characters), ("block", blocks)):
        for major, name, address, operations in _rows(part, r" *(\d+) +(\S+) +(\w{16}|\(none\)) *(\S*)"):
            is_there = address != "(none)"
            # A block device's disk is of orcdbg's `dev -d`.
            found[which, int(major), name] = (_hex(address), operations) if is_there and which == "character" else None
    return found


def our_dev(answer: Json) -> Fields:
    found: Fields = {}
    for one in answer["characters"]:
        value = (_hex(one["cdev"]), _plain(one["symbol"])) if one["cdev"] else None
        found["character", one["major"], one["name"]] = value
    for one in answer["blocks"]:
        found["block", one["major"], one["name"]] = None
    return found


def mod(text: str) -> Fields:
    return {
        _hex(address): (name, _hex(base), int(size))
        for address, name, base, size in _rows(text, r"(\w{16}) +(\S+) +(\w{16}) +(\d+) .*")
    }


def our_mod(answer: Json) -> Fields:
    return {_hex(one["module"]): (one["name"], _hex(one["text"]), one["size"]) for one in answer["modules"]}


def sys_(text: str) -> Fields:
    found = {name.strip(): value.strip() for name, value in re.findall(r"(?m)^ *([A-Z ]+): (.*)$", text)}
    asked = ("CPUS", "DATE", "UPTIME", "LOAD AVERAGE", "TASKS", "NODENAME", "RELEASE", "VERSION", "PANIC")
    return {
        name: found[name].partition(" (")[0].strip('"') if name == "CPUS" else found[name].strip('"') for name in asked
    }


def our_sys(answer: Json) -> Fields:
    import datetime

    system = answer["system"]
    seconds = system["uptime"] // 10**9
    date = datetime.datetime.strptime(system["date"], "%Y-%m-%d %H:%M:%S UTC")
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return {
        "CPUS": str(system["cpus"]),
        "DATE": f"{date:%a %b} {date.day:2} {date:%H:%M:%S} UTC {date.year}",
        "UPTIME": f"{days} days, {clock}" if days else clock,
        "LOAD AVERAGE": system["load_average"],
        "TASKS": str(system["tasks"]),
        "NODENAME": system["nodename"],
        "RELEASE": system["release"],
        "VERSION": system["version"],
        "PANIC": system["panic_message"] or "",
    }


def log(text: str) -> Fields:
    """Each line by its number: the record's time and a part of its text."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        match = re.match(r"\[ *(\d+\.\d{6})\] ?(.*)", line)
        found.append((match.group(1), match.group(2).rstrip()) if match else ("", line.strip()))
    return {number: line for number, line in enumerate(found) if any(line)}


def our_log(answer: Json) -> Fields:
    lines: list[tuple[str, str]] = []
    for record in answer["records"]:
        time = f"{record['time'] // 10**9}.{record['time'] // 1000 % 10**6:06}"
        first, *more = record["text"].split("\n")
        lines.append((time, first.rstrip()))
        lines += [("", line.strip()) for line in more]
    lines += [("", f"[{one['buffer']}] {one['text'].strip()}") for one in answer["unflushed"]]
    return {number: line for number, line in enumerate(lines) if any(line)}


# Memory


def totals(text: str) -> Fields:
    return {name.strip(): int(pages) for name, pages in _rows(text, r" *([A-Z ]+?) +(\d+) .*")}


def our_totals(answer: Json) -> Fields:
    return {
        "TOTAL MEM": answer["total"],
        "FREE": answer["free"],
        "USED": answer["total"] - answer["free"],
        "BUFFERS": answer["buffers"],
        "CACHED": answer["cached"],
        "SLAB": answer["slab_reclaimable"] + answer["slab_unreclaimable"],
        "TOTAL HUGE": 0,  # none is set aside in a guest of the lab; orcdbg has no such line
        "HUGE FREE": 0,
        "TOTAL SWAP": answer["swap_total"],
        "SWAP USED": answer["swap_total"] - answer["swap_free"],
        "SWAP FREE": answer["swap_free"],
        "COMMIT LIMIT": answer["commit_limit"],
        "COMMITTED": answer["committed"],
    }


def caches(text: str) -> Fields:
    return {
        _hex(address): (int(size), int(allocated), int(total), int(slabs), int(kilobytes), name)
        for address, size, allocated, total, slabs, kilobytes, name in _rows(
            text, r"(\w{16}) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)k +(.*)"
        )
    }


def our_caches(answer: Json) -> Fields:
    return {
        _hex(one["cache"]): (
            one["object_size"],
            one["allocated"],
            one["objects"],
            one["slabs"],
            4 << one["order"],
            one["name"],
        )
        for one in answer["caches"]
    }


def slab_object(text: str) -> Fields:
    """Of `kmem ADDR` in a slab: cache, the object, whether it is allocated, and its slab's counts."""
    found: Fields = {}
    for address, size, _, _, _, _, name in _rows(text, r"(\w{16}) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)k +(.*)"):
        found["cache"] = _hex(address), int(size), name
    for slab, memory, _, total, allocated, _ in _rows(text, r" +(\w{16}) +(\w{16}) +(\d+) +(\d+) +(\d+) +(\d+)"):
        found["slab"] = _hex(slab), _hex(memory), int(total), int(allocated)
    for object_, _ in _rows(text, r"   (\w{16}|\[\w{16}\])(  \(cpu \d+ cache\))?"):
        found["object"] = _hex(object_.strip("[]")), object_.startswith("[")
    for object_, _ in _rows(text, r"  (\[\w{16}\])(.*)"):
        found["object"] = _hex(object_.strip("[]")), True
    return found


def our_slab_object(answer: Json, allocated: int) -> Fields:
    """`allocated` objects of the slab are so in `kmem -S`: its own counter takes those that a CPU keeps for allocated."""
    found: Fields = {}
    for one in answer["addresses"][0]["findings"]:
        if one["kind"] == "slab":
            found["cache"] = _hex(one["cache_address"]), one["object_size"], one["cache"]
            found["slab"] = _hex(one["slab"]), _hex(one["slab_memory"]), one["slab_objects"], allocated
            found["object"] = _hex(one["object"]), one["state"] == "allocated"
    return found


# Structures


def listed(text: str) -> Fields:
    """Nodes in their order, with the members that were asked for."""
    found: Fields = {}
    for node, body in re.findall(r"(?ms)^(\w{16})\n(.*?)(?=^\w{16}$|\Z)", text):
        found[len(found)] = _hex(node), members(body)
    return found


def our_listed(answer: Json) -> Fields:
    return {
        number: (_hex(node["address"]), {name: _our_value(value) for name, value in node["values"].items()})
        for number, node in enumerate(answer["nodes"])
    }


def members(text: str) -> Fields:
    found: Fields = {}
    for name, value in re.findall(r"(?m)^ +(\w+) = (.*?),? *$", text):
        string = re.fullmatch(r'"(.*?)(?:\\000.*)?"', value)
        found[name] = string.group(1) if string else int(value.split()[0], 0)
    return found


def our_members(answer: Json) -> Fields:
    return {one["name"]: _our_value(one["value"]) for one in answer["members"]}


def _our_value(value: Any) -> Any:
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def tree(text: str) -> Fields:
    """crash 9.0.2 prints nodes of a maple tree in decimal, all others in hexadecimal."""
    return {
        number: int(line, 10) if re.fullmatch(r"\d{19,20}", line) else _hex(line)
        for number, line in enumerate(text.split())
    }


def our_tree(answer: Json) -> Fields:
    return {number: _hex(one["address"]) for number, one in enumerate(answer["entries"])}


def vtop(text: str) -> Fields:
    found: Fields = {}
    for level, value in re.findall(r"(P4D|PUD|PMD|PTE): \w+ => (\w+)", text):
        found[level] = _hex(value)
    for address, physical in _rows(text, r"(\w+) +(\w+)")[:2]:
        if address != "VIRTUAL":
            found[_hex(address)] = _hex(physical)
    return found


def our_vtop(answer: Json) -> Fields:
    levels = {one["level"]: _hex(one["value"]) for one in answer["mapping"] if one["level"] != "PGD"}
    mapped = {_hex(answer["address"]): _hex(answer["physical"])} if answer["physical"] else {}
    return {**levels, **mapped}


def words(text: str) -> Fields:
    found: Fields = {}
    for address, line in _rows(text, r"(\w+): +((?:\w{16} ?)+)(?:  .*)?"):
        for number, word in enumerate(line.split()):
            found[_hex(address) + 8 * number] = _hex(word)
    return found


def our_words(answer: Json) -> Fields:
    return {_hex(one["address"]): _hex(one["value"]) for one in answer["words"]}


def hits(text: str) -> Fields:
    return {_hex(address): _hex(value) for address, value in _rows(text, r"(\w+): (\w+)")}


def our_hits(answer: Json) -> Fields:
    return {_hex(one["address"]): _hex(one["value"]) for one in answer["hits"]}


Read = Callable[[str], Fields]
ReadOurs = Callable[[Json], Fields]
