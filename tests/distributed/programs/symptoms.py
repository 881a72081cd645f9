"""Make the faults of ranks that docs/troubleshooting.md shows, and write what each rank says."""

from __future__ import annotations

import datetime as dt

import torch.distributed as dist

from dist_sched import ParamScheduler, Phase, Schedule
from helpers import sgd
from page_helpers import output_of
from worker import joined, write


def build(end=1.0, process_group=None, **arguments):
    lr = Schedule([Phase("linear", 8, end=end, start=0.0)])
    groups = arguments.pop("names", ["body"])
    return ParamScheduler(
        sgd(*({"name": name} for name in groups)),
        {"lr": lr},
        process_group=process_group,
        **arguments,
    )


def said(action):
    """Return what an action logs, and what it raises."""

    def run():
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever it is
            print(f"{type(error).__name__}: {error}")  # noqa: T201 - into what is compared

    return output_of(run)


def main():
    with joined():
        rank = dist.get_rank()
        other = build(end=0.5 if rank else 1.0)
        short = dist.new_group(timeout=dt.timedelta(seconds=2))
        result = {
            "disagree": said(other.verify),
            "adopts": said(lambda: other.load_state_dict(other.state_dict())),
            "first step": said(build(groups={"head": {"lr": 0.5}}).step),
        }
        lonely = build(process_group=short)
        if rank == 0:
            result["alone"] = said(lambda: lonely.load_state_dict(lonely.state_dict()))
        write(result)


main()
