"""Train a small byte-level language model with FSDP2, stop it at any moment, resume it exactly.

Start on two processes, then go on from the newest checkpoint on three:

    torchrun --standalone --nproc-per-node 2 scripts/train_fsdp.py --checkpoint-dir runs/a
    torchrun --standalone --nproc-per-node 3 scripts/train_fsdp.py --checkpoint-dir runs/a --resume

The options declare the schedule, or a config file does (--config). Look at it before the run:

    python scripts/train_fsdp.py --checkpoint-dir runs/a --config schedule.yaml --dry-run

The text is Python's own standard library, so nothing is downloaded. The run is on CUDA with NCCL
where every process of a machine can have a GPU, otherwise on the CPU with gloo. Without torchrun,
`python scripts/train_fsdp.py …` is a run on one process.

Position n means that n updates are done; the k-th update uses the learning rate and weight decay of
position k-1. The metrics file has one line for each update, with the values it used:

    {"position": 0, "lr": {"decay": 0.0, "no_decay": 0.0}, "wd": {"decay": 0.1, "no_decay": 0.0},
     "loss": 5.6, "start": 0, "world_size": 2}

"start" is the position at which the processes that made the update started or resumed.

One job at a time uses a checkpoint folder: rank 0 holds a lock on the file "lock" in it, which the
kernel frees when rank 0 ends. An error of the disk ends every rank with status 2 and one line.
"""
# ruff: noqa: E402 - the process is bound to its launcher before torch is imported

from __future__ import annotations

import ctypes
import os
import signal
import sys

LAUNCHER = os.getppid()
PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
IS_UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID" in os.environ
# However the launcher ends, the kernel then kills this process. Otherwise it would train on, in the
# way of a resume. Without torchrun, a run may outlive the shell that started it. This comes before
# the import of torch, because that takes seconds in which the launcher may end.
if IS_UNDER_TORCHRUN and sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

import argparse
import fcntl
import hashlib
import json
import logging
import re
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional

from dist_sched import ConfigError, ReconcileError, StateError, from_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.device_mesh import DeviceMesh

    from dist_sched import OptimizerParamScheduler, ParamScheduler

log = logging.getLogger("train_fsdp")

GROUPS = ("decay", "no_decay")
SCHEDULE: dict[str, tuple[float | str | None, str]] = {
    "init_lr": (0.0, "learning rate at position 0, where there is warmup"),
    "max_lr": (3e-3, "learning rate after warmup"),
    "min_lr": (3e-4, "learning rate at the end of the schedule"),
    "lr_warmup_steps": (None, "length of warmup (default: a tenth of the schedule)"),
    "lr_decay_steps": (None, "end of the schedule (default: --updates)"),
    "lr_decay_style": ("cosine", "constant, linear, cosine, inverse-square-root or WSD"),
    "wsd_decay_steps": (None, "WSD only: length of the decay before the end"),
    "lr_wsd_decay_style": (None, "WSD only: linear, cosine, exponential or minus_sqrt"),
    "start_wd": (0.1, "weight decay at position 0"),
    "end_wd": (0.1, "weight decay from --wd-incr-steps on"),
    "wd_incr_steps": (None, "end of its change (default: --lr-decay-steps)"),
    "wd_incr_style": ("constant", "constant, linear or cosine"),
}
"""The schedule's entries, under the scheduler's names for them: default and help."""

# What torchrun sets in the environment, for a run without it; port 0 is any free one.
WITHOUT_TORCHRUN = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}
MAX_NORM = 1.0  # of all gradients together
# A resume with another value would have other shapes, or other samples.
FIXED = ("width", "layers", "heads", "sequence_length", "seed")


# Errors


class Failure(Exception):  # noqa: N818 - it is the end of the run, not a bug in it
    """Ends the run with a message of one line and status 2."""


def fail(message: str) -> NoReturn:
    """Raise `Failure`."""
    raise Failure(message)


