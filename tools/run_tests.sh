#!/usr/bin/env bash
# Set up and test, a process per core, four at most; options are pytest's.
set -euo pipefail
case ${1:-} in
    -h | --help) sed -n '2s/^# //p' "${BASH_SOURCE[0]}" && exit ;;
esac
DOWNSTREAM=1
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
ruff check .
ruff format --check .
exec python -m pytest -n logical --maxprocesses 4 --dist worksteal "$@"
