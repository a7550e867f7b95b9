"""Start a project: a folder with all that `snakemake` and `dvc` need beside the installed package.

The rules stay in the package, so that a newer version brings newer ones; params.yaml, with every
number that shapes a result, is the project's own.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from string import Template
from textwrap import indent
from typing import Any

import yaml

from fourfold import __version__
from fourfold.errors import InputError
from fourfold.files.atomic import atomic_folder
from fourfold.pipeline.params import check_name
from fourfold.pipeline.params_check import check_params
from fourfold.pipeline.project import project_files

_OWN = "mine"  # the experiment on the user's networks, and its parts
_COPIED = ("profiles", "workflow/profiles", ".dvc", ".dvcignore", ".gitignore")
_LOCAL = shutil.ignore_patterns("tmp", "cache", "config.local")  # of a clone

# By the number of files: what spans them, and what is fitted.
_SHAPES = {
    2: ("shape: curve, degree: [1]", "shape: curve, degree: [2]"),
    3: ("shape: triangle, degree: [1]", "shape: triangle, degree: [2]"),
    4: ("shape: square, degree: [1, 1]", "shape: square, degree: [2, 2]"),
    8: ("shape: cube, degree: [1, 1, 1]", "shape: cube, degree: [2, 2, 2]"),
}
_MOST_PIXELS = 4096  # as in the schema
_TIMM = "timm:"  # in front of an architecture of timm
# Folders of splits, the first ones first; as image_folder, whose import takes torch, knows them.
_TRAIN, _HELD_OUT = ("train", "training"), ("test", "testing", "val", "valid", "validation", "dev")
_MOST_HELD_OUT = 5000  # images of val, and of test where none is published


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, help="to make; it is new, or empty")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--experiments",
        nargs="+",
        metavar="NAME",
        help="to run (default: three on handwritten digits, which need no download)",
    )
    what.add_argument(
        "--from-files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoints of 2, 3, 4 or 8 networks, to span a surface between them",
    )
    own = parser.add_argument_group("with --from-files")
    own.add_argument(
        "--architecture",
        metavar="NAME",
        help="of torchvision.models, as resnet18, or of timm, as timm:resnet18",
    )
    own.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="of class folders, or of such folders named train and test (or val, validation, ...)",
    )
    own.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="of the images in training (default for timm's: of its data config)",
    )
    own.add_argument("--key", help="where in each file the state dict is (default: usual places)")


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, after everything that can be checked now has been."""
    folder, files = arguments.folder, project_files()
    if folder.resolve() == Path.cwd():
        raise InputError(f"{folder} is the folder that you are in; name a new one.")
    with atomic_folder(folder) as made:
        params = (files / "params.yaml").read_text(encoding="utf-8")
        names, requirements = arguments.experiments, [f"fourfold[pipeline]=={__version__}"]
        own = {key: getattr(arguments, key) for key in ("architecture", "images", "size", "key")}
        if arguments.from_files:
            params, names = insert_parts(params, own_parts(arguments.from_files, **own)), [_OWN]
            if arguments.architecture.startswith(_TIMM):
                requirements.append(f"timm=={version('timm')}")
        elif given := [f"--{key}" for key, value in own.items() if value is not None]:
            raise InputError(f"{', '.join(given)} given without --from-files; give both or none.")
        if names:
            defined = yaml.safe_load(params)
            for name in names:
                check_name(defined, "experiments", name, "--experiments")
            params = re.sub(r"(?m)^run: \[.*?\]", f"run: [{', '.join(names)}]", params, count=1)
        values = yaml.safe_load(params)
        check_params(values)
        run = ", ".join(values["run"])
        for name in _COPIED:
            if (files / name).is_dir():
                shutil.copytree(files / name, made / name, ignore=_LOCAL)
            else:
                shutil.copy(files / name, made)
        texts = {
            "params.yaml": params,
            "dvc.yaml": project_stages((files / "dvc.yaml").read_text(encoding="utf-8")),
            "requirements.txt": "\n".join([*requirements, ""]),
            "Snakefile": _template("Snakefile").template,
            "README.md": _template("README.md").substitute(
                name=folder.name, version=__version__, run=run
            ),
        }
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
    print(f"made {folder}, to run {run}:\n\n    cd {folder}\n    snakemake --cores all\n")
    print("Its numbers are in params.yaml; the headline table will be in results/summary.md.")


