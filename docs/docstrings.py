"""Docstrings as the site wants them: a section "Example:" is one of examples, set as code."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames "Example:" to "Examples:", the name that is understood as a section."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(
                r"^(\s*)Example:$", r"\1Examples:", text, flags=re.MULTILINE
            )
