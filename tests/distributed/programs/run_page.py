"""The Python of a page, as a script of its own: what every update used is written for each rank.

    run_page.py PAGE KILLED_AFTER [ARGUMENT…]

After so many updates every rank kills itself with SIGKILL; 0 lets them run to the end.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

import worker

page, killed_after, *arguments = sys.argv[1:]
used = []


def record(optimizer, *_):
    lr = float(optimizer.param_groups[0]["lr"])
    if lr > 0:  # DCP makes an update with an lr of 0, to create the state that it loads
        used.append(lr)
        worker.write(used)
    if len(used) == int(killed_after) > 0:
        os.kill(os.getpid(), signal.SIGKILL)


register_optimizer_step_post_hook(record)
code = "\n".join(re.findall(r"```python[^\n]*\n(.*?)```", Path(page).read_text(), re.DOTALL))
sys.argv = ["train.py", *arguments]
exec(compile(code, page, "exec"), {"__name__": "__main__"})  # noqa: S102
