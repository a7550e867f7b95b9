"""Laws of what belongs to a set of corners, whatever surfaces lie on it."""

import pytest

from fourfold.combination.baselines import check_surfaces, corner_ensembles, reference_surfaces
from fourfold.errors import InputError


def described(**surfaces):
    """Return surfaces from name=(corners, kind, fit)."""
    keys = ("corners", "kind", "fit")
    return {name: dict(zip(keys, values, strict=True)) for name, values in surfaces.items()}


THREE = described(a=("four", "seeds", None), b=("four", "seeds", "x"), c=("along", "run", None))


def test_baselines_are_taken_from_the_first_surface_without_a_fit_else_from_the_first():
    assert reference_surfaces(THREE) == {"four": "a", "along": "c"}
    fits = described(y=("four", "seeds", "x"), z=("four", "seeds", "y"))
    assert reference_surfaces(fits) == {"four": "y"}
    plain = described(p=("four", "seeds", None), q=("four", "seeds", None))
    assert reference_surfaces(fits | plain) == {"four": "p"}
    assert reference_surfaces(plain | fits) == {"four": "p"}


def test_corner_sets_are_in_the_order_of_their_first_use():
    assert list(reference_surfaces(dict(reversed(THREE.items())))) == ["along", "four"]


def test_the_first_set_of_independent_networks_alone_has_the_plain_name():
    assert corner_ensembles(THREE) == {"four": "corners", "along": "along-corners"}
    more = THREE | described(d=("others", "seeds", None))
    assert corner_ensembles(more)["others"] == "others-corners"
    assert corner_ensembles(described(c=("along", "run", None))) == {"along": "along-corners"}


@pytest.mark.parametrize("found", [["a", "b"], ["a", "b", "c", "d"], ["a", "a", "b", "c"], []])
def test_files_of_other_surfaces_are_refused(found):
    check_surfaces(["c", "a", "b"], THREE, "the logits")
    with pytest.raises(InputError) as caught:
        check_surfaces(found, THREE, "the logits")
    assert str(found) in str(caught.value)
    assert str(list(THREE)) in str(caught.value)
