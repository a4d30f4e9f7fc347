from .architecture import (
    ResNetArchitecture,
    ViTArchitecture,
    infer_architecture,
)
from .convert import (
    BRANCHES,
    SOURCES,
    TARGETS,
    Conversion,
    convert_checkpoint,
    summarize_dropped,
)

__all__ = [
    "BRANCHES",
    "SOURCES",
    "TARGETS",
    "Conversion",
    "ResNetArchitecture",
    "ViTArchitecture",
    "convert_checkpoint",
    "infer_architecture",
    "summarize_dropped",
]
