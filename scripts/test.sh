#!/usr/bin/env bash
# Makes the environment, then lints, checks types and imports, and runs the tests, last those of the
# frameworks in an environment of their own. Arguments select among the ordinary tests, and go to
# pytest:
#   bash scripts/test.sh                        all tests
#   bash scripts/test.sh -m "not distributed"   without those that start processes, or of frameworks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

make_environment dev
install_upstream
python -m ruff check .
python -m ruff format --check .
python -m mypy
lint-imports --no-cache
pyright
python -m pytest "$@"
if (($#)); then
  echo "== the tests of frameworks run only without arguments" >&2
  exit
fi

make_frameworks_environment
python -m pytest tests/frameworks
