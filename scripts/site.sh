#!/usr/bin/env bash
# Makes the environment, and builds the site of the documentation, strictly, into site/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/env.sh

make_environment dev
python scripts/build_site.py
