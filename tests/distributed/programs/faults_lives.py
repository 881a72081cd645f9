"""Ranks that die, and process groups that come late or go early: each in processes of its own.

torchrun takes down all its workers when one of them dies, which would hide how the others see it.
So each worker forks a child for each of these lives; the children of all workers join through
torchrun's own store, and some of them die.
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
from faults_bench import Place, attempt, build, load, optimizer, places, saved
from torch.distributed.distributed_c10d import _set_pg_timeout

PATIENCE = timedelta(seconds=3)
"""Timeout of the groups that lose a rank."""
LIMIT = timedelta(seconds=30)
"""A child that has told nothing by then hangs."""

CPU = torch.device("cpu")
ALONE = Place(group=None, ranks=(), device=CPU, folder=Path())


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def before(state):
    die()
    return state


class Deadly(dict):
    """A state that kills the rank which looks at it, as the first rank does while it decides."""

    __bool__ = die


def between(state):
    """Die when the decision's length is sent, and its bytes are not."""
    fates = iter([dist.broadcast, die])

    def broadcast(*args, **options):
        return next(fates)(*args, **options)

    mock.patch("torch.distributed.distributed_c10d.broadcast", broadcast).start()
    return state


def never(state):
    """Stay silent until the others have given up."""
    time.sleep(PATIENCE.total_seconds() + 1)
    die()
    return state


def dying(fate, where="all", *, is_victim=lambda place: place.is_first):
    """Make the life of a rank whose group loses one just before it loads."""

    def live(store):
        join(store)
        place = places(CPU, Path()).get(where)
        meet(store, "ready")
        if place is None or place.size == 1:  # nobody would be left to tell
            return None
        _set_pg_timeout(PATIENCE, place.group)
        state = saved(place)
        return load(build(place), fate(state) if is_victim(place) else state)

    return live


def stale(store):
    """Verify when the last rank holds what no schedule writes: an integer tensor."""
    join(store)
    place = places(CPU, Path())["all"]
    _set_pg_timeout(PATIENCE)
    scheduler = build(place)
    if place.is_another:
        scheduler.optimizer.param_groups[0]["lr"] = torch.tensor(1)
    return attempt(scheduler, scheduler.verify)


def born_early(store):
    """Build the scheduler before there is a process group, and load with it."""
    scheduler, state = build(ALONE), saved(ALONE)
    join(store)
    return load(scheduler, state if dist.get_rank() == 0 else {})


def outliving(store):
    """Load when the process group is gone: each rank by itself."""
    join(store)
    scheduler = build(ALONE)
    meet(store, "ready")
    dist.destroy_process_group()
    return load(scheduler, saved(ALONE))


LIVES = {
    "the_first_rank_dies_before_it_decides": dying(before),
    "the_first_rank_dies_while_it_decides": dying(Deadly),
    "the_first_rank_dies_while_it_tells": dying(between),
    "the_first_rank_never_decides": dying(never),
    "the_first_rank_of_a_part_dies": dying(Deadly, "part"),
    "the_first_rank_of_a_mesh_dimension_dies": dying(Deadly, "mesh"),
    "another_rank_dies_before_it_hears": dying(before, is_victim=lambda place: place.is_another),
    "another_rank_holds_an_integer_tensor": stale,
    "the_process_group_comes_after_the_scheduler": born_early,
    "the_process_group_is_gone_before_the_load": outliving,
}


class Child:
    """One of these lives, in a process of its own."""

    def __init__(self, name):
        context = multiprocessing.get_context("fork")
        self.connection, connection = context.Pipe(duplex=False)
        self.process = context.Process(target=run, args=(name, connection))
        self.process.start()
        connection.close()

    def told(self):
        """Wait for what it tells; None where it died before."""
        if not self.connection.poll(LIMIT.total_seconds()):
            return {"ended": {"error": "hangs", "message": ""}}
        try:
            return self.connection.recv()
        except EOFError:
            return None

    def end(self):
        self.process.kill()
        self.process.join()


def run(name, connection):
    # None outlives a worker that is killed.
    faulthandler.dump_traceback_later(float(os.environ["WORKER_TIMEOUT"]), exit=True)
    connection.send(LIVES[name](dist.PrefixStore(name, torchruns_store())))
    signal.pause()


def join(store):
    meet(store, "joining")
    rank, size = whoami()
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=LIMIT)


def whoami():
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def torchruns_store():
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(host, port, is_master=False)


def meet(store, where):
    """Wait until all ranks are there."""
    rank, size = whoami()
    store.set(f"{where} {rank}", "")
    store.wait([f"{where} {each}" for each in range(size)], 2 * LIMIT)


def lives():
    """Live them all side by side, and tell how each ended here."""
    optimizer(ALONE)  # imports, once for all
    children = {name: Child(name) for name in LIVES}
    told = {name: child.told() for name, child in children.items()}
    meet(torchruns_store(), "told")  # nobody leaves before all have been told
    for child in children.values():
        child.end()
    return told
