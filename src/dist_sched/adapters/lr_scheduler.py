"""A scheduler as a `torch.optim.lr_scheduler.LRScheduler`."""

from __future__ import annotations
