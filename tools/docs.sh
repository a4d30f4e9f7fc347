#!/usr/bin/env bash
# Build the documentation site into site/, without network once mkdocs is installed;
# --serve shows it at http://localhost:8000 and builds it again when a page changes.
# Environment: DOCS_PYTHON, a Python with the extra `docs`; without it, .venv-docs is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
    "") COMMAND=(build --strict) ;;
    --serve) COMMAND=(serve) ;;
    *) echo "usage: bash tools/docs.sh [--serve]" >&2; exit 2 ;;
esac
if [ -z "${DOCS_PYTHON:-}" ]; then
    DOCS_PYTHON=.venv-docs/bin/python
    STAMP=.venv-docs/.complete-$(cat setup.py tools/constraints.txt | cksum | cut -d' ' -f1)
    if [ ! -f "$STAMP" ]; then
        python3 -m venv .venv-docs
        # Only the extra: neither torch nor this package is needed to read docstrings.
        python3 - <<'END' > .venv-docs/requirements.txt
import ast
tree = ast.parse(open("setup.py").read())
for node in tree.body:
    if isinstance(node, ast.Assign) and node.targets[0].id == "EXTRAS":
        print(*ast.literal_eval(node.value)["docs"], sep="\n")
END
        $DOCS_PYTHON -m pip install --disable-pip-version-check --quiet \
            -c tools/constraints.txt -r .venv-docs/requirements.txt
        touch "$STAMP"
    fi
fi
# mkdocs 1 is pinned; Material's note about mkdocs 2 does not concern it.
export NO_MKDOCS_2_WARNING=1
exec "$DOCS_PYTHON" -m mkdocs "${COMMAND[@]}"
