"""Run every fault case on groups of ranks, and write how each ended on this rank."""

from __future__ import annotations

import argparse
import logging
import os
from datetime import timedelta
from pathlib import Path

import agree_cases  # noqa: F401 - an import adds the cases of a module
import cases
import collective_cases  # noqa: F401
import lifecycle
import load_cases  # noqa: F401
import models
import torch.distributed as dist
import verify_cases  # noqa: F401

import worker


def run(ranks):
    return {
        "ranks": ranks.ranks,
        "cases": {name: list(case(ranks)) for name, case in cases.CASES.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--save", type=Path, help="folder to save models to")
    parser.add_argument("--load", type=Path, help="folder to load models from")
    parser.add_argument("--device", default="cpu", choices=worker.BACKENDS)
    arguments = parser.parse_args()
    logger = logging.getLogger("dist_sched")
    logger.addHandler(cases.LOG)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # These fork, which is safe only before this process has threads.
    results = {"lifecycle": lifecycle.run_all() if arguments.device == "cpu" else {}}
    with worker.joined(arguments.device, timeout=timedelta(seconds=20)) as device:
        groups = cases.groups_of_ranks(device, Path(os.environ["WORKER_RESULTS"]))
        results["groups"] = {}
        for name in cases.GROUPS:
            dist.barrier()  # else a rank outside a group would wait in the next one, on its clock
            if name in groups:
                results["groups"][name] = run(groups[name])
        if arguments.save:
            results["models"] = models.save(arguments.save)
        if arguments.load:
            results["models"] = models.load(arguments.load)
        worker.write(results)


if __name__ == "__main__":
    main()
