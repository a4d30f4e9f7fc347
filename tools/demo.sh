#!/usr/bin/env bash
# Set up .venv if it is not there, pretrain SNCLR on Fashion-MNIST, and evaluate it.
#   bash tools/demo.sh [--images 10000] [--epochs 30] [--seed 0] [--resume]
#       [--work-dir DIR] [--data-root DIR] [--cfg-options KEY=VALUE ...]
# Defaults are shown; --images 60000 --epochs 50 uses everything. Pictures and
# results.json go to work_dirs/demo of the repository, data to data/fashion-mnist.
set -euo pipefail
for option in "$@"; do
    case $option in
        -h | --help) sed -n '2,/^set/{/^# \?/s///p}' "${BASH_SOURCE[0]}" && exit ;;
    esac
done
start=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$start"
exec python "$REPO/tools/demo.py" "$@"
