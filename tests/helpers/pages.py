"""Reading the HTML pages that the package writes."""

import json
import re
from pathlib import Path


def read_data(page: Path) -> dict:
    """The JSON of a page, as a browser finds it: up to the first closing tag."""
    text = page.read_text()
    return json.loads(re.search(r'"application/json">(.*?)</script>', text, re.S)[1])
