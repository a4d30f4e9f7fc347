#!/usr/bin/env bash
# Check and time on a GPU what the tests on CPUs cannot, within 13 minutes:
#     tools/benchmarks/run_gpu_suite.sh [OUT [PART ...]]
# OUT (work_dirs/benchmarks) gets JSON, after every result, and a log of each part, and
# report.md; OUT.tar.gz holds all of OUT. Files that would be overwritten are renamed.
# Parts: tests loss loss_autocast loss_clusters step step_cudnn data, and, only where they
# are named, comm, evaluation and train. train pretrains a ResNet-18 (a smaller network on
# a CPU) for $EPOCHS epochs on real images, $IMAGES/train and $IMAGES/test with a folder
# for each class, is stopped after $STOP seconds, and resumes; it writes to OUT.train.
# Python: $PYTHON, else .venv's, else python3. DEVICE=cpu runs all parts but tests at
# sizes for CPUs. What fails or runs out of its time does not stop the rest; the exit
# status tells.

set -uo pipefail
case ${1:-} in -h | --help) sed -n '2,/^$/s/^# \?//p' "$0" && exit ;; esac
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=$(realpath -m "${1:-$HERE/../../work_dirs/benchmarks}")
cd "$HERE/../.."
DEVICE=${DEVICE:-cuda}
PARTS=("${@:2}")
[ $# -gt 1 ] || PARTS=(loss loss_autocast loss_clusters step step_cudnn data)
[ $# -gt 1 ] || [ "$DEVICE" = cpu ] || PARTS=(tests "${PARTS[@]}")
for part in "${PARTS[@]}"; do
    case " tests loss loss_autocast loss_clusters step step_cudnn data comm evaluation train " in
    *" $part "*) ;;
    *) echo "$part is no part: see --help." >&2 && exit 2 ;;
    esac
done
[[ " ${PARTS[*]} " != *" train "* ]] || : "${IMAGES:?names the folder for the part train}"
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=$PWD/.venv/bin/python; }
PYTHON=${PYTHON:-python3}

HALF=bfloat16
LOSS=(-n 64 -K 10 30 -Q 16384 --rounds 3)
STEP=(--batch 8 --image-size 32 --iterations 3 --queue-length 2048)
DATA=(--images 8 --batch 8 --repeats 1)
COMM=(-n 16 -K 30 -Q 4096 --ranks 2 --rounds 3)
EVALUATION=(--train 4000 --test 4000 --width 64)
TRAIN=(configs/snclr_resnet-tiny_1xb128_cifar100.py)
SEVERAL=()
if [ "$DEVICE" != cpu ]; then
    "$PYTHON" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || {
        echo "$PYTHON sees no GPU: check the driver and torch, or set DEVICE=cpu." >&2
        exit 2
    }
    HALF=float16 LOSS=() SEVERAL=(-K 10 30 100) STEP=(--iterations 10)
    DATA=(--batch 256 --repeats 3 --workers "$(nproc)") COMM=() EVALUATION=()
    TRAIN=(configs/small_images/snclr_r18_1xb256-gpu-aug-200e_small-images.py --amp)
fi

failed=0
keep() {  # FILE...
    local file
    for file; do [ ! -e "$file" ] || mv -T --backup=numbered "$file" "$file.old"; done
}
run() {  # NAME SECONDS COMMAND...
    local start=$SECONDS status
    keep "$OUT/$1".{json,log}
    timeout -k 10 "$2" "${@:3}" >"$OUT/$1.log" 2>&1
    status=$?
    echo "$1: exit $status, $((SECONDS - start)) s of $2"
    [ $status -eq 0 ] || { failed=1 && tail -n 15 "$OUT/$1.log"; }
}
bench() {  # NAME SECONDS OPTIONS...
    run "$1" "$2" "$PYTHON" "$HERE/benchmark_${1%%_*}.py" --out "$OUT/$1.json" \
        --device "$DEVICE" "${@:3}"
}

mkdir -p "$OUT"
for part in "${PARTS[@]}"; do
    case $part in
    tests) run tests 120 "$PYTHON" -m pytest -v -m gpu tests/models tests/engine ;;
    loss) bench loss 150 "${LOSS[@]}" ;;
    loss_autocast) bench $part 60 "${SEVERAL[@]}" "${LOSS[@]}" --autocast $HALF ;;
    loss_clusters) bench $part 60 "${SEVERAL[@]}" "${LOSS[@]}" --features clusters ;;
    step) bench step 150 "${STEP[@]}" ;;
    step_cudnn) bench $part 120 "${STEP[@]}" --neighbors 30 \
        --cudnn-benchmark contiguous ;;
    data) bench data 120 "${DATA[@]}" ;;
    comm) bench comm 300 "${COMM[@]}" --device cpu ;;
    evaluation) bench evaluation 300 "${EVALUATION[@]}" ;;
    train)
        export DATASET=cifar100
        keep "$OUT.train"
        # --foreground: the signal is for the training, not for its data workers.
        run train 900 bash -c 'timeout --foreground -s USR1 "$1" "${@:2}"; "${@:2}" --resume' \
            - "${STOP:-60}" "$PYTHON" tools/train.py "${TRAIN[@]}" \
            --work-dir "$OUT.train" --data-root "$IMAGES/train" \
            --val-data-root "$IMAGES/test" --cfg-options \
            train_cfg.max_epochs="${EPOCHS:-20}" \
            train_cfg.val_interval="$(((${EPOCHS:-20} + 3) / 4))"
        ;;
    esac
done
keep "$OUT/report.md" "$OUT.tar.gz"
"$PYTHON" "$HERE/report.py" "$OUT" || failed=1
tar -czf "$OUT.tar.gz" -C "$(dirname "$OUT")" "$(basename "$OUT")" && echo "$OUT.tar.gz"
exit $failed
