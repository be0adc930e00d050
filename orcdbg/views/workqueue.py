"""How do workers, work and workqueues look?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orcdbg.commands.workqueue import Workqueues
from orcdbg.subsystems.workqueues import Pool, Worker, WorkItem
from orcdbg.views.columns import address, columns
from orcdbg.views.page import Line, line, problem_lines
from orcdbg.views.records import record
from orcdbg.views.view import Json, Width, view


def _lines(result: Workqueues, width: Width) -> Iterator[Line]:
    is_quiet = True
    for pool in result.pools:
        lines = list(_pool(pool, result))
        is_quiet = is_quiet and not lines
        yield from lines
    waiting = [queue for queue in result.queues if queue.inactive]
    for queue in waiting:
        yield line((f"WORKQUEUE {queue.name}: above its limit", "header"))
        yield from _works(queue.inactive, result.symbols)
    if is_quiet and not waiting:
        yield line(("No work is pending, and every worker is idle", "note"))
    if result.with_all:
        rows = ((address(queue.address), queue.active, len(queue.inactive), queue.name) for queue in result.queues)
        yield from columns(("WORKQUEUE", ">ACTIVE", ">INACTIVE", "NAME"), rows)
    yield from problem_lines(result.problems)


def _pool(pool: Pool, result: Workqueues) -> Iterator[Line]:
    workers = [worker for worker in pool.workers if result.with_all or worker.work]
    if not (workers or pool.pending or result.with_all):
        return
    where = "unbound" if pool.cpu < 0 else f"CPU {pool.cpu}"
    nice = "" if pool.nice is None else f", nice {pool.nice}"
    yield line(
        (f"POOL {pool.number}: ", "header"),
        f"{where}{nice}, workers: {len(pool.workers)}, pending: {len(pool.pending)}  ",
        (address(pool.address), "slot"),
    )
    if workers:
        rows = (
            (worker.pid, address(worker.task), *_current(worker, result.symbols), worker.comm) for worker in workers
        )
        yield from columns((">PID", "TASK", "WORK", "WORKQUEUE", "FUNCTION", "COMMAND"), rows, symbol=4)
    if pool.pending:
        yield line(("PENDING:", "label"))
        yield from _works(pool.pending, result.symbols)


def _current(worker: Worker, symbols: Mapping[int, str]) -> tuple[str, str, str]:
    if not worker.work:
        return "-", "-", "(idle)"
    return address(worker.work), worker.queue or "-", symbols.get(worker.function, address(worker.function))


def _works(works: list[WorkItem], symbols: Mapping[int, str]) -> Iterator[Line]:
    rows = ((address(work.address), work.queue, symbols.get(work.function, address(work.function))) for work in works)
    yield from columns(("WORK", "WORKQUEUE", "FUNCTION"), rows)


def _work_json(work: WorkItem, symbols: Mapping[int, str]) -> Json:
    return record(work, ("address", "function"), symbol=symbols.get(work.function))


def _json(result: Workqueues) -> Json:
    symbols = result.symbols
    pools = [
        record(
            pool,
            ("address",),
            workers=[
                record(worker, ("address", "task", "work", "function"), symbol=symbols.get(worker.function))
                for worker in pool.workers
            ],
            pending=[_work_json(work, symbols) for work in pool.pending],
        )
        for pool in result.pools
    ]
    queues = [
        record(queue, ("address",), inactive=[_work_json(work, symbols) for work in queue.inactive])
        for queue in result.queues
    ]
    return {"pools": pools, "workqueues": queues, "problems": list(result.problems)}


view(Workqueues, text=_lines, json=_json)
