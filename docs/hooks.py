"""What MkDocs does not do by itself: links into the repository, and pages that may not be there.

The pages are also read in the repository, where they link to its files outside docs/. A site has no
such files: there a link becomes its text, after a look that the file exists. A page of the
navigation that has not been written yet is left out.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

OPTIONAL = ("results.md", "viewer.md", "reconstruction.md")  # written apart
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Leave out what is not there."""
    docs = Path(config["docs_dir"])
    config["nav"] = kept(config["nav"], {n for n in OPTIONAL if not (docs / n).is_file()})
    return config


def kept(nav: list[Any], missing: set[str]) -> list[Any]:
    """The navigation without pages that are missing."""
    out = []
    for entry in nav:
        for title, value in entry.items():
            if isinstance(value, list):
                out.append({title: kept(value, missing)})
            elif value not in missing:
                out.append(entry)
    return out


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn links to the repository's files into text."""
    docs = Path(config["docs_dir"])
    folder = posixpath.dirname(page.file.src_uri)
    missing = [name for name in OPTIONAL if not (docs / name).is_file()]

    def plain(match: re.Match[str]) -> str:
        text, target = match.groups()
        place = posixpath.normpath(posixpath.join(folder, target))
        if not place.startswith("../"):
            return match.group(0)  # a page
        if not (docs / place).exists():
            raise PluginError(f"{page.file.src_uri}: there is no {target}")
        return text if text.startswith("`") else f"`{text}`"

    markdown = LINK.sub(plain, markdown)
    for name in missing:
        markdown = re.sub(rf"\[([^\]]+)\]\({re.escape(name)}\)", r"\1", markdown)
    return markdown
