"""Laws of the numbers that every table is made of: logits rounded to float16."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from fourfold.evaluation.logits import to_half

LOGITS = 3 * torch.randn(400, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(400) % 10


@pytest.mark.parametrize("added", [0.0, 500.0, -3000.0, 1e5])
def test_what_is_added_to_all_logits_of_an_image_changes_nothing(added):
    """Softmax doesn't see it, but float16 has steps of 0.25 at 500 and ends at 65,504."""
    found = to_half(LOGITS + added).float()
    assert (found.argmax(dim=1) == LOGITS.argmax(dim=1)).float().mean() > 0.99
    expected = cross_entropy(LOGITS, LABELS, reduction="none")
    assert (cross_entropy(found, LABELS, reduction="none") - expected).abs().max() < 0.02


def test_logits_near_zero_are_rounded_and_no_more():
    assert torch.equal(to_half(LOGITS), LOGITS.half())


def test_what_is_no_number_stays_so_and_what_is_too_large_is_cut_off():
    broken = LOGITS[:3].clone()
    broken[0, 2], broken[1, 3] = torch.nan, -1e6
    found = to_half(broken)
    assert found[0].isnan().any()
    assert found[1:].isfinite().all()
