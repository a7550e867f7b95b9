"""Write docs/licenses.md: what fourfold needs, what that needs in turn, and under which licences.

    python docs/licenses.py

It reads the metadata of installed packages, of all extras.
"""

from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).with_name("licenses.md")
HEAD = """\
# Licences of the dependencies

fourfold is under the MIT licence. It needs the packages below, which `pip` installs beside it, each
under the licence that its own metadata state. The CUDA builds of torch bring NVIDIA's libraries
along, under NVIDIA's terms. Written by `python docs/licenses.py`.
"""
_MOST = 60  # characters of a licence field, which may hold the whole text


def required(names: Iterable[str], extra: str = "") -> Iterator[Distribution]:
    """Yield the packages that those need, and these in turn, on this machine and Python."""
    waiting = [(name, extra) for name in names]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        found = distribution(name)
        yield found
        for text in found.requires or ():
            one = Requirement(text)
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            further = [(canonicalize_name(one.name), e) for e in ("", *sorted(one.extras))]
            waiting += [each for each in further if each not in seen]
            seen.update(further)


def license_of(package: Distribution) -> str:
    """Return a licence as its package states it: SPDX, classifiers, words, or a file."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = metadata.get_all("Classifier") or ()
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: OSI Approved ::")]
    files = (p.read_text() for p in package.files or () if p.name.upper().startswith("LICEN"))
    stated = next(filter(None, chain(metadata.get_all("License") or (), files)), "")
    first_line = stated.strip().partition("\n")[0]
    return ", ".join(named) or first_line[:_MOST] or "not stated"


def page() -> str:
    """Return the text of the page.

    Raises:
        PackageNotFoundError: if something that is needed isn't installed.
    """
    lines, told = [HEAD], {"fourfold"}
    extras = distribution("fourfold").metadata.get_all("Provides-Extra") or ()
    for extra in ("", *extras):
        packages = {canonicalize_name(p.name): p for p in required(["fourfold"], extra)}
        title = f"Extra `{extra}`, further ones" if extra else "Library"
        lines += [f"## {title}\n", "| package | version | licence |", "| --- | --- | --- |"]
        for name in sorted(packages.keys() - told):
            one = packages[name]
            version = one.version.partition("+")[0]
            lines.append(f"| {one.name} | {version} | {license_of(one)} |")
        lines.append("")
        told |= packages.keys()
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        PAGE.write_text(page(), encoding="utf-8")
    except PackageNotFoundError as error:
        raise SystemExit(f"error: {error}; install it with all extras first") from error
