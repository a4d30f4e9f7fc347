#!/usr/bin/env bash
# Check and time on a GPU what the tests on CPUs cannot, and write a report, within 8
# minutes:   tools/benchmarks/run_gpu_suite.sh [OUT]
# OUT (work_dirs/benchmarks): JSON, logs and report.md. Python: $PYTHON, else .venv's,
# else python3. DEVICE=cpu runs the same at sizes for CPUs. What fails does not stop the
# rest; the exit status tells.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${1:-work_dirs/benchmarks}
DEVICE=${DEVICE:-cuda}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
mkdir -p "$OUT"
rm -f "$OUT"/*.json "$OUT"/*.log "$OUT"/report.md

if [ "$DEVICE" = cuda ]; then
    "$PYTHON" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || {
        echo "$PYTHON sees no GPU: check the driver and torch, or set DEVICE=cpu." >&2
        exit 2
    }
    HALF=float16
    LOSS=()
    STEP=(--iterations 10)
    DATA=(--batch 256 --repeats 3 --workers "$(nproc)")
else
    HALF=bfloat16
    LOSS=(-n 64 -K 10 30 -Q 16384 --rounds 3)
    STEP=(--batch 8 --image-size 32 --iterations 3 --queue-length 2048)
    DATA=(--images 8 --batch 8 --repeats 1)
fi

failed=0
part() {  # NAME SECONDS COMMAND...
    local name=$1 seconds=$2 start=$SECONDS
    shift 2
    timeout "$seconds" "$@" >"$OUT/$name.log" 2>&1
    local status=$?
    [ $status -eq 0 ] || failed=1
    echo "$name: exit $status, $((SECONDS - start)) s"
    [ $status -eq 0 ] || tail -n 15 "$OUT/$name.log"
}
bench() {  # NAME SECONDS SCRIPT OPTIONS...
    local name=$1 seconds=$2 script=$3
    shift 3
    part "$name" "$seconds" "$PYTHON" "tools/benchmarks/benchmark_$script.py" \
        --out "$OUT/$name.json" "$@"
}

[ "$DEVICE" = cpu ] ||
    part tests 60 "$PYTHON" -m pytest -v -m gpu tests/models tests/engine
bench loss 80 loss --device "$DEVICE" "${LOSS[@]}"
bench loss_autocast 35 loss --device "$DEVICE" -K 10 30 100 "${LOSS[@]}" \
    --autocast "$HALF" --variants
bench loss_clusters 25 loss --device "$DEVICE" -K 10 30 100 "${LOSS[@]}" \
    --features clusters
bench step 90 step --device "$DEVICE" "${STEP[@]}"
bench data 90 data --device "$DEVICE" "${DATA[@]}"
bench step_compile 100 step --device "$DEVICE" "${STEP[@]}" \
    --neighbors 30 --iterations 6 --compile
"$PYTHON" tools/benchmarks/report.py "$OUT" || failed=1
exit $failed
