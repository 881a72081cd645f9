"""Let the API pages of the site show the examples of docstrings as code.

Griffe takes only what stands under `Examples:` as code. In this project an example stands where
it belongs, without a heading.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_EXAMPLES = re.compile(r"^>>> .*(?:\n.+)*(?:\n\n>>> .*(?:\n.+)*)*", re.MULTILINE)


def with_headings(docstring: str) -> str:
    """Return a docstring with `Examples:` above each row of examples."""

    def under_a_heading(match: re.Match[str]) -> str:
        return f"Examples:\n{textwrap.indent(match[0], '    ')}"

    return _EXAMPLES.sub(under_a_heading, docstring)


class Examples(griffe.Extension):
    """Change every docstring after it was read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Add the headings."""
        if obj.docstring:
            obj.docstring.value = with_headings(obj.docstring.value)