def end(failure: Failure) -> NoReturn:
    """Print why the run fails on rank 0, and exit with status 2 on every rank."""
    if from_torchrun("RANK") == 0:
        print(f"train_fsdp.py: error: {failure}", file=sys.stderr, flush=True)
    else:
        time.sleep(2)  # torchrun ends all ranks once one exits: let rank 0 print first
    # Not SystemExit: threads of torch's could abort a process that still has a process group.
    os._exit(2)


@contextmanager
def same_outcome(doing: str, folder: Path) -> Iterator[None]:
    """Go on where the disk did what every rank asked of it, else fail on every rank. Collective.

    An error of one rank would otherwise leave the others waiting for it. So nothing in the block
    may be collective, unless it fails on every rank or on none, as DCP's save does.
    """
    message = None
    try:
        yield
    except Failure as failure:
        message = str(failure)
    except (OSError, CheckpointException) as error:
        message = f"{doing}: {describe(error)}; {describe_newest(folder)}"
    messages: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(messages, message)
    for failed in filter(None, messages):
        fail(failed)


def describe(error: OSError | CheckpointException) -> str:
    """Return an error as one line; of several ranks' errors, the first."""
    if isinstance(error, OSError):
        text = str(error)
    else:
        rank, (cause, _) = min(error.failures.items(), key=lambda failure: failure[0])
        text = f"rank {rank}: {cause!r}"
    return " ".join(text.split())


def describe_newest(folder: Path) -> str:
    """Return what a run can go on from after an error."""
    try:
        complete = complete_checkpoints(folder)
    except OSError as error:
        return f"the checkpoints in {folder} cannot be read ({error.strerror})"
    if not complete:
        return f"{folder} holds no complete checkpoint"
    return f"{complete[-1]} is complete, and --resume goes on from it"


# The launcher


def check_launcher() -> None:
    """Fail if torchrun's launcher ended before this process could be bound to it."""
    try:
        if IS_UNDER_TORCHRUN and os.getppid() != LAUNCHER:
            raise ConnectionError
        # It may have ended before this program's first line: look for the store that it serves.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            store = os.environ["MASTER_ADDR"], from_torchrun("MASTER_PORT")
            socket.create_connection(store, timeout=60).close()
    except OSError:
        fail("the launcher ended before the run began")


# Arguments


def from_torchrun(name: str) -> int:
    """Return one of the numbers that torchrun sets for each process."""
    return int(os.environ.get(name, WITHOUT_TORCHRUN[name]))


class Parser(argparse.ArgumentParser):
    """Fails as the rest of the program does: once, not once for each rank."""

    def error(self, message: str) -> NoReturn:
        """Raise `Failure`."""
        fail(f"{message} (--help explains the options)")


def number(text: str) -> float:
    """Read an int where the text is one, else a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def count(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def make_parser() -> Parser:
    """Return the command line's parser."""
    parser = Parser(
        prog="train_fsdp.py",
        usage="torchrun --standalone --nproc-per-node N scripts/train_fsdp.py "
        "--checkpoint-dir DIR [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_run_options(parser)
    add_checkpoint_options(parser)
    add_schedule_options(parser)
    return parser


def add_run_options(parser: Parser) -> None:
    """Add what says how long and on what."""

    def add(flag: str, default: int, text: str, read: Any = count) -> None:
        text += " (default: %(default)s)"
        group.add_argument(flag, type=read, default=default, metavar="N", help=text)

    group = parser.add_argument_group("run")
    add("--updates", 200, "train until so many optimizer updates are done in all")
    add("--global-batch", 12, "samples in an update, all processes together")
    add("--sequence-length", 64, "bytes of text in a sample")
    add("--seed", 1, "decides the first weights and the choice of samples", int)
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: cuda where every process of this machine can have a GPU, else cpu",
    )
    group = parser.add_argument_group("model")
    add("--width", 64, "features of a byte, a multiple of --heads")
    add("--layers", 2, "transformer blocks")
    add("--heads", 4, "attention heads of a block")


