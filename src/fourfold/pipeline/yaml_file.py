"""A look at a YAML file before Snakemake reads it.

Snakemake takes the last of two equal keys in silence, ends in a traceback where a file is no UTF-8,
and runs the Python expressions of a file that says `__use_yte__: true`.
"""

import contextlib
import json
import re
from pathlib import Path

import yaml

from fourfold.errors import InputError
from fourfold.files.reading import reading, require_file, shortened

_TAG = "tag:yaml.org,2002:"
_PLAIN = ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp")
_ODD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+:.*)")  # in YAML 1.1 octal, and to the base 60


def check_yaml(path: str | Path) -> None:
    """Refuse a YAML or JSON file that can't be read, that runs code, or that misleads its reader.

    Every key is text and stands once in its mapping; merges (`<<`) may be overridden. 010 is no
    number, since it would be 8; 2024-01-01 is no text, since it would be a date.

    Raises:
        InputError: naming the file, the line, and what is wrong there.
    """
    require_file(path)
    with reading(path, "YAML file", yaml.YAMLError, cure="correct it, or get it again"):
        content = Path(path).read_bytes()
        try:
            text = content.decode()
            with contextlib.suppress(ValueError):
                json.loads(text)
                text = text.replace("\t", " ")  # JSON may be indented by them, YAML may not
            # The loader in Python, not the one in C, whose own recursion has no limit.
            loader = yaml.SafeLoader(text)
            root = loader.get_single_node()
            if root is not None:
                _check(root, {})
            if not isinstance(root, yaml.MappingNode):
                raise InputError(f"{path} has no keys at its top level; write `key: value`.")
            loader.construct_document(root)
        except UnicodeDecodeError as error:
            line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
            raise InputError(
                f"{path}, line {line}: byte 0x{byte:02x} is no UTF-8; save the file as UTF-8."
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = f"line {mark.line + 1 if mark else 1}: {error.problem or error.context}"
            raise InputError(f"{path}, {said}; correct it, or get it again.") from error


def _check(node: yaml.Node, finished: dict[int, bool]) -> None:
    kind = node.tag.removeprefix(_TAG)
    _require(kind in _PLAIN, node, f"the tag {node.tag!r:.80} is no plain YAML")
    _require(finished.get(id(node), True), node, "a value contains itself")
    if id(node) in finished:
        return
    finished[id(node)] = False
    if isinstance(node, yaml.ScalarNode) and kind in ("int", "float"):
        said = "is read to the base 8 or 60, for its leading zero or colon, unless in quotes"
        _require(not _ODD_NUMBER.fullmatch(node.value), node, f"{shortened(node.value)} {said}")
    if isinstance(node, yaml.ScalarNode) and kind == "timestamp":
        _require(False, node, f"{shortened(node.value)} is read as a date, unless in quotes")
    lines: dict[str, int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        kind = key.tag.removeprefix(_TAG)
        _require(
            kind in ("str", "merge"), key, f"a key is read as {kind}, not as text, unless in quotes"
        )
        _require(key.value != "__use_yte__", key, "__use_yte__ would let the file run Python")
        said = f"stands twice here, first in line {lines.get(key.value)}"
        _require(key.value not in lines, key, f"the key {shortened(key.value)} {said}")
        lines[key.value] = key.start_mark.line + 1
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        _check(child[1] if isinstance(child, tuple) else child, finished)
    finished[id(node)] = True


def _require(is_right: bool, node: yaml.Node, otherwise: str) -> None:
    if not is_right:
        raise yaml.MarkedYAMLError(problem=otherwise, problem_mark=node.start_mark)
