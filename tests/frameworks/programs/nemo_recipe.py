"""Run the real recipe of NeMo AutoModel on the CPU, several times in one process.

Each argument is whose scheduler, the folder and the number of updates, joined by commas: `theirs`
is AutoModel's, before anything is installed, `ours` the example, `built` a schedule of one's own.
Writes lr and weight decay of every group at every update, and whether a recipe knew our scheduler
before and after, as one line of JSON.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dist_sched import ParamScheduler, adapters, schedules
from helpers import adamw, opt_param_scheduler

EXAMPLE = Path(__file__).parents[3] / "examples/nemo_automodel.py"


def tiny_model(*_, **__):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "vocab_size": 100}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads))


def use_cpu():
    """Replace what the recipe calls of CUDA, which it does without asking for a device.

    That is the builder of models too: `from_config` of AutoModel 0.7.0 makes a CUDA device.
    """
    from nemo_automodel.recipes.llm import train_ft

    train_ft.build_model = tiny_model
    torch.cuda.reset_peak_memory_stats = lambda *_: None


def knows_ours():
    from nemo_automodel.recipes.base_recipe import BaseRecipe

    recipe = BaseRecipe()
    recipe.lr_scheduler = [opt_param_scheduler(adamw())]
    return "lr_scheduler" in recipe.__dict__["__state_tracked"]


def build(optimizers):
    fields = {"lr": schedules.linear(1e-3, 16, warmup=4), "weight_decay": 0.1}
    return ParamScheduler(optimizers, fields)


def run(whose, folder, number):
    if whose == "ours":
        sys.argv = [str(EXAMPLE), folder, number]
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        return
    if whose == "built":
        adapters.nemo.install(build)
    runpy.run_path(str(EXAMPLE))["train"](folder, int(number))


def main():
    use_cpu()
    updates = []

    def record(optimizer, *_):
        groups = optimizer.param_groups
        if any(group["lr"] for group in groups):  # DCP makes an update at 0 when it loads
            updates.append([[group["lr"], group["weight_decay"]] for group in groups])

    register_optimizer_step_pre_hook(record)
    arguments, knew, runs = sys.argv[1:], knows_ours(), []
    for argument in arguments:
        updates.clear()
        run(*argument.split(","))
        runs.append([*updates])
    result = {"runs": runs, "knew": knew, "knows": knows_ours()}
    sys.stdout.write(f"\nRESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main()
