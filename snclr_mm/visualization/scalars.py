import json
from pathlib import Path


def read_records(file: Path) -> tuple[list[dict], int]:
    """Read a scalars.json of MMEngine, a record per line.

    Args:
        file (Path): Of a run that may have been killed while it wrote a line.

    Returns:
        tuple[list[dict], int]: The records, and the number of lines that are none.
    """
    records, damaged = [], 0
    for line in Path(file).read_text(errors="replace").splitlines():
        try:
            records.append(dict(json.loads(line)))
        except (TypeError, ValueError):
            damaged += 1
    return records, damaged
