#!/usr/bin/env bash
# Set up and test; options are pytest's.
set -euo pipefail
DOWNSTREAM=1
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
ruff check .
ruff format --check .
exec python -m pytest "$@"
