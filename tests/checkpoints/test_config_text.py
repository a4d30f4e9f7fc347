import ast

import pytest

from snclr_mm.checkpoints.config_text import literal, read_assignments

TEXT = """
model = dict(type='A', sizes=(1, 2.5), parts=[dict(a=None), {'b': -1}])
evil = __import__('os').system('true')
other = dict(x=open('f'), y=1)
import os
"""


def test_containers_of_constants():
    values = read_assignments(TEXT)
    assert list(values) == ["model", "evil", "other"]
    model = dict(type="A", sizes=(1, 2.5), parts=[dict(a=None), {"b": -1}])
    assert literal(values["model"], pytest.fail) == model


def test_the_rest_is_left_to_the_caller():
    values = read_assignments(TEXT)
    assert literal(values["evil"], lambda node: None) is None
    assert literal(values["other"], ast.unparse) == {"x": "open('f')", "y": 1}
    assert literal(ast.parse("{**a}", mode="eval").body, ast.unparse) == "{**a}"
    for text in ("{[]: 1}", "{[]}", "{{}: 1}", "dict(**{'a': 1})", "{f(): 1}"):
        node = ast.parse(text, mode="eval").body
        assert literal(node, ast.unparse) == text
    assert literal(ast.parse("dict([1])", mode="eval").body, ast.unparse) == "dict([1])"


def test_no_python():
    with pytest.raises(SyntaxError):
        read_assignments("model = dict(")