def add_checkpoint_options(parser: Parser) -> None:
    """Add what is kept on disk, and how a run goes on from it."""
    group = parser.add_argument_group(
        "checkpoints and metrics",
        "A kill at any moment leaves the last complete checkpoint usable. After SIGTERM the\n"
        "update under way is finished, a checkpoint is saved, and every process exits with\n"
        "status 0 (torchrun itself exits with 1 where the signal came to it). Processes that wait\n"
        "for each other at the start end at once, as there is nothing to save.",
    )
    group.add_argument(
        "--checkpoint-dir",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the checkpoints of this one run; all its machines must see it",
    )
    group.add_argument(
        "--checkpoint-every",
        type=count,
        default=50,
        metavar="N",
        help="updates between checkpoints; the end is saved too (default: %(default)s)",
    )
    group.add_argument(
        "--keep",
        type=count,
        default=2,
        metavar="N",
        help="how many of the newest checkpoints stay (default: %(default)s)",
    )
    group.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="file with one JSON line for each update (default: DIR/metrics.jsonl)",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest complete checkpoint; the lines of updates that are made again "
        "are removed from the metrics file",
    )
    group.add_argument(
        "--policy",
        nargs="+",
        metavar="WORD",
        help="on --resume, who wins where the schedule of this command and the checkpoint's "
        "differ: 'checkpoint', 'config' (this command) or 'strict' (refuse a difference); or "
        "entry=word pairs, * for the rest: lr_decay_steps=config '*=checkpoint' "
        "(default: the config file's, or checkpoint)",
    )


def add_schedule_options(parser: Parser) -> None:
    """Add the schedule's entries."""
    group = parser.add_argument_group(
        "schedule",
        "Lengths are in updates and begin at the start of the run. The schedule's length and the\n"
        "run's (--updates) are two things: past the end of the schedule its last values stay.",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take the schedule from this .json, .yaml or .toml file, in place of the options "
        "below; it may count samples or tokens, and schedule any field",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="print the schedule, what is odd about it, and, where there is a checkpoint, what a "
        "resume would change; then end",
    )
    for name, (default, text) in SCHEDULE.items():
        read, metavar = (str, "STYLE") if name.endswith("_style") else (number, "X")
        shown = text if default is None else f"{text} (default: %(default)s)"
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, type=read, default=default, metavar=metavar, help=shown)


def read_policy(words: list[str] | None) -> str | dict[str, str] | None:
    """Return the one word, or the mapping that entry=word pairs make."""
    if words is None:
        return None
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    if len(pairs) < len(words):
        fail(f"--policy {' '.join(words)}: write one word, or entry=word pairs, each entry once")
    return pairs


def parse_arguments() -> argparse.Namespace:
    """Read the command line, set defaults that depend on other options, and check it."""
    args = make_parser().parse_args()
    args.policy = read_policy(args.policy)
    changed = [name for name, (default, _) in SCHEDULE.items() if getattr(args, name) != default]
    if args.config and changed:
        fail(f"--config {args.config} has the schedule: leave out --{changed[0].replace('_', '-')}")
    if args.lr_decay_steps is None:
        args.lr_decay_steps = args.updates
    if args.lr_warmup_steps is None:
        args.lr_warmup_steps = args.lr_decay_steps // 10
    if args.wd_incr_steps is None:
        args.wd_incr_steps = args.lr_decay_steps
    if args.metrics is None:
        args.metrics = args.checkpoint_dir / "metrics.jsonl"
    check_sizes(args)
    return args


def schedule_of(args: argparse.Namespace) -> Path | dict[str, Any]:
    """Return what `from_config` takes: the config file, or the options as a mapping."""
    options = {name: getattr(args, name) for name in SCHEDULE}
    return args.config or {name: value for name, value in options.items() if value is not None}


