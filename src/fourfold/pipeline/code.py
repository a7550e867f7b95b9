"""The code behind a command: its module and all that this imports.

Snakemake sees rules, not the modules behind a shell command. With the hash among a rule's params an
edited module reruns what uses it, and a mere touch reruns nothing; a killed job continues from its
state if the hash is the same.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def code_hash(command: str, network: str | None = None) -> str:
    """Return the SHA-256 of the text of all modules of this package that a command uses.

    Args:
        command: such as `evaluate_grid`.
        network: name of the network that it builds: networks are imported by name, so that no
            import statement shows which one a job uses.
    """
    files = _behind(PACKAGE / "pipeline" / "commands" / f"{command}.py")
    if network is not None and PACKAGE / "networks" / "__init__.py" in files:
        files |= _behind(PACKAGE / "networks" / f"{network}.py")
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _behind(path: Path) -> set[Path]:
    found, waiting = set(), {path}
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= _imported(path) - found
    return found


@cache
def _imported(path: Path) -> frozenset[Path]:
    """Return the files of this package that a Python file imports, wherever the import stands."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    stems = [
        PACKAGE.joinpath(*name.split(".")[1:]) for name in names if name.startswith("fourfold.")
    ]
    files = {f for stem in stems for f in (stem.with_suffix(".py"), stem / "__init__.py")}
    # The package's own names everything and runs nothing; so do the rooms'.
    return frozenset(file for file in files if file.is_file())
