"""Run an example, and write what every update of it used, as the optimizer itself sees it.

python record.py FOLDER EXAMPLE [ITS ARGUMENTS]
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_pre_hook

FIELDS = ("lr", "weight_decay")

folder, example, *arguments = sys.argv[1:]
used = []


def record(optimizer, *_):
    used.append([[float(group[field]) for field in FIELDS] for group in optimizer.param_groups])


register_optimizer_step_pre_hook(record)
sys.argv = [example, *arguments]
sys.path[0] = str(Path(example).parent)  # as `python EXAMPLE` has it
runpy.run_path(example, run_name="__main__")
Path(folder, f"rank{os.environ.get('RANK', '0')}.json").write_text(json.dumps(used))
