"""Print what a step of a scheduler costs beside an AdamW with a tensor lr for each group.

python scripts/gpu_figures.py              # on the GPU
python scripts/gpu_figures.py --device cpu
python scripts/gpu_figures.py --check      # ends with status 1, and a line, where there is none
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.util import find_spec

STEPS = 100
GROUPS = (1, 10, 100, 1000)
TESTS_NEED = ("pytest", "pytest_timeout", "hypothesis")


def missing() -> str:
    """Return what this machine lacks for a check, as a line; empty if it lacks nothing."""
    if find_spec("torch") is None:
        return f"{sys.executable} has no torch"
    import torch

    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 11):
        return f"torch is {torch.__version__}, and 2.11 or newer is needed"
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "torch sees no NVIDIA GPU here"
    lacking = [name for name in TESTS_NEED if find_spec(name) is None]
    return f"{sys.executable} has no {', '.join(lacking)}" if lacking else ""


def row(device: str, count: int) -> str:
    """Return the figures of a number of groups, as a line of a table."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from dist_sched import ParamScheduler, schedules

    groups = [
        {
            "params": [torch.ones(2, device=device, requires_grad=True)],
            "lr": torch.tensor(1.0, device=device),
        }
        for _ in range(count)
    ]
    optimizer = torch.optim.AdamW(groups, capturable=device == "cuda", foreach=False)
    scheduler = ParamScheduler(optimizer, {"lr": schedules.cosine(1.0, 10 * STEPS)})
    is_cuda = device == "cuda"

    def synchronize() -> None:
        if is_cuda:
            torch.cuda.synchronize()

    scheduler.step()
    synchronize()
    before = torch.cuda.memory_allocated() if is_cuda else 0
    begin = time.perf_counter()
    for _ in range(STEPS):
        scheduler.step()
    enqueued = time.perf_counter()
    synchronize()
    finished = time.perf_counter()
    kept = torch.cuda.memory_allocated() - before if is_cuda else 0
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profile(activities=activities) as profiled:
        scheduler.step()
        synchronize()
    launched = sum(event.device_type.name == device.upper() for event in profiled.events())
    host, whole = (1e6 * (end - begin) / STEPS for end in (enqueued, finished))
    return f"| {count} | {launched} | {host:.0f} | {whole:.0f} | {kept} |"


def main() -> None:
    """Print the table, or what is missing for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lacking = missing() if options.check or options.device == "cuda" else ""
    if lacking:
        sys.exit(lacking)
    if options.check:
        return
    import torch

    card = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    print(f"torch {torch.__version__} on {card}, lr a tensor for each group\n")
    print("| groups | launches a step | host, us a step | until done, us a step | bytes kept |")
    print("| --- | --- | --- | --- | --- |")
    for count in GROUPS:
        print(row(options.device, count), flush=True)


if __name__ == "__main__":
    main()
