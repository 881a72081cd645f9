"""Bring faults into groups of ranks, and write how each ended on this rank."""

from __future__ import annotations

import argparse
import logging
import os
from datetime import timedelta
from pathlib import Path

import faults_bench
import faults_cases
import faults_lives
import faults_restore
import worker


def run(place):
    return {
        "ranks": place.ranks,
        "cases": {name: list(case(place)) for name, case in faults_cases.CASES.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--save", type=Path, help="folder to save models to")
    parser.add_argument("--load", type=Path, help="folder to load models from")
    parser.add_argument("--device", default="cpu", choices=worker.BACKENDS)
    arguments = parser.parse_args()
    logger = logging.getLogger("dist_sched")
    logger.addHandler(faults_bench.LOG)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # Forked before this process has threads.
    found = {"lives": faults_lives.lives() if arguments.device == "cpu" else {}}
    with worker.joined(arguments.device, timeout=timedelta(seconds=20)) as device:
        places = faults_bench.places(device, Path(os.environ["WORKER_RESULTS"]))
        found["places"] = {name: run(place) for name, place in places.items()}
        if arguments.save:
            found["models"] = faults_restore.save(arguments.save)
        if arguments.load:
            found["models"] = faults_restore.load(arguments.load)
        worker.write(found)


if __name__ == "__main__":
    main()
