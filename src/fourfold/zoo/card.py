"""The card of a shared folder, README.md as model hubs read it, and its example; no torch."""

import json
import re
from collections.abc import Mapping

from fourfold.errors import InputError
from fourfold.surfaces.shapes import shape_of, written
from fourfold.zoo.description import MODEL, OWN, STATISTICS, Description

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_TAGS = ("mode-connectivity", "loss-landscape", "model-merging")
_PAPER = (
    "Reference: Ren, Chen, Wang, *Revisiting Mode Connectivity in Neural Networks with Bezier "
    "Surface*, ICLR 2025."
)


def render_card(
    described: Description,
    license: str,
    *,
    title: str | None = None,
    metadata: str = "",
    sections: Mapping[str, str] | None = None,
) -> str:
    """Return a card: what a folder holds, how it is loaded, and what is known of it.

    Args:
        described: by its `config.json`.
        license: of the networks, an identifier of model hubs.
        title: of the card; by default the surface's name.
        metadata: further YAML for the front matter.
        sections: heading -> text, between how it is loaded and its license.
    """
    check_license(license)
    front = [f"license: {license}", "library_name: fourfold"]
    front += ["pipeline_tag: image-classification"] if described.image else []
    front += ["tags:", *(f"- {tag}" for tag in _TAGS), *filter(None, [metadata.strip()])]
    parts = {"Use": _use(described), **(sections or {}), "License": _license(license)}
    blocks = ["\n".join(["---", *front, "---"]), f"# {title or described.surface['name']}"]
    blocks += [_what(described)]
    blocks += [f"## {heading}\n\n{text}" for heading, text in parts.items()]
    return "\n\n".join(blocks) + "\n"


def check_license(license: str) -> None:
    """Refuse what is no identifier of a license."""
    if not _LICENSE.fullmatch(license):
        raise InputError(
            f"license is {license!r}; give an identifier of model hubs in small letters, such as "
            "mit, apache-2.0, cc-by-4.0, other or unknown."
        )


def render_example(described: Description) -> str:
    """Return a program that loads the folder in which it lies."""
    center = written(described.points["center"])
    call = f"ff.load_network(folder, {center}{_builder(described)})"
    lines = ['"""Load this surface and one of its networks; first `pip install fourfold`."""', ""]
    lines += ["from pathlib import Path", ""]
    lines += ["import torch", ""] if described.network else []
    lines += ["import fourfold as ff", "", "folder = Path(__file__).parent"]
    lines += ["surface = ff.load_surface(folder)", "print(surface)"]
    if described.network is None or described.image is None:
        lines += [f"state = surface.state_dict({center})", "print(*state)"]
        return "\n".join(lines) + "\n"
    shape = ", ".join(map(str, _image_shape(described)))
    lines += ["", f"network = {call}  # the center"]
    lines += [f"images = torch.randint(256, (4, {shape}), dtype=torch.uint8)  # put yours here"]
    lines += ["with torch.no_grad():", "    logits = network(images)"]
    lines += ["print([network.classes[k] for k in logits.argmax(dim=1)])"]
    return "\n".join(lines) + "\n"


def _what(described: Description) -> str:
    of = described.surface
    shape = shape_of(of["shape"])
    settings = ", ".join(
        f"{key} {' x '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"
        for key, value in shape.settings().items()
    )
    corners = ", ".join(f"({written(at)})" for at in shape.corner_coordinates)
    axes = ", ".join(shape.axes)
    return (
        f"Each point ({axes}) of this {shape.kind} in parameter space ({settings}) is a network "
        f"of {of['parameters']:,} parameters. The {len(shape.corner_rows)} corners, at {corners}, "
        "are "
        + (
            "points like all others: nobody trained them alone."
            if of["train_corners"]
            else "the networks that it was made from, as they were trained."
        )
        + (f" {_PAPER}" if shape.kind == "square" else "")
    ).replace(" ()", "")


def _use(described: Description) -> str:
    center = written(described.points["center"])
    given = _builder(described) if described.network else ", model=build()"
    lines = ["import fourfold as ff", "", 'surface = ff.load_surface("folder")']
    lines += [f'network = ff.load_network("folder", {center}{given})  # an nn.Module, evaluating']
    lines += ["logits = network(images)"]
    text = [f"    {line}".rstrip() for line in lines]
    return "\n".join([*text, "", _input(described), "", _statistics(described)])


def _input(described: Description) -> str:
    text = "Images are uint8, or floats in [0, 1]"
    if described.image is not None:
        text = text.replace("Images", f"Images ({', '.join(['n', *_image_shape(described)])})")
    if described.normalize is not None:
        each = [
            f"{key} {', '.join(f'{x:.4f}' for x in of)}" for key, of in described.normalize.items()
        ]
        text += f"; they are normalized inside ({'; '.join(each)})"
    if described.classes is not None:
        text += f". {len(described.classes)} classes, in the order of `network.classes`"
    return f"{text}."


def _statistics(described: Description) -> str:
    kind = described.batchnorm["statistics"]
    if kind == "none":
        return "The networks have no BatchNorm: every point can be loaded."
    if kind == "interpolated":
        return "BatchNorm statistics are interpolated from the corners': every point can be loaded."
    asked = ", augment=augment" if described.batchnorm["augment"] == OWN else ""
    own = "Corners have the BatchNorm statistics of their training. Elsewhere statistics "
    own = "BatchNorm statistics " if described.surface["train_corners"] else own
    return (
        f"{own}have to be re-estimated on training images: `{STATISTICS}` holds them for the "
        f"points of a grid and the center, any other point takes `images=train_images{asked}`. "
        f"`{MODEL}` alone, without them, gives networks that guess."
    )


def _license(license: str) -> str:
    if license == "unknown":
        return "Whoever exported this folder stated no license for the networks."
    return f"The networks: `{license}`, says who exported them. The images they saw aren't here."


def _builder(described: Description) -> str:
    return "" if described.builder is None else f", allow={json.dumps(described.builder)}"


def _image_shape(described: Description) -> list[str]:
    assert described.image is not None
    return [str(described.image[key]) for key in ("channels", "size", "size")]
