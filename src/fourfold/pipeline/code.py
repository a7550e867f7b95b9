"""The code behind a command: its module and all that this imports.

Snakemake sees rules, not the modules behind a shell command. With the hash among a rule's params an
edited module reruns what uses it, and a mere touch reruns nothing; a killed job continues from its
state if the hash is the same.
"""

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fourfold.errors import InputError
from fourfold.files.reading import reading

PACKAGE = Path(__file__).parents[1]
_ASSETS = ("*.html", "*.css", "*.js")  # beside a module of ours: what it makes a page of


def code_hash(command: str, network: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 of the text of all modules that a command uses: of this package, and ours.

    Args:
        command: such as `evaluate_grid`.
        network: that it builds, as params.yaml has it. Networks are imported by name, so that no
            import statement shows which one a job uses; nor the user's module with its `builder`.

    Raises:
        InputError: if there is no such module, or it is no Python.
    """
    network = network or {}
    return _code_hash(command, network.get("name"), network.get("builder"), Path.cwd())


@cache
def _code_hash(command: str, network: str | None, builder: str | None, here: Path) -> str:
    files, root = _behind(PACKAGE / "pipeline" / "commands" / f"{command}.py", PACKAGE), here
    if network is not None and PACKAGE / "networks" / "__init__.py" in files:
        files |= _behind(PACKAGE / "networks" / f"{network}.py", PACKAGE)
        if builder is not None:
            file, root = builder_file(builder, here)
            files |= _behind(file, root, _reach(file, root))
    folders = {file.parent for file in files if file.is_relative_to(PACKAGE)}
    files |= {asset for folder in folders for kind in _ASSETS for asset in folder.glob(kind)}
    digest = hashlib.sha256()
    for path in sorted(files):
        below = next(folder for folder in (PACKAGE, root) if path.is_relative_to(folder))
        digest.update(path.relative_to(below).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def builder_file(builder: str, here: Path) -> tuple[Path, Path]:
    """Return the file of the module that a `builder` names, in the folder `here` or installed.

    Beside it stands the folder that its name starts from. Nothing is imported, as that would import
    torch.
    """
    name = builder.partition(":")[0]
    first, *rest = name.split(".")
    folders = [here]
    if not _files_of([here / first]):
        spec = find_spec(first) if first else None
        if spec is not None:
            origin = [Path(spec.origin)] if spec.origin and not rest else []
            if origin and origin[0].is_file():
                is_package = spec.submodule_search_locations is not None
                return origin[0], origin[0].parents[1 if is_package else 0]
            folders = [Path(folder).parent for folder in spec.submodule_search_locations or ()]
    found = [
        (file, folder) for folder in folders for file in _files_of([folder.joinpath(first, *rest)])
    ]
    if not found:
        raise InputError(
            f"network.builder is {builder!r}, but there is no module {name!r}, neither in the "
            f"working directory, {here}, nor installed."
        )
    return found[0]


def _reach(file: Path, root: Path) -> Path:
    """Return the folder whose files count: below `root`, or of an installed package its own."""
    installed = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
    return root / file.relative_to(root).parts[0] if root in installed else root


def _behind(path: Path, root: Path, reach: Path | None = None) -> set[Path]:
    found, waiting = set(), {path}
    while waiting:
        path = waiting.pop()
        found.add(path)
        imported = _imported(path, root) - found
        waiting |= {file for file in imported if file.is_relative_to(reach or root)}
    return found


@cache
def _imported(path: Path, root: Path) -> frozenset[Path]:
    """Return the files of this package that a Python file imports, wherever the import stands.

    Of a file of the user's those below `root`, the folder that it is imported from.
    """
    with reading(path, "Python file", SyntaxError):
        tree = ast.parse(path.read_text(encoding="utf-8"))
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            start = f"{node.module}" if node.module else ""
            if node.level and path.is_relative_to(root):
                package = path.relative_to(root).parts[: -node.level]
                start = ".".join([*package, *([start] if start else [])])
            names += [start, *(f"{start}.{alias.name}".lstrip(".") for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    stems = []
    if root == PACKAGE:  # its own names everything and runs nothing; so do the rooms'
        names = [name.removeprefix("fourfold.") for name in names if name.startswith("fourfold.")]
    else:  # a module's packages run before it does
        stems = [folder for folder in path.parents if folder != root and root in folder.parents]
    stems += [root.joinpath(*name.split(".")) for name in names if name]
    return frozenset(_files_of(stems))


def _files_of(stems: Iterable[Path]) -> list[Path]:
    files = (f for stem in stems for f in (stem.with_suffix(".py"), stem / "__init__.py"))
    return [file for file in files if file.is_file()]