def check_sizes(args: argparse.Namespace) -> None:
    """Fail if sizes do not fit together."""
    world_size = from_torchrun("WORLD_SIZE")
    if args.global_batch < world_size:
        fail(f"--global-batch {args.global_batch} is too small for {world_size} processes")
    if args.width % args.heads:
        fail(f"--width {args.width} is not a multiple of --heads {args.heads}")


def check_files(args: argparse.Namespace) -> None:
    """Fail if there is nothing to resume from, or a start would overwrite other files."""
    folder = args.checkpoint_dir
    complete = complete_checkpoints(folder)
    if args.resume:
        newest_checkpoint(folder)
    elif complete:
        fail(
            f"--checkpoint-dir {folder} holds a run already (newest: {complete[-1].name}); "
            "add --resume to go on with it, or name another folder"
        )
    metrics_lines(args.metrics)


# Text


class Corpus:
    """The `.py` files of Python's standard library, as one text of bytes."""

    def __init__(self, sequence_length: int, seed: int) -> None:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        text = b"".join(file.read_bytes() for file in files)
        if len(text) <= sequence_length:
            fail(f"--sequence-length {sequence_length} is too long for {len(text)} bytes of text")
        self.fingerprint = hashlib.sha256(text).hexdigest()
        self._text = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self._length = sequence_length
        self._seed = seed

    def sample(self, index: int) -> torch.Tensor:
        """Return the bytes of one sample and the byte after them.

        Where it begins depends only on the seed and the index within the whole run, so that any
        number of processes reads the same samples.
        """
        key = hashlib.sha256(f"{self._seed} {index}".encode()).digest()
        begin = int.from_bytes(key[:8], "big") % (len(self._text) - self._length)
        return self._text[begin : begin + self._length + 1]

    def batch(self, indices: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets, shaped (samples, sequence length)."""
        samples = torch.stack([self.sample(index) for index in indices]).long()
        return samples[:, :-1], samples[:, 1:]


# Model


class LanguageModel(nn.Module):
    """Predicts each next byte."""

    def __init__(self, width: int, layers: int, heads: int, sequence_length: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, width)
        self.places = nn.Embedding(sequence_length, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                4 * width,
                dropout=0.0,
                activation=functional.gelu,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 256, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Map bytes (samples, length) to logits (samples, length, 256)."""
        length = text.shape[1]
        x = self.bytes(text) + self.places.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=text.device)
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def make_model(args: argparse.Namespace, mesh: DeviceMesh) -> LanguageModel:
    """Return the model, its parameters sharded over the mesh."""
    # One seed on every rank, because each keeps its shard of the same whole model.
    torch.manual_seed(args.seed)
    model = LanguageModel(args.width, args.layers, args.heads, args.sequence_length)
    model.to(mesh.device_type)
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW with the groups of `GROUPS`; the scheduler writes their lr and weight decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    # The scheduler keeps each group's ratio to the first: all of the weight decay, or none.
    decay = {"params": matrices, "weight_decay": 1.0, "name": GROUPS[0]}
    groups = [decay, {"params": vectors, "weight_decay": 0.0, "name": GROUPS[1]}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


# Checkpoints: step-00000050 is complete, step-00000050.tmp never is


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in `folder`, oldest first."""
    named = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    complete = [path for path in named if (path / ".metadata").is_file()]
    return sorted(complete, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path) -> Path:
    """Return the checkpoint that a resume goes on from."""
    complete = complete_checkpoints(folder)
    if not complete:
        fail(f"--resume: {folder} holds no complete checkpoint; start without --resume")
    return complete[-1]


def incomplete_checkpoints(folder: Path) -> list[Path]:
    """Return what a kill or an interrupted copy left in `folder`."""
    named = [p for p in folder.glob("step-*") if re.fullmatch(r"step-\d+(\.tmp)?", p.name)]
    return sorted(set(named) - set(complete_checkpoints(folder)))


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint, renamed first so that a kill leaves it incomplete by its name."""
    renamed = checkpoint.with_name(f"{checkpoint.name}.tmp")
    checkpoint.rename(renamed)
    shutil.rmtree(renamed)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FolderLock:
    """The right to use a checkpoint folder, which one job has; made on rank 0.

    The kernel frees it when the process ends, so nothing is left to remove after a kill.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lock"
        # Open until the process ends.
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fail(
                f"--checkpoint-dir {folder} is in use by another job, which holds {self._path}; "
                "wait for its end, or name another folder"
            )
        except OSError as error:
            log.warning(
                "%s cannot be locked (%s): see to it that no other job uses the folder",
                self._path,
                error.strerror,
            )

    def check(self) -> None:
        """Raise if the folder has been deleted, or replaced, so that another job may have it."""
        if not os.path.samestat(self._path.stat(), os.fstat(self._handle)):
            fail(f"{self._path.parent} was deleted and made again by something else")


def claim_folder(args: argparse.Namespace) -> FolderLock | None:
    """Lock the checkpoint folder and check what is in it; return rank 0's lock. Collective."""
    folder, lock = args.checkpoint_dir, None
    with same_outcome(f"--checkpoint-dir {folder}", folder):
        if dist.get_rank() == 0:
            if folder.exists() and not folder.is_dir():
                fail(f"--checkpoint-dir {folder} is not a folder")
            if args.resume and not folder.exists():
                newest_checkpoint(folder)  # fails before a folder of a misspelt name is made
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder)
            check_files(args)
    return lock


