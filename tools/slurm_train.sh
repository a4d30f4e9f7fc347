#!/usr/bin/env bash
# Train under Slurm; a run whose time is over goes on by itself.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# Environment: GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SRUN_ARGS, PYTHON.
#
# Slurm sends SIGUSR1 three minutes before the time limit. Training then finishes its
# step, saves and exits with 75. Inside a batch job (sbatch) the job is put back in the
# queue; without one, the next job is asked for here. Both resume in WORK_DIR.
set -euo pipefail
USAGE='usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]'
PARTITION=${1:?$USAGE} JOB_NAME=${2:?$USAGE} CONFIG=${3:?$USAGE} WORK_DIR=${4:?$USAGE}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# srun passes the signal to its tasks; `sbatch --signal=B:...` sends it here as well.
trap : USR1
# srun kills the tasks that exit last, so its status does not always say that the run
# was stopped. The file that was saved does.
saved() {
    find -L "$WORK_DIR" -maxdepth 1 -name 'stopped_at_iter_*.pth' -printf '%f %T@\n' \
        2>/dev/null || true
}

resume=()
while true; do
    before=$(saved)
    status=0
    # SRUN_ARGS is a list of words on purpose.
    # shellcheck disable=SC2086
    srun -p "$PARTITION" --job-name="$JOB_NAME" --gres="gpu:$GPUS_PER_NODE" \
        --ntasks="$GPUS" --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-16}" --kill-on-bad-exit=1 \
        --signal=USR1@180 ${SRUN_ARGS:-} \
        "${PYTHON:-$(command -v python || command -v python3)}" -u "$TOOLS/train.py" \
        "$CONFIG" --work-dir="$WORK_DIR" --launcher=slurm "${@:5}" \
        ${resume[@]+"${resume[@]}"} || status=$?
    after=$(saved)
    if [[ $status -eq 0 || -z $after || $after == "$before" ]]; then
        exit "$status"
    fi
    if [[ -n ${SLURM_JOB_ID:-} ]]; then
        scontrol requeue "$SLURM_JOB_ID"
        exit "$status"
    fi
    resume=(--resume)
done
