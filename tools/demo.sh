#!/usr/bin/env bash
# Set up, pretrain SNCLR on Fashion-MNIST, evaluate; options: python tools/demo.py --help
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec python tools/demo.py "$@"
