"""Laws of a shared surface's card: it says how the corners came about, and no more."""

import pytest

from fourfold.report.card import _CORNERS, _corners


@pytest.mark.parametrize("origin", ["seeds", "run", "fork", "files"])
def test_aligned_corners_came_about_as_those_that_were_aligned(origin):
    surface = {"corners": "aligned", "kind": "aligned", "to": "others", "origin_kind": origin}
    said = _corners(surface | {"fit": None, "shape": "square", "count": 4})
    assert said.startswith(_CORNERS[origin])
    assert "independently" not in said or origin == "seeds"
    assert "Their hidden units were moved" in said
