"""Cases of collectives: what is sent when the first rank decides, and when nothing may be sent."""

from __future__ import annotations

import threading
from collections import Counter
from unittest import mock

import torch
import torch.distributed as dist
from cases import build, case, cases, load, saved_state, timed
from torch.utils._python_dispatch import TorchDispatchMode


class ChangedMessageError(Exception):
    """Has another message once it was pickled."""

    def __init__(self, name):
        super().__init__(f"cannot use {name}")


class TwoPartError(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, name, value):
        super().__init__(f"{name} is {value}")


class Unloadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self):
        return int, ("not a number",)


def raising(error):
    def fail():
        raise error

    return fail


@cases(
    "a_reader",
    {
        "returns": lambda: {"a": [1.0, None, "b"]},
        "raises": raising(KeyError("lr")),
        "returns_what_cannot_be_pickled": threading.Lock,
        "returns_what_cannot_be_unpickled": Unloadable,
        "raises_what_cannot_be_unpickled": raising(TwoPartError("lr", 1.0)),
        "raises_what_pickle_changes": raising(ChangedMessageError("lr")),
    },
)
def a_reader(ranks, fault):
    """Load with a reader that only the first rank may call."""
    scheduler, state = build(ranks), saved_state(ranks)
    wrong_rank = raising(TypeError("called on another rank"))
    reader = (lambda: (state, fault())) if ranks.is_first else wrong_rank
    yield timed(lambda: repr(scheduler.load_with(reader)))


@case
def one_rank_loads_locally(ranks):
    scheduler = build(ranks)
    if ranks.rank == ranks.size - 1:
        yield load(scheduler, saved_state(ranks), local=True)
    received = torch.full((1,), float(ranks.rank + 7), device=ranks.device)
    dist.broadcast(received, src=ranks.ranks[0], group=ranks.group)
    yield {"ended": {"received": received.item()}, "seconds": 0.0}


class Operations(TorchDispatchMode):
    """Collects the names of all operations on process groups."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "c10d":
            self.names.append(function._schema.name)
        return function(*args, **(kwargs or {}))


COLLECTIVES = ["all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce"]
COLLECTIVES += ["all_to_all", "all_to_all_single", "barrier", "broadcast", "broadcast_object_list"]
COLLECTIVES += ["gather", "gather_object", "irecv", "isend", "monitored_barrier", "recv", "reduce"]
COLLECTIVES += ["reduce_scatter", "reduce_scatter_tensor", "scatter", "scatter_object_list", "send"]
COLLECTIVES += ["recv_object_list", "send_object_list", "batch_isend_irecv", "new_group"]


def count(action):
    """Count the calls of torch's collectives, and the operations that they make."""
    calls = Counter()

    def counting(name):
        real = getattr(dist, name)

        def call(*args, **options):
            calls[name] += 1
            return real(*args, **options)

        return call

    with (
        mock.patch.multiple(dist, **{name: counting(name) for name in COLLECTIVES}),
        Operations() as operations,
    ):
        action()
    return {"calls": calls, "operations": len(operations.names)}


@case
def collectives(ranks):
    scheduler = build(ranks)
    state = saved_state(ranks)
    actions = {
        "construction": lambda: build(ranks),
        "step": scheduler.step,
        "seek": lambda: scheduler.seek(3),
        "num_steps": lambda: setattr(scheduler, "num_steps", 3),
        "state_dict": scheduler.state_dict,
        "get_last_lr": scheduler.get_last_lr,
        "repr": lambda: repr(scheduler),
        "check_position": lambda: scheduler.check_position(3),
        "a local load": lambda: scheduler.load_state_dict(state, local=True),
        "an optimizer's load": lambda: scheduler.optimizer.load_state_dict(
            scheduler.optimizer.state_dict()
        ),
        "load": lambda: scheduler.load_state_dict(state),
        "synchronize": scheduler.synchronize,
        "verify": scheduler.verify,
    }
    yield {"ended": {name: count(act) for name, act in actions.items()}, "seconds": 0.0}


@case
def two_schedulers(ranks):
    """Load two schedulers, with a barrier of the caller's in between."""
    halved = build(ranks, max_lr=0.5)
    scheduler = build(ranks)
    yield load(halved, saved_state(ranks, max_lr=0.5))
    dist.barrier(group=ranks.group)
    yield load(scheduler, saved_state(ranks))
