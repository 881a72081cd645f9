"""Train runs and save each after every update; resume each from every save.

A JSON file declares the runs: the number of updates, and for each kind of run its configs by name.
Kinds: plain (every rank has the whole model), fsdp, and tensor (fsdp with a tensor lr).
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import worker
from dist_sched import OptimizerParamScheduler

LOADS = {
    "alone": [["scheduler"]],
    "optimizers first": [["optimizers"], ["scheduler"]],
    "optimizers last": [["scheduler"], ["optimizers"]],
    "together": [["optimizers", "scheduler"]],
}
"""By name, the loads one after the other, each with the parts of a run that it loads.

DCP loads parts in the order of their names, so "together" is optimizers first.
"""

ROUTES = {
    ("plain",): [
        ("dcp", "alone"),
        ("torch", "alone"),
        ("torch", "optimizers first"),
        ("torch", "optimizers last"),
    ],
    ("fsdp", "tensor"): [
        ("dcp", "alone"),
        ("dcp", "optimizers last"),
        ("dcp", "together"),
        ("async", "together"),
    ],
}
"""By kinds of run: the storage that they are resumed from, and the loads."""


class PlainOptimizers:
    """Optimizers of parameters that every rank has as a whole."""

    def __init__(self, optimizers, _):
        self.optimizers = optimizers

    def update(self):
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for param in group["params"]:
                    param.grad = torch.ones_like(param)
            optimizer.step()

    def state_dict(self):
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states):
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class ShardedOptimizers:
    """Optimizers of a sharded model, saved and loaded with it as in DCP's tutorial."""

    def __init__(self, optimizers, model):
        self.optimizers = optimizers
        self.model = model
        self.batch = torch.ones(2, 4, device=next(model.parameters()).device)

    def update(self):
        self.model(self.batch).square().mean().backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self):
        model, optimizers = get_state_dict(self.model, self.optimizers)
        return {"model": model, "optimizers": optimizers}

    def load_state_dict(self, state):
        set_state_dict(
            self.model,
            self.optimizers,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizers"],
        )


class Run:
    """A decay and a no-decay group in one optimizer, and a third group in a second optimizer.

    The no-decay group comes last of the two in a plain run, and first in a sharded one.
    """

    def __init__(self, kind, config, mesh):
        groups, model = (plain_groups if kind == "plain" else sharded_groups)(mesh)
        self.names = list(groups)
        cls, options = torch.optim.AdamW, {}
        if kind == "plain":
            cls, options = torch.optim.SGD, {"momentum": 0.9}
        if kind == "tensor":
            # AdamW refuses capturable=True where the parameters are on a CPU.
            options = {"foreach": False, "capturable": mesh.device_type == "cuda"}
            for group in groups.values():
                group["lr"] = torch.tensor(group["lr"], device=mesh.device_type)
        self.lrs = [group["lr"] for group in groups.values()]
        *first, second = groups.values()
        optimizers = [cls(each, **options) for each in (first, [second])]
        self.scheduler = OptimizerParamScheduler(optimizers, **config)
        self.optimizers = (PlainOptimizers if model is None else ShardedOptimizers)(
            optimizers, model
        )

    def groups(self):
        return [group for each in self.optimizers.optimizers for group in each.param_groups]

    def values(self):
        """Return lr and weight decay of every group, by the group's name."""
        return {
            name: [float(group[key]).hex() for key in ("lr", "weight_decay")]
            for name, group in zip(self.names, self.groups(), strict=True)
        }

    def keeps_lr_objects(self):
        return all(mine is group["lr"] for mine, group in zip(self.lrs, self.groups(), strict=True))

    def finish(self, updates):
        """Return the values of the updates that are left, and of the one after them.

        Only the first update is really made, because a scheduler does not see updates.
        """
        sequence = [self.values()]
        for left in range(updates):
            if left == 0:
                self.optimizers.update()
            self.scheduler.step()
            sequence.append(self.values())
        return sequence


def plain_groups(mesh):
    params = [torch.nn.Parameter(torch.ones(2, device=mesh.device_type)) for _ in range(3)]
    return {
        "decay": {"params": params[:1], "lr": 0.5, "weight_decay": 0.5},
        "no_decay": {"params": params[1:2], "lr": 0.5, "weight_decay": 0.0},
        "second": {"params": params[2:], "lr": 0.25, "weight_decay": 0.125},
    }, None


