"""A look at a YAML file before anything else reads it.

Snakemake reads params.yaml with YTE, which evaluates the Python expressions in a file that says
`__use_yte__: true`. And aliases of aliases make a few lines stand for billions of values.
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from fourfold.errors import InputError
from fourfold.untrusted import reading, require_file

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 300_000  # params.yaml has some 20,000
# Lines, commas and opening brackets, which cost time: a second for 50,000. params.yaml has 700.
MAX_MARKS = 20_000
MAX_DEPTH = 50  # of brackets on one line; the parser's time grows with the square
MAX_VALUES = 100_000  # with all aliases written out; params.yaml has some 2,000
_TEMPLATE_KEY = "__use_yte__"
_TAGS = "tag:yaml.org,2002:"


def check_yaml(path: str | Path) -> None:
    """Refuse a YAML file that would run code, fill the memory, or can't be read.

    Raises:
        InputError: naming the file, the line, and what is allowed.
    """
    import yaml

    require_file(path)
    with reading(path, "YAML file", yaml.YAMLError, cure="correct it, or get it again"):
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise InputError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read.")
        text = Path(path).read_text(encoding="utf-8")
        _check_cost(text, str(path))
        # The loader in Python, not the one in C, whose own recursion has no limit.
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
            if root is not None:
                _count(root, str(path), {})
                loader.construct_document(root)
        except yaml.MarkedYAMLError as error:
            place = error.problem_mark or error.context_mark
            line = place.line + 1 if place else 1
            raise InputError(
                f"{path}, line {line}: no valid YAML ({error.problem or error.context}); correct "
                "it, or get it again."
            ) from error


def _check_cost(text: str, path: str) -> None:
    if (marks := sum(map(text.count, "\n,[{"))) > MAX_MARKS:
        raise InputError(
            f"{path} has {marks:,} lines, commas and brackets; at most {MAX_MARKS:,} are read."
        )
    for number, line in enumerate(text.split("\n"), 1):
        depths = itertools.accumulate((mark in "[{") - (mark in "]}") for mark in line)
        if max(depths, default=0) > MAX_DEPTH:
            raise InputError(f"{path}, line {number}: more than {MAX_DEPTH} brackets are open.")


def _count(node: "yaml.Node", path: str, counts: dict[int, int | None]) -> int:
    """Return the number of values below and with a node, each alias counted as what it repeats."""
    where = f"{path}, line {node.start_mark.line + 1}"
    if id(node) in counts:
        if (known := counts[id(node)]) is None:
            raise InputError(f"{where}: a value contains itself; write it without the alias.")
        return known
    if not node.tag.startswith(_TAGS) or node.tag.startswith(f"{_TAGS}python/"):
        raise InputError(f"{where}: the tag {node.tag!r:.80} is not allowed; write plain YAML.")
    counts[id(node)] = None
    total = 1
    if isinstance(node.value, list):
        for child in node.value:
            for part in child if isinstance(child, tuple) else (child,):  # key and value
                total += _count(part, path, counts)
                if total > MAX_VALUES:
                    raise InputError(
                        f"{where}: with its aliases written out, this has more than "
                        f"{MAX_VALUES:,} values; write fewer."
                    )
    elif node.value == _TEMPLATE_KEY:
        raise InputError(
            f"{where}: {_TEMPLATE_KEY} would let the file run Python when Snakemake reads it; "
            "remove it and write the values themselves."
        )
    counts[id(node)] = total
    return total
