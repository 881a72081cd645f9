#!/usr/bin/env bash
# Makes the environment, then lints, checks types and imports, and runs the tests. Arguments go to
# pytest:
#   bash scripts/test.sh                        all tests but those of frameworks
#   bash scripts/test.sh -m "not distributed"   without those that start processes
# scripts/test_frameworks.sh runs those of frameworks.
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
