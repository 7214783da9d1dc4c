"""Files of OpenCV's FileStorage, as YAML, XML or JSON: names, numbers and matrices."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from taichi_raster.capture.readers.reading import json_object, wrong

SUFFIXES = (".yml", ".yaml", ".xml", ".json")


def read(path: Path) -> dict[str, Any]:
    """The top level of a file: names to numbers, texts, lists and mappings.

    Files of ROS, whose matrices are mappings with rows, cols and data, are read, too.

    Raises:
        ValueError: naming the file, if it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        found: Any = json_object(path)
    elif suffix == ".xml":
        found = _xml(path)
    else:
        found = _yaml(path)
    if not isinstance(found, dict):
        raise wrong(path, "", "must hold names and values, as OpenCV's FileStorage writes them")
    return {str(name): value for name, value in found.items()}


def matrix(path: Path, field: str, value: Any) -> Any:
    """A value as an array, if it is a matrix; else as it is.

    Raises:
        ValueError: naming the file and the field, for a matrix without all of its numbers.
    """
    if not (isinstance(value, dict) and {"rows", "cols", "data"} <= set(value)):
        return value
    try:
        data = np.array([float(number) for number in value["data"]], dtype=np.float64)
        return data.reshape(int(value["rows"]), int(value["cols"]))
    except (TypeError, ValueError, OverflowError) as error:
        size = f"{value['rows']} x {value['cols']}"
        raise wrong(path, field, f"is no matrix of {size} numbers: {error}") from error


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Takes any tag for what it stands before."""


def _untagged(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("", _untagged)


def _yaml(path: Path) -> Any:
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.startswith("%YAML"):  # OpenCV writes "%YAML:1.0", which YAML itself does not know
        text = text.partition("\n")[2]
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise wrong(path, "", f"cannot be read as YAML: {error}") from error


def _xml(path: Path) -> Any:
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError) as error:
        raise wrong(path, "", f"cannot be read as XML: {error}") from error
    return {child.tag: _value(child) for child in root}


def _value(node: ElementTree.Element) -> Any:
    text = (node.text or "").strip()
    if node.get("type_id") == "opencv-matrix":
        parts = {child.tag: (child.text or "").strip() for child in node}
        return {**parts, "data": parts.get("data", "").split()}
    if len(node):
        return {child.tag: _value(child) for child in node}
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers
