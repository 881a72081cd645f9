#!/usr/bin/env bash
# What happens to the learning rate when a run is killed, and resumed on another number of processes
# with a longer schedule?
#
# Trains without interruption with the long schedule. Then trains with the short one, kills every
# process with SIGKILL, and resumes with the long one on more processes. The same with a script of
# plain torch. Compares all of them, draws a picture, and keeps the checkpoints.
#
#   bash scripts/demo.sh
#
# Needs Python, and makes its own environment. About two minutes on two cores, downloads aside. Its
# output is in demo-output/. The exit status is 0 only if every stage succeeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

updates=160
edited_updates=240
kill_after=100
out=demo-output
stage="making the environment"

say() { printf '\n== %s\n' "$*"; }

begin() {
  stage="$1"
  say "$stage"
}

die() {
  say "$*"
  exit 1
}

# /proc first, because small images have no pgrep.
children() { cat "/proc/$1/task"/*/children 2>/dev/null || pgrep -P "$1" || true; }

# with_descendants PROCESS: its id and those of all processes that it started
with_descendants() {
  local child
  echo "$1"
  for child in $(children "$1"); do with_descendants "$child"; done
}

# shellcheck disable=SC2046 # one word a process
kill_all() { kill -KILL $(with_descendants "$1") 2>/dev/null; }

finish() {
  local status=$? running
  trap - EXIT
  for running in $(jobs -pr); do kill_all "$running" || true; done
  if ((status != 0)); then
    say "FAILED while $stage (status $status)"
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start PROCESSES SCRIPT [OPTION…]: sets job. In the background, so that this shell's traps run at
# once. One thread a process and no GPU, so that the losses on 2 and 3 processes are comparable.
start() {
  OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node "$@" &
  job=$!
}

# ours RUN PROCESSES UPDATES [OPTION…]
ours() {
  local run="$1" processes="$2" length="$3"
  shift 3
  start "$processes" scripts/train_fsdp.py --device cpu --updates "$length" \
    --checkpoint-dir "$out/$run" --checkpoint-every 40 --keep 9 --metrics "$out/$run.jsonl" \
    --lr-decay-style WSD --init-lr 3e-5 --lr-warmup-steps 20 \
    --wsd-decay-steps 40 --lr-wsd-decay-style linear \
    --start-wd 0.01 --end-wd 0.1 --wd-incr-steps 100 --wd-incr-style cosine "$@"
}

# plain PROCESSES UPDATES [OPTION…]
plain() {
  local processes="$1" length="$2"
  shift 2
  start "$processes" scripts/plain_torch.py "$out/plain" --updates "$length" "$@"
}

updates_in() { if [[ -f "$1" ]]; then wc -l <"$1"; else echo 0; fi; }

# kill_in_the_middle METRICS: SIGKILL to the launcher and every rank, once enough updates are made
kill_in_the_middle() {
  until (($(updates_in "$1") >= kill_after)); do
    kill -0 "$job" 2>/dev/null || die "the run ended before it could be killed"
    sleep 0.05
  done
  kill_all "$job"
  { wait "$job" || true; } 2>/dev/null
  (($(updates_in "$1") < updates)) || die "the run was over before it was killed"
  say "killed after update $(updates_in "$1")"
}

# shellcheck source=scripts/env.sh
source scripts/env.sh
begin "making the environment"
make_environment demo
rm -rf "$out"
mkdir "$out"

begin "1/6: training on 2 processes, without interruption: $edited_updates updates"
ours uninterrupted 2 "$edited_updates"
wait "$job"

begin "2/6: training on 2 processes: $updates updates, to be killed after $kill_after"
ours resumed 2 "$updates"
kill_in_the_middle "$out/resumed.jsonl"
cp "$out/resumed.jsonl" "$out/killed.jsonl"

begin "3/6: resuming on 3 processes, with the schedule edited to $edited_updates updates"
ours resumed 3 "$edited_updates" --resume --policy lr_decay_steps=config '*=checkpoint'
wait "$job"

begin "4/6: plain torch, on 2 processes: $updates updates, to be killed after $kill_after"
plain 2 "$updates"
kill_in_the_middle "$out/plain/metrics.jsonl"

begin "5/6: plain torch, resuming on 3 processes, with the schedule edited to $edited_updates updates"
plain 3 "$edited_updates" --resume
wait "$job"

begin "6/6: comparing the runs"
python scripts/compare_runs.py "$out/uninterrupted.jsonl" "$out/resumed.jsonl" \
  --killed "$out/killed.jsonl" --plain "$out/plain/metrics.jsonl" --updates "$edited_updates" \
  --title "Killed, then resumed on 3 processes with a schedule of $edited_updates updates, not $updates" \
  --picture "$out/runs.png"

# The paths are whole, so that the lines work in any folder.
program="$(printf %q "$VIRTUAL_ENV/bin/dist-sched")"
runs="$(printf %q "$PWD/$out/resumed")"
show="$program show $runs"
diff="$program diff $runs/step-00000080 $runs/step-00000240 --at 140"
plot="$program plot $runs/step-00000080 $runs/step-00000240"
begin "trying the command line on the checkpoints"
eval "$show" >"$out/show.txt"
eval "$diff" >"$out/diff.txt" || (($? == 1)) # 1: they differ
eval "$plot" >"$out/plot.txt"

say "PASSED: killed, edited and resumed on another number of processes, every update used the
   learning rate and weight decay of the uninterrupted run, bit for bit.

Picture: $PWD/$out/runs.png

The checkpoints are in $out/. Look into them:

  $show
  $diff
  $plot"
