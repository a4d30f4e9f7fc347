"""Numerics and communication without state."""

from .topk import top_k

__all__ = ["top_k"]
