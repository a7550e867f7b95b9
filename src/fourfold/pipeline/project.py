"""The files around the package: the workflow, and what a project starts with."""

from pathlib import Path

from fourfold.errors import InputError

_PACKAGE = Path(__file__).parents[1]


def project_files() -> Path:
    """Return the folder with Snakefile, workflow/, params.yaml and the rest.

    A wheel has it inside of the package; in a clone it is the repository.

    Raises:
        InputError: if the package was installed without.
    """
    for folder in (_PACKAGE / "project", _PACKAGE.parents[1]):
        if (folder / "Snakefile").is_file():
            return folder
    raise InputError(
        f"the package in {_PACKAGE} lacks its workflow; install a wheel (`pip install "
        "'fourfold[pipeline]'`), or a clone in place (`pip install -e .`)."
    )


def snakefile() -> str:
    """Return the path of the Snakefile that a project includes."""
    return str(project_files() / "Snakefile")
