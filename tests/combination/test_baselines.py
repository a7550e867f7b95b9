"""Laws of what belongs to a set of corners, whatever surfaces lie on it."""

import pytest

from fourfold.combination.baselines import check_surfaces, corner_ensembles, reference_surfaces
from fourfold.errors import InputError
from fourfold.surfaces.shapes import SQUARE


def described(shape=SQUARE, **surfaces):
    """Return surfaces of one shape from name=(corners, kind, fit)."""
    keys = ("corners", "kind", "fit")
    return {
        name: dict(zip(keys, values, strict=True)) | shape.described()
        for name, values in surfaces.items()
    }


PLAIN = described(plain=("four", "seeds", None), other=("four", "seeds", None))
ALONG = described(along=("run", "run", None))
SURFACES = {"plain": PLAIN["plain"]} | ALONG
FITTED = described(one_fit=("four", "seeds", "x"), another=("four", "seeds", "y"))


@pytest.mark.parametrize(
    ("surfaces", "expected"),
    [
        (SURFACES | FITTED, {"four": "plain", "run": "along"}),
        (ALONG | FITTED, {"run": "along", "four": "one_fit"}),
        (FITTED | PLAIN, {"four": "plain"}),
        (PLAIN | FITTED, {"four": "plain"}),
        ({"blended": PLAIN["plain"] | {"batchnorm": "interpolated"}} | PLAIN, {"four": "plain"}),
        ({"stated": PLAIN["plain"] | {"batchnorm": None}} | PLAIN, {"four": "stated"}),
    ],
)
def test_baselines_are_taken_from_the_first_surface_without_a_fit_else_from_the_first(
    surfaces, expected
):
    assert list(reference_surfaces(surfaces).items()) == list(expected.items())


def test_the_first_set_of_independent_networks_alone_has_the_plain_name():
    more = ALONG | SURFACES | described(d=("others", "seeds", None))
    assert corner_ensembles(more) == {
        "run": "run-corners", "four": "corners", "others": "others-corners"
    }  # fmt: skip
    assert corner_ensembles(ALONG) == {"run": "run-corners"}


@pytest.mark.parametrize("found", [["plain"], ["plain", "along", "d"], ["plain"] * 2, []])
def test_files_of_other_surfaces_are_refused(found):
    check_surfaces(["along", "plain"], SURFACES, "the logits")
    with pytest.raises(InputError) as caught:
        check_surfaces(found, SURFACES, "the logits")
    assert f"the logits are of the surfaces {found}" in str(caught.value)
    assert str(list(SURFACES)) in str(caught.value)
