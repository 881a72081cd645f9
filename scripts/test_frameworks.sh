#!/usr/bin/env bash
# Runs the tests of frameworks, in an environment of their own. Arguments go to pytest:
#   bash scripts/test_frameworks.sh -k lightning
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

make_frameworks_environment
python -m pytest tests/frameworks "$@"
