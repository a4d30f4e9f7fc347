"""A config as text, read as data: nothing in it is executed."""

import ast
from collections.abc import Callable
from typing import Any


def read_assignments(text: str) -> dict[str, ast.expr]:
    """The values of a config's top-level names, for :func:`literal`.

    Raises:
        SyntaxError: If it is not Python.
    """
    return {
        statement.targets[0].id: statement.value
        for statement in ast.parse(text).body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
    }


def literal(node: ast.expr, otherwise: Callable[[ast.expr], Any]) -> Any:
    """A constant, or a container of them; ``dict(...)`` is the only call.

    Args:
        node (ast.expr): Of :func:`read_assignments`.
        otherwise (Callable): What stands for a part that is none of these.
    """
    called = isinstance(node, ast.Call) and getattr(node.func, "id", None)
    if called == "dict" and not node.args and all(pair.arg for pair in node.keywords):
        return {pair.arg: literal(pair.value, otherwise) for pair in node.keywords}
    if isinstance(node, ast.List | ast.Tuple):
        kind = list if isinstance(node, ast.List) else tuple
        return kind(literal(item, otherwise) for item in node.elts)
    try:
        if not isinstance(node, ast.Dict):
            return ast.literal_eval(node)
        pairs = zip(node.keys, node.values, strict=True)
        items = {ast.literal_eval(key): value for key, value in pairs}
    except (TypeError, ValueError):  # also of {**other}, whose key is None
        return otherwise(node)
    return {key: literal(value, otherwise) for key, value in items.items()}