def own_parts(
    files: Sequence[Path],
    architecture: str | None,
    images: Path | None,
    size: int | None,
    key: str | None,
) -> str:
    """Return the sections of params.yaml with an experiment on the user's networks and images.

    Raises:
        InputError: if something is missing, or a file holds another network than that.
    """
    # They import torch, which an experiment of params.yaml does not need.
    from fourfold.data.sources.image_folder import count_images
    from fourfold.networks import build_model
    from fourfold.surfaces.checkpoint import load_into

    settings: dict[str, Any] = {}
    if architecture is not None:
        size, settings = _network(architecture, size)
    needed = {"architecture": architecture, "images": images, "size": size}
    if architecture is None or images is None or size is None:
        missing = " and ".join(f"--{name}" for name, value in needed.items() if value is None)
        raise InputError(f"--from-files needs {missing} as well.")
    if not 1 <= size <= _MOST_PIXELS:
        raise InputError(f"--size is {size}; images have 1 to {_MOST_PIXELS} pixels a side.")
    if len(files) not in _SHAPES:
        raise InputError(
            f"--from-files has {len(files)} files; a curve takes 2, a triangle 3, a square 4, a "
            "cube 8. Other shapes: a line of `surfaces` in params.yaml."
        )
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("--from-files has a file twice; each corner is a network of its own.")
    train, test = _splits(images)
    counted = count_images(train)
    held_out = min(sum(counted.values()) // 5, _MOST_HELD_OUT)
    built = {key: value for key, value in settings.items() if key != "normalize"}
    network = build_model(channels=3, image_size=size, classes=len(counted), **built)
    for file in files:
        load_into(network, file, key)
    linear, bezier = _SHAPES[len(files)]
    entry = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None).rstrip()
    return _template("mine.yaml").substitute(
        train=_quoted(train),
        test=_quoted(test),
        size=size,
        val_images=held_out,
        test_images=held_out if test is None else "null",
        network=indent(entry, " " * 4),
        files=f"[{', '.join(map(_quoted, files))}]",
        key=json.dumps(key),
        linear=linear,
        bezier=bezier,
    )


def insert_parts(params: str, parts: str) -> str:
    """Return the text of a params.yaml with further entries at the head of its sections."""
    for part in re.split(r"(?m)^(?=\w)", parts)[1:]:
        section, _, entries = part.partition(":\n")
        head, _, rest = params.partition(f"\n{section}:")
        line, _, rest = rest.partition("\n")
        params = f"{head}\n{section}:{line}\n{entries}{rest}"
    return params


def project_stages(stages: str) -> str:
    """Return a dvc.yaml whose stages depend on the version of the package, not on its files."""
    return re.sub(r"- workflow(/rules)?\n( +)- src/fourfold\n", "- requirements.txt\n", stages)


def _network(architecture: str, size: int | None) -> tuple[int | None, dict[str, Any]]:
    """Return the pixels of an image, if known, and an entry for `networks` in params.yaml."""
    if not architecture.startswith(_TIMM):
        return size, {
            "name": "torchvision",
            "architecture": architecture,
            "normalize": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        }
    from fourfold.networks.timm import expected_input

    name = architecture.removeprefix(_TIMM)
    size, settings = expected_input(name, size)
    return size, {"name": "timm", "architecture": name, **settings}


def _template(name: str) -> Template:
    file = Path(__file__).parents[1] / "templates" / name
    return Template(file.read_text(encoding="utf-8"))


def _splits(images: Path) -> tuple[Path, Path | None]:
    """Return the folders of train and test; None where images of one folder are to be drawn."""
    below = {one.name.lower(): one for one in sorted(images.glob("*")) if one.is_dir()}
    train = next((below[name] for name in _TRAIN if name in below), None)
    held_out = [below[name] for name in _HELD_OUT if name in below]
    if train is None or not held_out:
        return images, None
    if len(held_out) > 1:
        print(
            f"note: {' and '.join(map(str, held_out[1:]))} isn't used: val is drawn from {train}, "
            "whose images the networks may have seen. datasets.mine in params.yaml says so.",
            file=sys.stderr,
        )
    return train, held_out[0]


def _quoted(path: Path | None) -> str:
    return json.dumps(path and str(path.resolve()), ensure_ascii=False)
