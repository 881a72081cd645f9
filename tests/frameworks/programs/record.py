"""Run an example, and write what every update of it used, as the optimizer itself sees it.

python record.py FOLDER EXAMPLE ARGUMENTS...

Each of the arguments is those of one run, separated by spaces, and the runs share a process.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_pre_hook

FIELDS = ("lr", "weight_decay")

folder, example, *runs = sys.argv[1:]
used = []


def record(optimizer, *_):
    used.append([[float(group[field]) for field in FIELDS] for group in optimizer.param_groups])


register_optimizer_step_pre_hook(record)
sys.path[0] = str(Path(example).parent)  # as `python EXAMPLE` has it
environment = dict(os.environ)
results = []
for arguments in runs:
    sys.argv = [example, *arguments.split()]
    used.clear()
    runpy.run_path(example, run_name="__main__")
    results.append([*used])
    os.environ.clear()  # torchft's example leaves the address of its server there
    os.environ.update(environment)
Path(folder, "results.json").write_text(json.dumps(results))
