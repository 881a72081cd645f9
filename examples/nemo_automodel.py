"""Fine-tune with NeMo AutoModel's recipe; run it again in the same folder, and it goes on.

python examples/nemo_automodel.py FOLDER UPDATES
"""

import sys

from nemo_automodel.components.config.loader import ConfigNode
from nemo_automodel.recipes.llm.train_ft import TrainFinetuneRecipeForNextTokenPrediction

from dist_sched import adapters


def config(folder, updates):
    return {
        "step_scheduler": {
            "global_batch_size": 2,
            "local_batch_size": 2,
            "max_steps": updates,
            "ckpt_every_steps": updates,
        },
        "dist_env": {"backend": "nccl", "timeout_minutes": 1},
        "distributed": {"strategy": "fsdp2"},
        "model": {
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_config",
            "config": {"_target_": "transformers.LlamaConfig", "vocab_size": 100},
        },
        "checkpoint": {"checkpoint_dir": folder, "model_save_format": "torch_save"},
        "loss_fn": {"_target_": "nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy"},
        "dataset": {
            "_target_": "nemo_automodel.components.datasets.llm.mock.build_unpacked_dataset",
            "num_sentences": 64,
            "tokenizer": None,
        },
        "dataloader": {
            "_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
            "collate_fn": "nemo_automodel.components.datasets.utils.default_collater",
        },
        "optimizer": {
            "_target_": "torch.optim.AdamW",
            "lr": 1e-3,
            "weight_decay": 0.1,
            "param_group_overrides": [{"pattern": "norm", "lr_mult": 0.5, "wd_mult": 0.0}],
        },
        "lr_scheduler": {"lr_warmup_steps": 4, "lr_decay_steps": 16, "wd_incr_steps": 16},
    }


def train(folder, updates):
    recipe = TrainFinetuneRecipeForNextTokenPrediction(ConfigNode(config(folder, updates)))
    recipe.setup()
    recipe.run_train_validation_loop()


if __name__ == "__main__":
    adapters.nemo.install()  # the one line: the recipe trains with our scheduler, and saves it
    train(sys.argv[1], int(sys.argv[2]))
