#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: the tests marked `gpu`, then what steps of schedulers cost there.
# It needs torch 2.11 or newer, pytest, pytest-timeout and hypothesis, installs nothing and uses no
# network. Elsewhere it says what is missing, and ends with status 0.
#   bash scripts/gpu_check.sh
# PYTHON is the interpreter, python3 by default.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-python3}"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"

if ! missing="$("$PYTHON" -m benchmarks.gpu --check 2>&1)"; then
  echo "nothing is checked: ${missing##*$'\n'}"
  exit 0
fi

mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu' tests | sort)
status=0
"$PYTHON" -m pytest -m gpu -p no:cacheprovider "${files[@]}" || status=$?
"$PYTHON" -m benchmarks.gpu || status=$?
exit "$status"
