"""What a shared folder says of itself in config.json, as anybody may have written it; no torch."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fourfold import __version__
from fourfold.errors import InputError
from fourfold.files.atomic import write_text
from fourfold.files.reading import (
    check_fields,
    parse_object,
    reading,
    reason,
    require_file,
    shortened,
)

CONFIG, MODEL, STATISTICS = "config.json", "model.safetensors", "statistics.safetensors"
CARD, EXAMPLE = "README.md", "example.py"
OWN = "own"  # an augmentation that is a function of the exporter's
STATISTICS_OF = ("none", "interpolated", "reestimated")
# Networks whose settings are numbers and choices: building them imports nothing by name.
_BUILT_HERE = ("resnet18", "vgg16", "vit", "torchvision")
_VERSION = 1  # of the format
_FORMAT = "fourfold-zoo-"
_LARGE, _MOST_PIXELS = 1e6, 4096  # beyond what means, and shifts of images, can be
_FIELDS: dict[str, Any] = {"surface": dict, "network": dict | None, "classes": list[str] | None}
_FIELDS |= {"image": dict | None, "normalize": dict | None, "batchnorm": dict, "points": dict}
_SURFACE: dict[str, Any] = {"name": str, "shape": dict, "train_corners": bool, "parameters": int}
_SURFACE |= {"sha256": str}
_BATCHNORM = {"statistics": str, "augment": dict | str | None, "seed": int}
_BATCHNORM |= {"batch_size": int | None, "precision": str}


@dataclass(frozen=True)
class Description:
    """Everything that is needed to read a surface and to build and feed its networks.

    Attributes:
        network: settings of `build_model`, as params.yaml has them; None for a module that only its
            owner can build.
        classes: name of each logit, None if there are no names.
        image: `channels`, and `size`, height and width in pixels; None for other inputs.
        normalize: `mean` and `std` of each channel in [0, 1], None for inputs that have none.
        batchnorm: where BatchNorm statistics come from (`statistics`): `none` (there are none),
            `interpolated` from the corners, or `reestimated`: then with `augment`, `seed`,
            `batch_size` and `precision`, see `reestimate_batchnorm`. `augment` has the settings of
            `RandomShiftFlip`, or is `own`, a function that isn't here, or None.
        points: name of a point -> its coordinates.
        surface: its `name`, its `shape` (see `shape_of`), whether a fit moved the corners too
            (`train_corners`), the `parameters` of one network, and the `sha256` of the tensors in
            its file.
    """

    network: dict[str, Any] | None
    classes: list[str] | None
    image: dict[str, int] | None
    normalize: dict[str, list[float]] | None
    batchnorm: dict[str, Any]
    points: dict[str, list[float]]
    surface: dict[str, Any] = field(default_factory=dict)  # known once its file is written

    @property
    def builder(self) -> str | None:
        """What builds the network, if that is code outside fourfold."""
        name = (self.network or {}).get("name")
        if name is None or name in _BUILT_HERE:
            return None
        return str((self.network or {}).get("builder") if name == "python" else name)

    @property
    def reestimation(self) -> dict[str, Any]:
        """What `reestimate_batchnorm` takes, beside images, augmentation and preprocessing."""
        return {key: self.batchnorm[key] for key in ("seed", "batch_size", "precision")}

    def write(self, folder: Path) -> None:
        """Write `config.json` into a folder."""
        given = {"format": f"{_FORMAT}{_VERSION}", "fourfold": __version__, **asdict(self)}
        try:
            text = json.dumps(given, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"network is {shortened(self.network)}, which has more than JSON values: "
                f"{reason(error)}. Let the builder make them of texts and numbers."
            ) from error
        write_text(folder / CONFIG, f"{text}\n")

    @classmethod
    def read(cls, folder: str | Path) -> "Description":
        """Read the `config.json` of a folder.

        Raises:
            InputError: if there is none, or it is damaged, or of a newer version of fourfold.
        """
        path = Path(folder) / CONFIG
        require_file(
            path,
            f"{folder} is no folder of `fourfold export`: it has no {CONFIG}. Give the folder that "
            "was downloaded or exported.",
        )
        with reading(path, "description of a surface"):
            given = parse_object(path.read_bytes(), str(path))
            _check_format(given)
            check_fields(given, _FIELDS, "it")
            described = cls(**{key: given[key] for key in _FIELDS})
            described.check()
        return described

    def check(self) -> None:
        """Refuse values that no folder can have."""
        check_fields(self.surface, _SURFACE, "its surface")
        check_fields(self.batchnorm, {"statistics": str}, "its batchnorm")
        if self.batchnorm["statistics"] not in STATISTICS_OF:
            raise InputError(
                f"batchnorm.statistics is {shortened(self.batchnorm['statistics'])}; it must be "
                f"one of {', '.join(STATISTICS_OF)}."
            )
        if self.batchnorm["statistics"] == "reestimated":
            check_fields(self.batchnorm, _BATCHNORM, "its batchnorm")
            if isinstance(stated := self.batchnorm["augment"], dict):
                check_fields(stated, {"shift": int, "flip": bool}, "its augmentation")
                if len(stated) > 2 or not 0 <= stated["shift"] <= _MOST_PIXELS:
                    raise InputError(
                        f"augment is {shortened(stated)}; it has shift, from 0 to {_MOST_PIXELS} "
                        "pixels, and flip."
                    )
        if self.image is not None:
            check_fields(self.image, {"channels": int, "size": int}, "its image")
            if len(self.image) > 2 or min(self.image.values()) < 1:
                raise InputError(
                    f"image is {shortened(self.image)}; it has channels and size, at least 1 each."
                )
        if self.normalize is not None:
            check_normalize(self.normalize, None if self.image is None else self.image["channels"])
        if self.network is not None:
            check_fields(self.network, {"name": str}, "its network")
            if self.image is None or self.classes is None:
                raise InputError("its network needs image and classes beside it.")
        check_fields({"points": self.points}, {"points": dict[str, list[float]]}, "it")


def check_normalize(given: Mapping[str, Any], channels: int | None) -> None:
    """Refuse a normalization that is no `mean` and `std` for each channel."""
    check_fields(given, {"mean": list[float], "std": list[float]}, "normalize")
    values = [*given["mean"], *given["std"]]
    sizes = {len(given["mean"]), len(given["std"]), channels or len(given["mean"])}
    if (
        len(sizes) > 1
        or not all(abs(x) < _LARGE for x in values)
        or min(given["std"], default=0) <= 0
    ):
        raise InputError(
            f"normalize is {shortened(dict(given))}; give a finite mean and a positive std for "
            f"each {'channel' if channels is None else f'of {channels} channels'}."
        )


def _check_format(given: Mapping[str, Any]) -> None:
    stated = given.get("format")
    found = re.fullmatch(rf"{_FORMAT}(\d{{1,9}})", stated) if isinstance(stated, str) else None
    if found is None:
        raise InputError(
            f"its format is {shortened(stated)}, which fourfold doesn't write; expected "
            f"'{_FORMAT}{_VERSION}'. Give a folder of `fourfold export`."
        )
    if int(found[1]) > _VERSION:
        raise InputError(
            f"its format is {stated!r}, of fourfold {shortened(given.get('fourfold'))}; fourfold "
            f"{__version__} reads up to '{_FORMAT}{_VERSION}'. Install a newer fourfold."
        )
