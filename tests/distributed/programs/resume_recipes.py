"""Save runs of every recipe in `examples/recipes` at some positions, and resume each from there.

    resume_recipes.py save FOLDER
    resume_recipes.py load FOLDER

The folder is shared by all ranks. `save` returns by recipe what the first group and the extras held
at each position, `load` the same from every save on.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch.distributed.checkpoint as dcp

import worker
from recipe_helpers import NAMES, build, held, held_at, splits_of


def save(folder):
    return {name: saved(name, folder) for name in NAMES}


def saved(name, folder):
    scheduler, run = build(name), []
    for position in splits_of(name):
        run.append(held_at(scheduler, position))
        dcp.save({"scheduler": scheduler}, checkpoint_id=folder / f"{name}-{position}")
    scheduler.verify()
    return run


def load(folder):
    return {name: resumed(name, folder) for name in NAMES}


def resumed(name, folder):
    splits, runs = splits_of(name), []
    for index, split in enumerate(splits):
        scheduler = build(name)
        dcp.load({"scheduler": scheduler}, checkpoint_id=folder / f"{name}-{split}")
        scheduler.check_position(split)
        later = [held_at(scheduler, position) for position in splits[index + 1 :]]
        scheduler.seek(split)
        runs.append([held(scheduler), *later])
        scheduler.verify()
    return runs


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    logging.disable(logging.WARNING)
    with worker.joined():
        worker.write({"save": save, "load": load}[mode](folder))


if __name__ == "__main__":
    main()
