"""Measure a step of the schedule with a tensor lr for each group, on a GPU.

python -m benchmarks.gpu              # on the GPU
python -m benchmarks.gpu --device cpu
python -m benchmarks.gpu --check      # ends with status 1, and a line, where there is none
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.table import Result

GROUPS = (1, 10, 100, 1_000, 10_000)
ROUNDS = 20
TESTS_NEED = ("pytest", "pytest_timeout", "hypothesis")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
"""What the host calls to wait for the GPU. The profiler itself waits for the whole device."""


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


def measure(device: str, name: str, groups: int) -> dict[str, float]:
    """Return what a step of a scheduler costs over so many groups.

    Returns:
        µs until the host goes on, µs until the device is done, how many kernels and copies the
        device ran, how often the host waited for it, and the bytes that steps kept.
    """
    import torch

    from benchmarks import peers

    optimizer = peers.adamw(
        groups,
        lambda _: {"lr": torch.tensor(peers.PEAK, device=device)},
        device=device,
        capturable=device == "cuda",
        foreach=False,
    )
    step = _step(name, optimizer)
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    hold: Callable[[], int] = torch.cuda.memory_allocated if device == "cuda" else lambda: 0
    step()
    wait()
    held, host, whole = hold(), [], []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        step()
        host.append(time.perf_counter() - begin)
        wait()
        whole.append(time.perf_counter() - begin)
    launched, waits = _profiled(device, step)
    return {
        "host, µs": 1e6 * statistics.median(host),
        "until done, µs": 1e6 * statistics.median(whole),
        "kernels and copies": launched,
        "waits": waits,
        "bytes kept": hold() - held,
    }


def _step(name: str, optimizer: Any) -> Callable[[], None]:
    """Return one step of a scheduler of lr alone, or the filling of each lr."""
    from benchmarks import peers

    if name == peers.FLOOR:
        return lambda: peers.fill(optimizer.param_groups, 1e-3, 0.1)
    if name != peers.PHASES:
        return peers.step_of(name, optimizer)
    from dist_sched import ParamScheduler, schedules

    scheduler = ParamScheduler(optimizer, {"lr": schedules.cosine(peers.PEAK, peers.HORIZON)})
    scheduler.step(peers.START)
    return lambda: scheduler.step(1)


def _profiled(device: str, step: Callable[[], None]) -> tuple[int, int]:
    """Return what a step launches on the device, and how often it waits."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiled:
        step()
    events = list(profiled.events())
    launched = sum(event.device_type.name == device.upper() for event in events)
    return launched, sum(event.name in WAITS for event in events)


def result(*, is_quick: bool, device: str = "cuda") -> Result:
    """Measure on the GPU, or say that there is none."""
    from benchmarks import peers, table

    what = "step, tensor lr on the GPU"
    lacking = missing() if device == "cuda" else ""
    if lacking:
        rows = [table.Row(what=what, ours=None, reason=f"no GPU ({lacking})")]
        return table.Result(title="On a GPU", rows=rows)
    names = (peers.PHASES, peers.LAMBDA, peers.COSINE, peers.FLOOR)
    found = {
        (groups, name): measure(device, name, groups)
        for groups in ((1, 10) if is_quick else GROUPS)
        for name in names
    }
    rows = []
    for groups in dict.fromkeys(groups for groups, _ in found):
        ours, floor = found[groups, peers.PHASES], found[groups, peers.FLOOR]
        at = f"{what}, {table.counted(groups, 'group')}"
        rows += [
            table.Row(
                what=f"{at}: time of the host",
                ours=ours["host, µs"],
                against="floor",
                theirs=floor["host, µs"],
            ),
            table.Row(
                what=f"{at}: kernels and copies",
                ours=ours["kernels and copies"],
                unit="",
                most=1 if device == "cuda" else None,
            ),
            table.Row(what=f"{at}: waits", ours=ours["waits"], unit="", most=0),
        ]
    head = ["groups", "", *next(iter(found.values()))]
    cells = [
        [f"{groups:,}", name, *map(table.show, figures.values())]
        for (groups, name), figures in found.items()
    ]
    lines = ["### Tensor lr on the GPU", "", *table.mark_down([head, *cells]), ""]
    return table.Result(title="On a GPU", rows=rows, details="\n".join(lines))


def main() -> None:
    """Print the table, or what is missing for it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lacking = missing() if options.check or options.device == "cuda" else ""
    if lacking:
        sys.exit(lacking)
    if options.check:
        return
    import torch

    from benchmarks import table

    card = torch.cuda.get_device_name() if options.device == "cuda" else "the CPU"
    print(f"torch {torch.__version__} on {card}\n")
    found = result(is_quick=False, device=options.device)
    print("\n".join([*table.align(table.of_rows(found.rows)), "", found.details]))


if __name__ == "__main__":
    main()