class Checkpoints:
    """The newest checkpoints of one run, each with what it must not change as its run.json."""

    def __init__(self, run: Run, lock: FolderLock | None) -> None:
        self._folder: Path = run.args.checkpoint_dir
        self._keep: int = run.args.keep
        self._identity = {name: getattr(run.args, name) for name in FIXED}
        self._identity["text"] = run.corpus.fingerprint
        self._lock = lock

    def clean(self) -> None:
        """Delete incomplete checkpoints. Collective."""
        with same_outcome(f"cleaning {self._folder}", self._folder):
            if dist.get_rank() == 0:
                for partial in incomplete_checkpoints(self._folder):
                    log.warning("removing the incomplete checkpoint %s", partial)
                    shutil.rmtree(partial)

    def save(self, state: dict[str, Any], position: int) -> None:
        """Save a checkpoint, which gets its final name when it is complete. Collective."""
        final = self._folder / f"step-{position:08d}"
        partial = final.with_name(f"{final.name}.tmp")
        with same_outcome(f"saving {final}", self._folder):
            if self._lock:
                self._lock.check()  # DCP would make a deleted folder again
        with same_outcome(f"saving {final}", self._folder):
            # DCP syncs each rank's files to the disk.
            save(state, storage_writer=FileSystemWriter(partial))
        with same_outcome(f"saving {final}", self._folder):
            if dist.get_rank() == 0:
                self._complete(partial, final)

    def _complete(self, partial: Path, final: Path) -> None:
        identity = partial / "run.json"
        identity.write_text(json.dumps(self._identity, indent=2) + "\n")
        # The rename may reach the disk only after everything that it stands for.
        sync(identity)
        sync(partial)
        partial.rename(final)
        sync(self._folder)
        log.info("saved %s", final)
        for old in complete_checkpoints(self._folder)[: -self._keep]:
            discard(old)

    def load_newest(self, state: dict[str, Any]) -> Path:
        """Load the newest complete checkpoint into `state`. Collective."""
        chosen: list[Any] = [None]
        with same_outcome(f"reading {self._folder}", self._folder):
            if dist.get_rank() == 0:
                chosen = [newest_checkpoint(self._folder)]
                self._check_identity(chosen[0])
        dist.broadcast_object_list(chosen, src=0)
        newest: Path = chosen[0]
        try:
            load(state, storage_reader=FileSystemReader(newest))
        except CheckpointException as error:
            fail(
                f"{newest} cannot be read; move it away, and --resume takes the one before it "
                f"({describe(error)})"
            )
        return newest

    def _check_identity(self, checkpoint: Path) -> None:
        path = checkpoint / "run.json"
        if not path.exists():
            fail(f"{checkpoint} was not made by this program: it has no {path.name}")
        try:
            saved = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            fail(
                f"{path} cannot be read ({error}); move {checkpoint.name} away to resume before it"
            )
        changed = [name for name in self._identity if saved.get(name) != self._identity[name]]
        if changed:
            rows = [f"{name} {self._identity[name]}, not {saved.get(name)}" for name in changed]
            fail(f"cannot go on from {checkpoint}: this run has {'; '.join(rows)}")


