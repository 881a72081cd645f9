"""torchtitan's Trainer on CPU: its own command line, the config of examples/torchtitan_config.py.

Each run of the arguments is `<config>:<folder>:<steps>`. What every update used and what was logged
with it is written for each.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.optim import optimizer as torch_optimizer

import worker

# It needs triton, which no CPU has. Its kernels are of experts in parallel.
sys.modules["torchtitan.distributed.minimal_async_ep.kernels"] = mock.MagicMock()
from torchtitan.tools import utils  # noqa: E402

# torchtitan falls back to CUDA where it finds no accelerator.
utils.device_type = "cpu"
utils.device_module = SimpleNamespace(
    set_device=lambda _: None,
    device_count=lambda: 1,
    current_device=lambda: 0,
    get_device_name=lambda _: "CPU",
    get_device_properties=lambda _: SimpleNamespace(total_memory=1),
    memory_stats=lambda _: {},
    reset_peak_memory_stats=lambda: None,
    empty_cache=lambda: None,
    synchronize=lambda: None,
)
utils.get_local_device = lambda: torch.device("cpu")

from torchtitan import train  # noqa: E402
from torchtitan.components.checkpointer import CheckpointManager  # noqa: E402
from torchtitan.components.dataloader import BaseDataLoader  # noqa: E402
from torchtitan.components.metrics import MetricsProcessor  # noqa: E402
from torchtitan.components.optimizer import OptimizersContainer  # noqa: E402
from torchtitan.components.tokenizer import BaseTokenizer  # noqa: E402
from torchtitan.distributed import utils as distributed_utils  # noqa: E402
from torchtitan.distributed.activation_checkpoint import FullAC  # noqa: E402
from torchtitan.models.common.attention import ScaledDotProductAttention  # noqa: E402
from torchtitan.trainer import Trainer  # noqa: E402

EXAMPLES = Path(__file__).parents[3] / "examples"
sys.path.insert(0, str(EXAMPLES))
import torchtitan_config  # noqa: E402
from torchtitan.models.llama3.config_registry import llama3_debugmodel  # noqa: E402


class Tokens(BaseDataLoader):
    """The same tokens for ever."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        pass

    def __init__(self, *, seq_len, local_batch_size, **_):
        self.tokens = torch.ones(local_batch_size, seq_len, dtype=torch.long)

    def __iter__(self):
        while True:
            yield {"input": self.tokens.clone()}, self.tokens

    def state_dict(self):
        return {}

    def load_state_dict(self, state_dict):
        pass


class NoTokenizer(BaseTokenizer):
    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, **_):
        super().__init__()

    def encode(self, *_, **__):
        return []

    def decode(self, *_, **__):
        return ""

    def get_vocab_size(self):
        return 2048


def small(config):
    """Return a config that a CPU trains in a second."""
    model = config.model_spec.model
    del model.layers[1:]
    for layer in model.layers:
        layer.attention.inner_attention = ScaledDotProductAttention.Config()
    config.dataloader = Tokens.Config()
    config.tokenizer = NoTokenizer.Config()
    config.activation_checkpoint = FullAC.Config()
    config.validator.enable = False
    # With torchtitan's default, fully_shard of torch 2.13 refuses its parameters.
    config.parallelism.spmd_backend = "partial_dtensor"
    config.training.disable_cuda_graphs = True
    config.training.local_batch_size = 1
    config.training.seq_len = 64
    return config


def ours():
    return small(torchtitan_config.debugmodel())


def ours_async():
    config = ours()
    config.checkpoint.async_mode = "async"
    return config


def own_manager():
    config = ours()
    config.checkpoint = CheckpointManager.Config(enable=True, interval=7)
    return config


def own():
    config = own_manager()
    config.lr_scheduler = llama3_debugmodel().lr_scheduler
    return config


def train_run(name, folder, steps):
    """Run torchtitan's command line; return what every update used, and what was logged with it."""
    used, logged, is_update = [], [], False

    def train_step(trainer, data):
        nonlocal is_update
        for module in trainer.model_parts[0].modules():
            if isinstance(module, FSDPModule):  # gloo has no other reduction
                module.set_force_sum_reduction_for_comms(True)
        is_update = True  # a save and a load make updates of their own
        wrapped(trainer, data)
        is_update = False

    def note(optimizer, *_):
        if is_update and not isinstance(optimizer, OptimizersContainer):  # it is an Optimizer too
            used.extend([group["lr"], group["weight_decay"]] for group in optimizer.param_groups)

    def log(*_, extra_metrics):
        logged.append({k: v for k, v in extra_metrics.items() if "/" in k})

    wrapped = Trainer.train_step
    hook = torch_optimizer.register_optimizer_step_pre_hook(note)
    arguments = ["--module", "__main__", "--config", name, "--dump_folder", folder]
    arguments += ["--training.steps", steps, "--comm.trace_buf_size", "0"]
    with (
        mock.patch.object(sys, "argv", ["train", *arguments]),
        mock.patch.object(Trainer, "train_step", train_step),
        mock.patch.object(MetricsProcessor, "log", log),
        # A second group of the same processes would find the addresses of the first.
        mock.patch.object(dist, "init_process_group"),
        mock.patch.object(dist, "destroy_process_group"),
        # It calls torch.distributed.set_timeout, which torch 2.13 lacks.
        mock.patch.object(distributed_utils, "set_pg_timeouts"),
    ):
        train.main()
    hook.remove()
    return {"used": used, "logged": logged}


def main():
    with worker.joined():
        runs = [run.split(":") for run in sys.argv[1:]]
        worker.write({Path(run[1]).name: train_run(*run) for run in runs})


main()
