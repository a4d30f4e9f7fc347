"""The roles and equations of docstrings as Markdown, for mkdocstrings."""

import re
import textwrap

import griffe

EQUATION = re.compile(r"^( *)\.\. math:: (.+(?:\n\1 +\S.*)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":(?:class|func|meth|attr|data|mod):`~?([^`]+)`")


class MarkdownDocstrings(griffe.Extension):
    """Sphinx's roles and ``.. math::`` in the docstrings of all objects."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrite the object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Equations between dollars, names of objects as code."""
    text = EQUATION.sub(_display, text)
    text = INLINE.sub(r"$\1$", text)
    return ROLE.sub(lambda role: f"`{role[1].removeprefix('snclr_mm.')}`", text)


def _display(equation: re.Match) -> str:
    indent, formula = equation[1], " ".join(equation[2].split())
    return textwrap.indent(f"$$\n{formula}\n$$", indent)