# Metrics and the progress bar


def metrics_lines(path: Path) -> dict[str, int]:
    """Return the complete lines of a metrics file, each with its position; none if it is missing.

    A kill may leave an incomplete last line.
    """
    if not path.exists():
        return {}
    try:
        lines = path.read_text().splitlines(keepends=True)
        return {line: int(json.loads(line)["position"]) for line in lines if line.endswith("\n")}
    except (OSError, ValueError, KeyError, TypeError):
        fail(f"--metrics {path} exists and is not a metrics file of this program")


def lines_before(position: int, path: Path) -> list[str]:
    """Return the lines of the updates before `position`; later updates are made again."""
    lines = metrics_lines(path)
    kept = [line for line, of_update in lines.items() if of_update < position]
    if len(kept) < len(lines):
        log.info("%s: removed %d updates, to be made again", path, len(lines) - len(kept))
    if len(kept) < position:
        log.warning("%s: has %d of the %d updates made before", path, len(kept), position)
    return kept


class Reporter:
    """The progress bar and the metrics file, on rank 0."""

    def __init__(self, path: Path, position: int, updates: int) -> None:
        from tqdm import tqdm

        lines = lines_before(position, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rewritten = path.with_name(f"{path.name}.tmp")
        rewritten.write_text("".join(lines))
        sync(rewritten)
        rewritten.replace(path)
        self._file = path.open("a")
        self.error: OSError | None = None
        self._bar = tqdm(
            total=updates,
            initial=position,
            unit="update",
            mininterval=0.2 if sys.stderr.isatty() else 5.0,
        )

    def add(self, record: dict[str, Any]) -> None:
        """Write one update; an error waits for `sync`, where every rank can hear of it."""
        if not self.error:
            try:
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()
            except OSError as error:
                self.error = error
        lr, wd = record["lr"]["decay"], record["wd"]["decay"]
        shown = f"loss {record['loss']:.3f}, lr {lr:.3e}, wd {wd:.4f}"
        self._bar.set_postfix_str(shown, refresh=False)
        self._bar.update()

    def sync(self) -> None:
        """Write the lines to the disk, before the checkpoint that they lead to."""
        if self.error:
            raise self.error
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Finish the bar and the file."""
        self._bar.close()
        with suppress(OSError):  # known from `add`, as each line was flushed
            self._file.close()


# The run


@dataclass
class Run:
    """Everything that an update needs and a checkpoint holds."""

    model: LanguageModel
    optimizer: torch.optim.Optimizer
    scheduler: OptimizerParamScheduler | ParamScheduler
    corpus: Corpus
    args: argparse.Namespace
    device: torch.device
    start: int = 0
    updates: int = 0
    samples: int = 0  # read over all ranks

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint is saved from and loaded into."""
        return {"run": self, "scheduler": self.scheduler}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps beside the scheduler."""
        model, optimizer = get_state_dict(self.model, self.optimizer)
        progress = {"updates": self.updates, "samples": self.samples}
        return {"model": model, "optimizer": optimizer, **progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what a checkpoint keeps beside the scheduler."""
        set_state_dict(
            self.model,
            self.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        self.updates, self.samples = state["updates"], state["samples"]

    def update(self, *, stop: bool) -> tuple[dict[str, Any], bool]:
        """Make one update; return its line of metrics, and whether any rank shall stop."""
        part = self._backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        record = self._record()  # the values that this update uses: before the scheduler moves on
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step(increment(self.args, self.scheduler.unit))
        self.updates += 1
        self.samples += self.args.global_batch
        sums = torch.tensor([part, float(stop)], dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        record["loss"], stops = sums.tolist()
        return record, stops > 0

    def _backward(self) -> float:
        """Compute the gradients of the global batch's mean loss; return this rank's part of it.

        Ranks may have unequal numbers of samples, so a part is a sum over the whole batch's size.
        """
        rank, world_size = dist.get_rank(), dist.get_world_size()
        begin, size = self.samples, self.args.global_batch
        inputs, targets = self.corpus.batch(range(begin + rank, begin + size, world_size))
        logits = self.model(inputs.to(self.device)).flatten(0, 1)
        total = functional.cross_entropy(logits, targets.flatten().to(self.device), reduction="sum")
        part = total / (size * self.args.sequence_length)
        (part * world_size).backward()  # FSDP divides the sum over ranks by their number
        return float(part.detach())

    def _record(self) -> dict[str, Any]:
        groups = dict(zip(GROUPS, self.optimizer.param_groups, strict=True))
        return {
            "position": self.updates,
            "lr": {name: float(group["lr"]) for name, group in groups.items()},
            "wd": {name: float(group["weight_decay"]) for name, group in groups.items()},
            "loss": None,
            "start": self.start,
            "world_size": dist.get_world_size(),
        }


def increment(args: argparse.Namespace, unit: str) -> int:
    """Return how many units an update completes, over all processes."""
    samples = int(args.global_batch)
    return {"steps": 1, "samples": samples, "tokens": samples * int(args.sequence_length)}[unit]


def make_run(args: argparse.Namespace, mesh: DeviceMesh, device: torch.device) -> Run:
    """Return a run at position 0."""
    model = make_model(args, mesh)
    optimizer = make_optimizer(model)
    # Built before a checkpoint is loaded, because it reads the ratios of new groups.
    scheduler = from_config(optimizer, schedule_of(args), policy=args.policy)
    corpus = Corpus(args.sequence_length, args.seed)
    return Run(model, optimizer, scheduler, corpus, args, device)


def resume(run: Run, checkpoints: Checkpoints) -> None:
    """Bring the run to where its newest checkpoint stands."""
    newest = checkpoints.load_newest(run.parts())
    run.start = run.updates
    run.scheduler.check_position(run.start * increment(run.args, run.scheduler.unit))
    log.info("resumed from %s on %d processes", newest, dist.get_world_size())


def train(run: Run, checkpoints: Checkpoints, stop: threading.Event) -> None:
    """Make updates and checkpoints until the run is done or any rank shall stop."""
    args = run.args
    reporter = None
    with same_outcome(f"writing {args.metrics}", args.checkpoint_dir):
        if dist.get_rank() == 0:
            reporter = Reporter(args.metrics, run.updates, args.updates)
    with closing(reporter) if reporter else nullcontext():
        is_stopping = make_updates(run, checkpoints, stop, reporter)
    if is_stopping:
        log.info("stopped by SIGTERM; --resume goes on from position %d", run.updates)
    else:
        log.info("done at position %d; --updates is %d", run.updates, args.updates)


def make_updates(
    run: Run, checkpoints: Checkpoints, stop: threading.Event, reporter: Reporter | None
) -> bool:
    """Make updates and checkpoints; return whether it was a rank that asked for the end."""
    args = run.args
    is_stopping = False
    while run.updates < args.updates and not is_stopping:
        metrics_failed = reporter is not None and reporter.error is not None
        record, is_stopping = run.update(stop=stop.is_set() or metrics_failed)
        if reporter:
            reporter.add(record)
        is_last = is_stopping or run.updates == args.updates
        if is_last or run.updates % args.checkpoint_every == 0:
            with same_outcome(f"writing {args.metrics}", args.checkpoint_dir):
                if reporter:
                    reporter.sync()
            checkpoints.save(run.parts(), run.updates)
    return is_stopping


def dry_run(args: argparse.Namespace) -> int:
    """Print what `dist-sched show`, `check` and `diff` say of this command; return a status."""
    # The same groups as in the run, for a config may name them.
    model = LanguageModel(args.width, args.layers, args.heads, args.sequence_length)
    try:
        unit = from_config(make_optimizer(model), schedule_of(args), policy=args.policy).unit
    except ConfigError as error:
        fail(str(error))
    with tempfile.TemporaryDirectory() as folder:
        config = args.config or Path(folder) / "options.json"
        if not args.config:
            config.write_text(json.dumps(schedule_of(args)))
        length = ["--updates", str(args.updates), "--increment", str(increment(args, unit))]
        commands = [["show", config], ["check", config, *length]]
        for newest in complete_checkpoints(args.checkpoint_dir)[-1:]:
            words = args.policy if isinstance(args.policy, dict) else {"*": args.policy}
            policy = [f"--policy={name}={word}" for name, word in words.items() if word]
            commands.append(["diff", newest, config, *policy])
        program = [sys.executable, "-m", "dist_sched.cli"]
        statuses = [subprocess.call([*program, *command]) for command in commands]
    return 2 if 2 in statuses else 0  # noqa: PLR2004 - the status of an error


def choose_device(choice: str) -> torch.device:
    """Return this process's device, and make it the current one."""
    processes = from_torchrun("LOCAL_WORLD_SIZE")
    enough = torch.cuda.device_count() >= processes
    if choice == "cuda" and not enough:
        fail(f"--device cuda: {torch.cuda.device_count()} GPUs for {processes} processes")
    if choice == "cpu" or not enough:
        return torch.device("cpu")
    device = torch.device("cuda", from_torchrun("LOCAL_RANK"))
    torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device: torch.device) -> Iterator[DeviceMesh]:
    """Join the other ranks in a mesh of one dimension; without torchrun, there is one rank."""
    backend, bound_to = ("nccl", device) if device.type == "cuda" else ("gloo", None)
    for name, value in WITHOUT_TORCHRUN.items():
        os.environ.setdefault(name, value)
    dist.init_process_group(backend, device_id=bound_to)
    yield init_device_mesh(device.type, (dist.get_world_size(),), mesh_dim_names=("shard",))
    # Not in a finally, because after an error other ranks may never reach the barrier.
    dist.barrier()
    dist.destroy_process_group()


def start_logging() -> None:
    """Log on stderr: everything of rank 0, and the warnings of other ranks."""
    rank = from_torchrun("RANK")
    name = "%(name)s" if rank == 0 else f"rank {rank}: %(name)s"
    logging.basicConfig(format=f"{name}: %(message)s", level=logging.WARNING)
    for logger in (log, logging.getLogger("dist_sched")):
        logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def run_program() -> None:
    """Do what the command line says."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    args = parse_arguments()
    if args.dry_run:
        if from_torchrun("RANK") == 0:
            raise SystemExit(dry_run(args))
        return
    stop = threading.Event()
    start_logging()
    device = choose_device(args.device)
    with process_group(device) as mesh, logging_redirect_tqdm():
        # Not before: a rank that waits in vain for the others has nothing to save. It waits in C++,
        # where no handler would run, and so torchrun would have to kill it after 30 seconds.
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        lock = claim_folder(args)
        try:
            run = make_run(args, mesh, device)
            checkpoints = Checkpoints(run, lock)
            checkpoints.clean()
            if args.resume:
                resume(run, checkpoints)
        except ReconcileError as error:
            fail(f"{error}\n(a policy here: --policy 'max_lr=config' '*=strict', for one)")
        except (ConfigError, StateError) as error:
            fail(str(error))
        train(run, checkpoints, stop)


def main() -> None:
    """Run the program, or say in one line why it cannot."""
    try:
        check_launcher()
        run_program()
    except Failure as failure:
        end(failure)


if __name__ == "__main__":
    main()
