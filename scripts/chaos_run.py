"""One run of chaos.py: jobs in one checkpoint folder, each with a fault, and what must hold."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, ClassVar

import chaos_judge as judge
from chaos_config import Config, Entries, Fields, Policy
from chaos_jobs import NOWHERE, Job, kill_left, left_processes
from chaos_plan import ALL, BY_CLOCK, FULL, LAUNCHER, NEEDS_CHECKPOINT, SECOND, STOP, Kill

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MODEL = (
    *("--device", "cpu", "--width", "8", "--layers", "1", "--heads", "1"),
    *("--sequence-length", "8", "--global-batch", "4"),
)
ENDLESS = 1_000_000
"""Updates of a job that does not end by itself."""
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, STOP: signal.SIGSTOP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one job ended."""

    kill: Kill | None
    """None for a job that was left alone."""
    edit: str
    start: int | None
    """The checkpoint that it was to resume from."""
    made: int
    """The position that it came to."""
    newest: int | None
    """The newest complete checkpoint after it, from which the next job resumes."""
    ended: str
    seconds: float
    violations: list[str]
    output: str

    @property
    def lost(self) -> int:
        """Updates that the next job makes again."""
        return self.made - (self.newest or 0)


@dataclass(frozen=True, slots=True)
class Edit:
    """The schedule with which a job is started."""

    file: Path
    declared: Config
    in_force: Config
    """What the job uses once it has loaded."""
    policy: Policy | None = None
    """The policy of the command line, if it has one."""
    text: str = "none"

    def arguments(self) -> list[str]:
        """Return the options of the training script."""
        policy = self.policy or {}
        words = [policy] if isinstance(policy, str) else [f"{n}={w}" for n, w in policy.items()]
        return ["--config", str(self.file), *(["--policy", *words] if words else [])]


