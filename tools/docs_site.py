"""What the documentation site needs beyond mkdocs.yml: equations as MathML, and docstrings as Markdown.

Browsers draw MathML themselves, so that no page loads a script for it. The docstrings' roles and equations are
reStructuredText, which editors and Sphinx show; here they become links and MathML.
"""

from __future__ import annotations

import re
from html import escape
from textwrap import dedent
from textwrap import indent as indent_all
from typing import Any

import griffe
from latex2mathml.converter import convert

ROLE = re.compile(r":(class|func|meth|attr|data|mod):`([^`]+)`")
INLINE = re.compile(r":math:`([^`]+)`")
DISPLAY = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|(?= *\n\1 +\S)))*)", flags=re.MULTILINE)
LITERAL = re.compile(r"^( *)Example::\n\n((?:\1 +\S.*(?:\n+|$))+)", flags=re.MULTILINE)
EXAMPLE = re.compile(r"^( *)Example:$", flags=re.MULTILINE)


def on_config(config: Any) -> Any:
    """Teach Markdown ```` ```math ```` and `` `#!math x` ``."""
    settings = config.mdx_configs
    settings.setdefault("pymdownx.superfences", {})["custom_fences"] = [
        {"name": "math", "class": "math", "format": _block}
    ]
    settings.setdefault("pymdownx.inlinehilite", {})["custom_inline"] = [
        {"name": "math", "class": "math", "format": _inline}
    ]
    return config


class Docstrings(griffe.Extension):
    """Turns the roles, equations and examples of every docstring into Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each module, class, function and attribute that it has read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value, obj)


def markdown(text: str, obj: griffe.Object) -> str:
    """A docstring with roles as links, equations as Markdown's, and ``Example`` as the section that it is."""
    text = LITERAL.sub(lambda found: _code(found[1], found[2]), text)
    text = EXAMPLE.sub(r"\1Examples:", text)
    text = DISPLAY.sub(lambda found: _fenced(found[1], found[2]), text)
    text = INLINE.sub(lambda found: f"`#!math {' '.join(found[1].split())}`", text)
    return ROLE.sub(lambda found: _link(found[2], obj), text)


def _code(indent: str, source: str) -> str:
    return indent_all(f"```python\n{dedent(source).strip()}\n```", indent) + "\n\n"


def _fenced(indent: str, formula: str) -> str:
    lines = [line.strip() for line in formula.strip().splitlines()]
    body = "\n".join(f"{indent}{line}" for line in lines if line)
    return f"{indent}```math\n{body}\n{indent}```"


def _link(role: str, obj: griffe.Object) -> str:
    name = role.lstrip("~.")
    shown = name.rpartition(".")[2] if role.startswith(("~", ".")) else name
    try:
        path = obj.resolve(name) if not name.startswith(("landscape_lab.", "torch.", "scipy.")) else name
    except griffe.NameResolutionError:
        path = name
    # Optional: what has no entry of its own is shown without a link.
    return f'<autoref optional identifier="{escape(path)}"><code>{escape(shown)}</code></autoref>'


def _block(source: str, *_: Any, **__: Any) -> str:
    return f'<div class="math">{_mathml(source, "block")}</div>'


def _inline(source: str, *_: Any, **__: Any) -> str:
    return _mathml(source, "inline")


def _mathml(source: str, display: str) -> str:
    # The source stays readable for those who listen to the page, or copy from it.
    return convert(source, display=display).replace("<math ", f'<math alttext="{escape(source.strip())}" ', 1)
