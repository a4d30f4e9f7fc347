#!/usr/bin/env bash
# Train on several GPUs (or, where there are none, CPU processes) of one or more nodes.
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Environment: NNODES, NODE_RANK, MASTER_ADDR, PORT, PYTHON, and MAX_RESTARTS: how often
# a run that fails is started again; it resumes from its newest checkpoint.
set -euo pipefail
CONFIG=${1:?usage: dist_train.sh CONFIG GPUS [options]}
GPUS=${2:?usage: dist_train.sh CONFIG GPUS [options]}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# torch's static rendezvous keeps the addresses of processes that have died, and a second
# start waits for them; c10d (which gives the node ranks itself) does not.
if [[ ${MAX_RESTARTS:-0} -gt 0 ]]; then
    rendezvous=(--rdzv-backend=c10d "--rdzv-id=${PORT:-29500}"
        "--rdzv-endpoint=${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}"
        "--max-restarts=$MAX_RESTARTS")
    [[ ${NNODES:-1} != 1 ]] || rendezvous+=(--local-addr=127.0.0.1)
else
    rendezvous=("--node_rank=${NODE_RANK:-0}"
        "--master_addr=${MASTER_ADDR:-127.0.0.1}" "--master_port=${PORT:-29500}")
fi

exec "${PYTHON:-$(command -v python || command -v python3)}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" "${rendezvous[@]}" --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