@dataclass(slots=True)
class Run:
    """A run in one checkpoint folder, and what is known of it."""

    folder: Path
    script: Path
    declared: Config
    saved: dict[int, Config] = field(default_factory=dict)
    """The config in force of each checkpoint, by position."""
    logged: dict[int, Config] = field(default_factory=dict)
    """The config in force of each line of the metrics, by position."""
    losses: dict[int, float] = field(default_factory=dict)
    """The loss of each update that was made last, by position."""
    jobs: int = 0

    durations: ClassVar[list[float]] = []
    """Seconds of the jobs that were left alone, of all runs."""

    @classmethod
    def start(cls, folder: Path, script: Path, number: int, seed: int) -> Run:
        """Return a run whose schedule is of one kind or, in every second run, the other."""
        folder.mkdir()
        kind = (Entries, Fields)[number % 2]
        rng = Random(f"run {seed} {number}")  # noqa: S311 - repeatable on purpose
        return cls(folder, script, kind.draw(rng, 0))

    @property
    def checkpoints(self) -> Path:
        """The checkpoint folder."""
        return self.folder / "run"

    @property
    def metrics(self) -> Path:
        """The metrics file."""
        return self.checkpoints / "metrics.jsonl"

    @property
    def newest(self) -> int | None:
        """The position of the newest complete checkpoint."""
        return next(reversed(judge.complete_checkpoints(self.checkpoints)), None)

    def can_start(self, kill: Kill) -> bool:
        """Return whether the kill's moment can come, or needs a checkpoint that is not there."""
        return self.newest is not None or kill.moment not in NEEDS_CHECKPOINT

    # Edits of the schedule

    def _same(self) -> Edit:
        """Go on with the checkpoint's config."""
        newest = self.newest
        config = self.declared if newest is None else self.saved[newest]
        return Edit(self._write(config), config, config)

    def _edit(self, kill: Kill) -> Edit:
        """Declare another config, or name another policy."""
        if not kill.is_edited:
            return self._same()
        rng, newest = Random(kill.seed), self.newest  # noqa: S311 - repeatable on purpose
        if newest is None:
            config = self.declared.draw(rng, 0)
            return Edit(self._write(config), config, config, text="new")
        saved = self.saved[newest]
        if kill.is_cooldown and isinstance(saved, Fields) and saved.values(newest)["lr"]:
            return self._cooldown(saved, newest, rng.randint(3, 12))
        if kill.word == "strict":  # a difference would be refused
            return Edit(self._write(saved), saved, saved, "strict", "none (strict)")
        declared, names = self.declared.edit(rng, newest)
        policy: Policy = kill.word
        if kill.word == "edited":
            policy = {**dict.fromkeys(names, "config"), "*": "checkpoint"}
        in_force = declared.resolve(saved, policy)
        text = f"{', '.join(names)} ({kill.word})"
        return Edit(self._write(declared), declared, in_force, policy, text)

    def _cooldown(self, saved: Fields, position: int, steps: int) -> Edit:
        """Go on with the file that `dist-sched fork` writes, whose policy is "config"."""
        file = self._file()
        checkpoint = self.checkpoints / f"step-{position:08d}"
        command = [sys.executable, "-m", "dist_sched.cli", "fork", str(checkpoint)]
        options = ["--cooldown", str(steps), "--end", "0", "-o", str(file)]
        subprocess.run([*command, *options], check=True, capture_output=True)
        mapping = json.loads(file.read_text())["fields"]["lr"]
        cooled = saved.parts["lr"].cooled(mapping, position, steps)
        config = Fields({**saved.parts, "lr": cooled})
        return Edit(file, config, config, text=f"cooldown over {steps}")

    def _write(self, config: Config) -> Path:
        file = self._file()
        file.write_text(json.dumps(config.mapping()))
        return file

    def _file(self) -> Path:
        return self.folder / f"schedule-{self.jobs}.json"

    # Jobs

    def undisturbed(self, world_size: int) -> Outcome:
        """Go on for some updates, and end without a fault."""
        before, edit = Snapshot.of(self), self._same()
        arguments = self._arguments(edit, 2, 2, 4)
        job = self._start(arguments, world_size)
        violations = self._finish([job], is_in_time=job.wait())
        self.durations.append(job.seconds)
        return self._outcome(None, edit, [job], before, violations)

    def kill(self, kill: Kill) -> Outcome:
        """Start a job with a fault."""
        before, edit = Snapshot.of(self), self._edit(kill)
        self.declared = edit.declared
        updates = ENDLESS if kill.moment == BY_CLOCK else 3 * kill.every
        arguments = self._arguments(edit, kill.every, kill.keep, updates)
        job = self._start(arguments, kill.world_size, (kill.point, kill.rank, kill.passage))
        jobs, when = [job], job.started + kill.share * statistics.median(self.durations or [3.0])
        is_in_time = job.wait(
            lambda: job.is_reached if kill.moment != BY_CLOCK else time.monotonic() > when
        )
        missed = [f"it ended before it came to {kill.place}"] * job.has_ended()
        if not missed and kill.fault == SECOND:
            jobs.append(self._start(arguments, kill.world_size))
            is_in_time = beside(*jobs, is_endless=kill.moment == BY_CLOCK)
        elif not missed:
            hurt(job, kill)
        is_in_time = job.wait() and is_in_time
        violations = missed + self._finish(jobs, is_in_time=is_in_time)
        return self._outcome(kill, edit, jobs, before, violations)

    def _arguments(self, edit: Edit, every: int, keep: int, updates: int) -> list[str]:
        newest = self.newest
        return [
            *MODEL,
            *("--checkpoint-dir", str(self.checkpoints), *edit.arguments()),
            *("--updates", str((newest or 0) + updates)),
            *("--checkpoint-every", str(every), "--keep", str(keep)),
            *(["--resume"] if newest is not None else []),
        ]

    def _start(
        self, arguments: Sequence[str], world_size: int, point: tuple[str, int, int] = NOWHERE
    ) -> Job:
        self.jobs += 1
        return Job(self.folder / f"job-{self.jobs}", self.script, arguments, world_size, point)

    @staticmethod
    def _finish(jobs: Sequence[Job], *, is_in_time: bool) -> list[str]:
        """Return the violations by processes that did not end, and end them."""
        left = left_processes() if is_in_time else []
        kill_left()
        for job in jobs:
            job.wait()
            job.close()
        violations = [f"processes {left} are left"] if left else []
        return violations if is_in_time else ["a job hung, and was killed"]

    # What must hold

    def _outcome(
        self,
        kill: Kill | None,
        edit: Edit,
        jobs: Sequence[Job],
        before: Snapshot,
        violations: list[str],
    ) -> Outcome:
        output = "\n".join(job.output for job in jobs)
        updates = [update for job in jobs for update in job.updates]
        start, newest = before.newest or 0, self.newest
        made = max([start, *(update["position"] + 1 for update in updates)])
        self._learn(edit.in_force, before)
        ends = [judge.ending(job.output) for job in jobs]
        violations += [
            *judge.wrong_values(updates, edit.in_force),
            *judge.wrong_metrics(judge.read_metrics(self.metrics), self.logged, newest or 0),
            *judge.lost_checkpoints(output, before.newest, newest),
            *judge.lost_updates(made - (newest or 0), kill.every if kill else 0),
            *judge.other_losses(updates, start, self.losses),
            *judge.stuck_ranks(output),
        ]
        if len(jobs) == 1:
            violations += judge.wrong_resume(output, before.newest)
        if kill is None:
            violations += judge.wrong_end_alone(ends[0])
        elif kill.fault == SECOND:
            violations += judge.wrong_pair(ends)
        else:
            violations += judge.wrong_ending(kill, output, made - (newest or 0))
        if updates:  # those that come after were of other weights
            kept = {position: loss for position, loss in self.losses.items() if position < start}
            self.losses = kept | {update["position"]: update["loss"] for update in updates}
        return Outcome(
            kill=kill,
            edit=edit.text,
            start=before.newest,
            made=made,
            newest=newest,
            ended=", ".join(map(judge.shortened, ends)),
            seconds=jobs[0].seconds,
            violations=violations,
            output=output,
        )

    def _learn(self, in_force: Config, before: Snapshot) -> None:
        """Keep which config the checkpoints and lines of a job have."""
        start = before.newest or 0
        if inode(self.metrics) != before.metrics:
            # It was written anew, and everything from the start on is this job's.
            positions = [line["position"] for line in judge.read_metrics(self.metrics)]
            kept = {position: it for position, it in self.logged.items() if position < start}
            self.logged = dict.fromkeys(positions, in_force) | kept
        for position in judge.complete_checkpoints(self.checkpoints):
            if before.newest is None or position > before.newest:
                self.saved[position] = in_force


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a folder had before a job."""

    newest: int | None
    metrics: int | None
    """The inode of the metrics file, which every job replaces that makes updates."""

    @classmethod
    def of(cls, run: Run) -> Snapshot:
        """Return what is there now."""
        return cls(run.newest, inode(run.metrics))


def inode(path: Path) -> int | None:
    """Return a file's inode, None if there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def hurt(job: Job, kill: Kill) -> None:
    """Do to a job what the kill says, and let it go on."""
    time.sleep(kill.head_start)
    if kill.target == LAUNCHER:
        job.leave()
        victims = [job.launcher]
    else:
        job.wait(lambda: len(job.ranks) == kill.world_size)  # the others may start later
        victims = [
            process
            for rank, process in job.ranks.items()
            if kill.target == ALL or rank == kill.victim
        ]
    if kill.fault == FULL:
        job.limit_files(kill.file_size, victims)
    else:
        job.signal(SIGNALS[kill.fault], victims)
    job.go_on()
    if kill.fault == STOP:
        time.sleep(kill.pause)
        job.signal(signal.SIGKILL, victims)


def beside(first: Job, second: Job, *, is_endless: bool) -> bool:
    """Wait for the end of two jobs in one folder; return whether both ended in time.

    One is refused, or comes when the other has ended. Endless ones are stopped then.
    """
    is_in_time = second.wait(lambda: first.has_ended() and is_endless)
    first.go_on()
    if is_endless:
        one = second if first.has_ended() else first
        one.wait(lambda: bool(one.updates))
        one.signal(signal.SIGTERM, [*one.ranks.values()])
    return first.wait() and second.wait() and is_in_time
