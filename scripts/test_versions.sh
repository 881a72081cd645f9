#!/usr/bin/env bash
# Runs the tests that start no processes, on the lowest versions that pyproject.toml allows and on
# the newest that there are. Each has an environment of its own: .venv-lowest on Python 3.11 and
# .venv-newest on the newest Python of this machine, with several GB of PyTorch each.
#   bash scripts/test_versions.sh           both
#   bash scripts/test_versions.sh lowest    one of them; more arguments go to pytest
# PYTHON is the interpreter to build on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

# In a subshell, because it changes PATH.
run() (
  local which="$1"
  shift
  "make_${which}_environment"
  python -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__)'
  python -m pytest -m "not distributed" "$@"
)

case "${1:-both}" in
  lowest | newest) run "$@" ;;
  *)
    run lowest "${@:2}"
    run newest "${@:2}"
    ;;
esac
