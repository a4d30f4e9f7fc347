# Sourced by demo.sh and run_tests.sh: a .venv with the tested versions in the
# repository, made once; afterwards `python` is the one in it. With DOWNSTREAM set also
# MMDetection and MMSegmentation.
# Environment: PYTHON (default: the first of python3, python3.12, .11, .10 that fits).
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$REPO"

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' \
    >/dev/null 2>&1; }
if [ -z "${PYTHON:-}" ]; then
    for PYTHON in python3 python3.12 python3.11 python3.10 ""; do
        [ -n "$PYTHON" ] && fits "$PYTHON" && break
    done
fi
if [ -z "$PYTHON" ] || ! fits "$PYTHON"; then
    echo "Python 3.10, 3.11 or 3.12 is needed: install one, or set PYTHON=/path/to/it." >&2
    exit 1
fi

# Where the venv module is not installed (Debian splits it off), virtualenv serves.
make_venv() {
    "$PYTHON" -m venv --clear .venv 2>/dev/null && return
    rm -rf .venv
    "$PYTHON" -m pip install --quiet --target .venv-tool virtualenv==20.31.2
    PYTHONPATH=.venv-tool "$PYTHON" -m virtualenv --quiet .venv
    rm -rf .venv-tool
}

PIP=".venv/bin/python -m pip --disable-pip-version-check --quiet"

# On a machine without a desktop's libraries OpenCV needs its headless build.
fix_opencv() {
    .venv/bin/python -c 'import cv2' 2>/dev/null && return
    $PIP uninstall --yes opencv-python opencv-python-headless
    $PIP install -c tools/constraints.txt opencv-python-headless
}

# Whether a folder holds the wheels that were built, all of them and no others.
is_intact() {
    (set -o pipefail; cd "$1" && sha256sum -- *.whl | cmp - SHA256SUMS) >/dev/null 2>&1
}

# MMDetection and MMSegmentation need mmcv's compiled ops, which pip's build of mmcv
# lacks. Built for CPUs, once for this machine, Python and torch, and kept. Called by
# `if`, where errexit is off: each step says itself when it fails.
install_downstream() {
    local cache kept new
    .venv/bin/python -c 'import os, sysconfig
assert os.path.exists(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null \
        && command -v c++ >/dev/null || return
    $PIP install -c tools/constraints.txt -e '.[downstream]' || return
    fix_opencv || return
    cache=${XDG_CACHE_HOME:-${HOME:-$REPO/.venv}/.cache}/snclr_mm
    kept=$cache/$(.venv/bin/python -c '
import platform, re, sys, torch
pins = open("tools/constraints.txt").read()
mmcv = re.search(r"^onedl-mmcv==(.+)$", pins, re.M)[1]
python = "%d.%d" % sys.version_info[:2]
print(f"mmcv-{mmcv}_torch-{torch.__version__}_python-{python}_{platform.machine()}")
') || return
    is_intact "$kept" || rm -rf "$kept"
    if [ ! -d "$kept" ]; then
        echo "Building mmcv's ops, 5 minutes on two idle cores ..."
        mkdir -p "$cache" && new=$(mktemp -d "$cache/new.XXXXXX") || return
        PATH="$REPO/.venv/bin:$PATH" CUDA_VISIBLE_DEVICES= FORCE_CUDA=0 \
            MAX_JOBS=$(nproc) CFLAGS="-O2 -g0 -DNDEBUG -fwrapv" \
            CXXFLAGS="-O2 -g0 -DNDEBUG -fwrapv" \
            $PIP wheel --no-cache-dir --no-build-isolation --no-deps \
            -c tools/constraints.txt onedl-mmcv -w "$new" \
            && (cd "$new" && sha256sum -- *.whl >SHA256SUMS) \
            || { rm -rf "$new"; return 1; }
        # Whole or not at all; another process may have been faster.
        mv -T "$new" "$kept" 2>/dev/null || rm -rf "$new"
    fi
    $PIP install --force-reinstall --no-deps "$kept"/*.whl \
        && .venv/bin/python -c 'import snclr_mm, mmcv.ops' >/dev/null \
        || { rm -rf "$kept"; return 1; }
}

STAMP=.venv/.complete-$(cat setup.py tools/constraints.txt | cksum | cut -d' ' -f1)
if [ ! -f "$STAMP" ]; then
    echo "Setting up $REPO/.venv (PyTorch and the OpenMMLab stack; some minutes) ..."
    .venv/bin/python -m pip --version >/dev/null 2>&1 || make_venv
    # torch first and alone: an open range would bring another build with it.
    $PIP install -c tools/constraints.txt torch==2.13.0
    $PIP install -c tools/constraints.txt torchvision==0.28.0
    # No cache: it would mix up mmcv built with and without ops.
    $PIP install --no-cache-dir -c tools/constraints.txt -e '.[onedl,eval,timm,dev]'
    fix_opencv
    touch "$STAMP"
    if nvidia-smi -L >/dev/null 2>&1 && ! .venv/bin/python -c \
        'import torch; torch.zeros(1, device="cuda").add_(1)' 2>/dev/null; then
        echo "PyTorch cannot use this GPU: its CUDA 13 needs driver 580 or newer, and a GPU of" \
            "2018 (Turing) or newer. CUDA_VISIBLE_DEVICES= runs on the CPU, and" \
            "docs/installation.md names other builds." >&2
    fi
fi
if [ -n "${DOWNSTREAM:-}" ] && [ ! -f "$STAMP-downstream" ]; then
    echo "Adding MMDetection and MMSegmentation ..."
    if install_downstream; then
        touch "$STAMP-downstream"
    else
        echo "MMDetection, MMSegmentation or mmcv's ops could not be installed (is there" \
            "a C++ compiler, with Python's headers?): their tests are skipped." >&2
    fi
fi
. .venv/bin/activate
