#!/usr/bin/env bash
# Trains without interruption; trains again, kills every process in the middle with SIGKILL, and
# resumes on another number of processes. Then checks that each update of the second run used the
# learning rate and weight decay of the first, bit for bit.
#   bash scripts/demo.sh
# Needs Python, and makes its own environment. About a minute on two cores, downloads aside. Its
# output is in demo-output/. The exit status is 0 only if every stage succeeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

updates=160
checkpoint_every=40
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

# start RUN PROCESSES [OPTION…]: sets job. In the background, so that this shell's traps run at once.
start() {
  local run="$1" processes="$2"
  shift 2
  # One thread a process and no GPU, so that the losses on 2 and 3 processes are comparable.
  OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node "$processes" scripts/train_fsdp.py \
    --device cpu --updates "$updates" \
    --checkpoint-dir "$out/$run" --checkpoint-every "$checkpoint_every" \
    --metrics "$out/$run.jsonl" \
    --lr-decay-style cosine --lr-warmup-steps 20 \
    --start-wd 0.01 --end-wd 0.1 --wd-incr-style cosine "$@" &
  job=$!
}

train() {
  start "$@"
  wait "$job"
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
}

# shellcheck source=scripts/env.sh
source scripts/env.sh
begin "making the environment"
make_environment demo
rm -rf "$out"
mkdir "$out"

begin "training on 2 processes, without interruption"
train uninterrupted 2

begin "training again on 2 processes, to be killed after $kill_after of $updates updates"
start resumed 2
kill_in_the_middle "$out/resumed.jsonl"
cp "$out/resumed.jsonl" "$out/killed.jsonl"
say "killed after update $(updates_in "$out/killed.jsonl"); on disk: $(cd "$out/resumed" && echo step-*)"

begin "resuming on 3 processes"
train resumed 3 --resume

begin "comparing the two runs"
python scripts/compare_runs.py "$out/uninterrupted.jsonl" "$out/resumed.jsonl" \
  --killed "$out/killed.jsonl" --updates "$updates" --picture "$out/runs.png"

rm -rf "$out/uninterrupted" "$out/resumed"
say "PASSED: killed and resumed on another number of processes, every update used the learning
   rate and weight decay of the uninterrupted run, bit for bit.
   Picture: $PWD/$out/runs.png"
