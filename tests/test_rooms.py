"""The rooms of the package: each imports only rooms below it."""

import ast
from pathlib import Path

import fourfold

PACKAGE = Path(fourfold.__file__).parent
# From the bottom to the top; modules beside the rooms are below them all.
ROOMS = ("files", "networks", "surfaces", "data", "evaluation", "training", "combination")
ROOMS += ("zoo", "report", "pipeline")


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("fourfold.")}
    return found & set(ROOMS)


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert folders == set(ROOMS)


def test_a_room_imports_only_rooms_below_it():
    upwards = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for level, room in enumerate(ROOMS)
        for path in (PACKAGE / room).rglob("*.py")
        for other in imported_rooms(path)
        if ROOMS.index(other) > level
    ]
    assert upwards == []


def test_no_room_has_the_name_of_a_public_function():
    assert not set(ROOMS) & set(fourfold.__all__)
