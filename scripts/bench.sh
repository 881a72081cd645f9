#!/usr/bin/env bash
# Makes the environment, then measures what the library costs beside its peers, and prints one table:
#   bash scripts/bench.sh                      all subjects; also written into docs/benchmarks.md
#   bash scripts/bench.sh --quick              tiny sizes, to see that all works
#   bash scripts/bench.sh step load            these subjects only
# Timings are only figures if nothing else uses the machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

make_environment dev
install_upstream
python -m benchmarks "$@"
