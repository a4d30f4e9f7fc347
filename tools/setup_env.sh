# Sourced by demo.sh and run_tests.sh: a .venv with the tested versions in the
# repository, made once; afterwards `python` is the one in it.
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
    "$PYTHON" -m venv .venv 2>/dev/null && return
    rm -rf .venv
    "$PYTHON" -m pip install --quiet --target .venv-tool virtualenv==20.31.2
    PYTHONPATH=.venv-tool "$PYTHON" -m virtualenv --quiet .venv
    rm -rf .venv-tool
}

STAMP=.venv/.complete-$(cat setup.py tools/constraints.txt | cksum | cut -d' ' -f1)
if [ ! -f "$STAMP" ]; then
    echo "Setting up $REPO/.venv (PyTorch and the OpenMMLab stack; some minutes) ..."
    [ -x .venv/bin/python ] || make_venv
    PIP=".venv/bin/python -m pip --disable-pip-version-check --quiet"
    # torch first and alone: an open range would bring another build with it.
    $PIP install -c tools/constraints.txt torch==2.13.0
    $PIP install -c tools/constraints.txt torchvision==0.28.0
    # No cache: it would mix up mmcv built with and without ops.
    $PIP install --no-cache-dir -c tools/constraints.txt -e '.[onedl,eval,timm,dev]'
    # On a machine without a desktop's libraries OpenCV needs its headless build.
    if ! .venv/bin/python -c 'import cv2' 2>/dev/null; then
        VERSION=$(sed -n 's/^opencv-python==//p' tools/constraints.txt)
        $PIP uninstall --yes opencv-python
        $PIP install -c tools/constraints.txt "opencv-python-headless==$VERSION"
    fi
    touch "$STAMP"
fi
. .venv/bin/activate
