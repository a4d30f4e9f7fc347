#!/usr/bin/env bash
# Set up and test; options are pytest's.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" downstream
ruff check .
ruff format --check .
exec python -m pytest "$@"
