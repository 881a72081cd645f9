"""How tests start real processes: one torchrun for many cases, judged by what each rank wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import launch

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="session")
def torchrun(tmp_path_factory):
    """Return `launch` of one of the programs: every launch gets a folder of its own."""

    def run(program, world_size, *args, **options):
        __tracebackhide__ = True
        folder = tmp_path_factory.mktemp(Path(program).stem)
        return launch(folder, PROGRAMS / program, world_size, *args, **options)

    return run