def sharded_groups(mesh):
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)).to(mesh.device_type)
    fully_shard(model, mesh=mesh)
    linear, norm = model
    return {
        "no_decay": {"params": [linear.bias], "lr": 0.5, "weight_decay": 0.0},
        "decay": {"params": [linear.weight], "lr": 0.5, "weight_decay": 0.5},
        "second": {"params": list(norm.parameters()), "lr": 0.25, "weight_decay": 0.125},
    }, model


def build(kinds, declared, mesh):
    return {
        f"{kind}/{name}": Run(kind, config, mesh)
        for kind in kinds
        for name, config in declared["runs"][kind].items()
    }


def parts_of(runs, parts):
    return {f"{key}.{part}": getattr(run, part) for key, run in runs.items() for part in parts}


def train(declared, folder, mesh):
    """Make all updates of every run without a break, and save each after every update.

    For torch.save, the optimizers' states are from before the scheduler's step and the scheduler's
    is from after it: the optimizers carry the lr and weight decay of the update before.
    """
    folder.mkdir(exist_ok=True)
    plain, sharded = (build(kinds, declared, mesh) for kinds in ROUTES)
    runs = plain | sharded
    optimizers = states(parts_of(plain, ["optimizers"]))
    saver = dist.new_group(backend="gloo")
    saving = None
    found = {"values": [], "states": []}
    for done in range(declared["updates"] + 1):
        found["values"].append({key: run.values() for key, run in runs.items()})
        found["states"].append({key: run.scheduler.state_dict() for key, run in runs.items()})
        if dist.get_rank() == 0:
            schedulers = states(parts_of(plain, ["scheduler"]))
            torch.save(schedulers, folder / f"torch-{done}.scheduler")
            torch.save(optimizers, folder / f"torch-{done}.optimizers")
        everything = parts_of(sharded, ["optimizers", "scheduler"])
        dcp.save(everything | parts_of(plain, ["scheduler"]), checkpoint_id=folder / f"dcp-{done}")
        if saving is not None:
            saving.result()
        saving = dcp.async_save(
            everything, checkpoint_id=folder / f"async-{done}", process_group=saver
        )
        for run in runs.values():
            run.optimizers.update()
        optimizers = states(parts_of(plain, ["optimizers"]))
        for run in runs.values():
            run.scheduler.step()
    saving.result()
    dist.barrier()
    return found


def states(parts):
    return {name: part.state_dict() for name, part in parts.items()}


def resume(declared, folder, mesh):
    """Resume every run from every save by every route, each time with new objects."""
    found = {}
    for kinds, routes in ROUTES.items():
        for store, how in routes:
            load = load_torch if store == "torch" else load_dcp
            for done in range(declared["updates"] + 1):
                runs = build(kinds, declared, mesh)
                for parts in LOADS[how]:
                    load(runs, parts, folder / f"{store}-{done}")
                for key, run in runs.items():
                    values = run.finish(declared["updates"] - done)
                    outcome = {"values": values, "keeps_lr_objects": run.keeps_lr_objects()}
                    found.setdefault(f"{key} from {store}, {how}", []).append(outcome)
    return found


def load_torch(runs, parts, path):
    for part in parts:
        saved = torch.load(path.with_suffix(f".{part}"), weights_only=True, map_location="cpu")
        for key, loaded in parts_of(runs, [part]).items():
            loaded.load_state_dict(saved[key])


def load_dcp(runs, parts, path):
    dcp.load(parts_of(runs, parts), checkpoint_id=path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("runs", type=Path, help="the JSON file")
    parser.add_argument("--train", type=Path, help="folder to save to")
    parser.add_argument("--resume", type=Path, help="folder to resume from")
    parser.add_argument("--device", default="cpu", choices=worker.BACKENDS)
    arguments = parser.parse_args()
    declared = json.loads(arguments.runs.read_text())
    logging.getLogger("dist_sched").setLevel(logging.ERROR)
    with worker.joined(arguments.device):
        mesh = init_device_mesh(arguments.device, (dist.get_world_size(),))
        found = {}
        if arguments.train:
            found["trained"] = train(declared, arguments.train, mesh)
        if arguments.resume:
            found["resumed"] = resume(declared, arguments.resume, mesh)
        worker.write(found)


if __name__ == "__main__":
    main()
