"""What pyproject.toml can't say: a wheel takes along what `fourfold init` hands out.

In the repository these files lie at the top, as in any project; in the wheel below `fourfold`.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FILES = ("Snakefile", "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore")
FOLDERS = ("workflow", "profiles", ".dvc")


class BuildWithProject(build_py):
    """Copies them; an editable install reads them where they are."""

    def run(self) -> None:
        """Build the package, then add the project."""
        super().run()
        if self.editable_mode:
            return
        project = Path(self.build_lib, "fourfold", "project")
        shutil.rmtree(project, ignore_errors=True)
        for name in FOLDERS:
            ignored = shutil.ignore_patterns("tmp", "cache", "config.local", "__pycache__")
            shutil.copytree(name, project / name, ignore=ignored)
        for name in FILES:
            shutil.copy(name, project)


setup(cmdclass={"build_py": BuildWithProject})
