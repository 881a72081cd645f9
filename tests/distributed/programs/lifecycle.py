"""Ranks that die, and process groups that come late or go early.

torchrun ends all its workers when one of them dies, which would hide what the others see. So each
worker forks a child for each of these cases. The children of one case, one a worker, form a process
group through torchrun's own store, and some of them die.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from cases import Ranks, adamw, attempt, build, groups_of_ranks, load, saved_state
from torch.distributed.distributed_c10d import _set_pg_timeout

GROUP_TIMEOUT = timedelta(seconds=3)
"""Timeout of the groups that lose a rank."""
CHILD_TIMEOUT = timedelta(seconds=30)
"""A child that has sent no record by then hangs."""

CPU = torch.device("cpu")
UNGROUPED = Ranks(group=None, ranks=(), device=CPU, folder=Path())


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_the_load(state):
    die()
    return state


class DieWhenRead(dict):
    """A state that kills the rank which looks at it, as the first rank does when it decides."""

    __bool__ = die


def die_within_the_broadcast(state):
    """Die after the outcome's length is sent, and before its bytes are."""
    broadcasts = iter([dist.broadcast, die])

    def broadcast(*args, **options):
        return next(broadcasts)(*args, **options)

    mock.patch("torch.distributed.distributed_c10d.broadcast", broadcast).start()
    return state


def die_after_the_others_timed_out(state):
    time.sleep(GROUP_TIMEOUT.total_seconds() + 1)
    die()
    return state


def load_while_one_dies(fault, group="all", *, is_victim=lambda ranks: ranks.is_first):
    """Return a case in which one rank of a group dies when it loads what `fault` returns."""

    def run(store):
        join(store)
        ranks = groups_of_ranks(CPU, Path()).get(group)
        meet(store, "ready")
        if ranks is None or ranks.size == 1:  # no other rank could see the death
            return None
        _set_pg_timeout(GROUP_TIMEOUT, ranks.group)
        state = saved_state(ranks)
        return load(build(ranks), fault(state) if is_victim(ranks) else state)

    return run


def verify_an_integer_tensor(store):
    """Verify when the last rank has an lr that no schedule writes: an integer tensor."""
    join(store)
    ranks = groups_of_ranks(CPU, Path())["all"]
    _set_pg_timeout(GROUP_TIMEOUT)
    scheduler = build(ranks)
    if ranks.is_another:
        scheduler.optimizer.param_groups[0]["lr"] = torch.tensor(1)
    return attempt(scheduler, scheduler.verify)


def load_in_a_later_group(store):
    """Build the scheduler before there is a process group, and load when there is one."""
    scheduler, state = build(UNGROUPED), saved_state(UNGROUPED)
    join(store)
    return load(scheduler, state if dist.get_rank() == 0 else {})


def load_after_the_group(store):
    """Load when the process group is gone: each rank by itself."""
    join(store)
    scheduler = build(UNGROUPED)
    meet(store, "ready")
    dist.destroy_process_group()
    return load(scheduler, saved_state(UNGROUPED))


CASES = {
    "the_first_rank_dies_before_it_decides": load_while_one_dies(die_before_the_load),
    "the_first_rank_dies_while_it_decides": load_while_one_dies(DieWhenRead),
    "the_first_rank_dies_while_it_sends": load_while_one_dies(die_within_the_broadcast),
    "the_first_rank_never_decides": load_while_one_dies(die_after_the_others_timed_out),
    "the_first_rank_of_a_part_dies": load_while_one_dies(DieWhenRead, "part"),
    "the_first_rank_of_a_mesh_dimension_dies": load_while_one_dies(DieWhenRead, "mesh"),
    "another_rank_dies_before_it_receives": load_while_one_dies(
        die_before_the_load, is_victim=lambda ranks: ranks.is_another
    ),
    "another_rank_holds_an_integer_tensor": verify_an_integer_tensor,
    "the_process_group_comes_after_the_scheduler": load_in_a_later_group,
    "the_process_group_is_gone_before_the_load": load_after_the_group,
}


def run_all():
    """Run all cases side by side; return this worker's records, None where its child died."""
    adamw(UNGROUPED)  # imports much, here once and not in each child
    children = {name: Child(name) for name in CASES}
    records = {name: child.receive() for name, child in children.items()}
    meet(torchruns_store(), "received")  # a child that ended would be a peer that is gone
    for child in children.values():
        child.end()
    return records


class Child:
    """A process that runs one case."""

    def __init__(self, name):
        context = multiprocessing.get_context("fork")
        self.connection, connection = context.Pipe(duplex=False)
        self.process = context.Process(target=run, args=(name, connection))
        self.process.start()
        connection.close()

    def receive(self):
        """Wait for the record; None if the child died before it sent one."""
        if not self.connection.poll(CHILD_TIMEOUT.total_seconds()):
            return {"ended": {"error": "hangs", "message": ""}}
        try:
            return self.connection.recv()
        except EOFError:
            return None

    def end(self):
        self.process.kill()
        self.process.join()


def run(name, connection):
    # A worker that is killed leaves its children behind: they end themselves.
    faulthandler.dump_traceback_later(float(os.environ["WORKER_TIMEOUT"]), exit=True)
    connection.send(CASES[name](dist.PrefixStore(name, torchruns_store())))
    signal.pause()


def join(store):
    meet(store, "joining")
    rank, size = rank_and_world_size()
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=CHILD_TIMEOUT)


def rank_and_world_size():
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def torchruns_store():
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False)


def meet(store, name):
    """Wait until all ranks are here."""
    rank, size = rank_and_world_size()
    store.set(f"{name} {rank}", "")
    store.wait([f"{name} {each}" for each in range(size)], 2 * CHILD_TIMEOUT)
