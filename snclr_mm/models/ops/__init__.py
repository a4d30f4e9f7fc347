"""Numerics and communication without state."""

from .gather import GatherRows, gather_rows
from .log_denominator import log_denominator
from .topk import top_k

__all__ = ["GatherRows", "gather_rows", "log_denominator", "top_k"]
