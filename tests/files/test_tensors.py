"""Laws of files of tensors: what a kill leaves looks unfinished, and others may read them."""

import os
import stat
from pathlib import Path

import pytest
import torch

from fourfold.files import tensors
from fourfold.files.atomic import UNFINISHED
from fourfold.files.tensors import load_tensors, save_tensors

TENSORS = {"a": torch.arange(3.0)}


def test_all_that_safetensors_writes_lies_under_an_unfinished_name(tmp_path, monkeypatch):
    class KilledError(BaseException):
        pass

    def killed(_tensors, path, _metadata):
        inside = Path(path).relative_to(tmp_path)
        assert inside.parts[0].startswith(UNFINISHED)
        assert len(inside.parts) == 2  # a file beside it is in that folder too
        raise KilledError

    monkeypatch.setattr(tensors, "save_file", killed)
    with pytest.raises(KilledError):
        tensors.save_tensors(TENSORS, tmp_path / "a.safetensors", {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_file_is_alone_with_the_permissions_that_the_mask_gives(mask, mode, tmp_path):
    path = tmp_path / "a.safetensors"
    before = os.umask(mask)
    try:
        tensors.save_tensors(TENSORS, path, {"x": 1})
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == mode
    loaded, header = tensors.load_tensors(path)
    assert header == {"x": 1}
    assert torch.equal(loaded["a"], TENSORS["a"])


def test_tensors_that_share_memory_are_saved_each_by_itself(tmp_path):
    """As buffers of two layers that look at one mask do."""
    block = torch.arange(16.0)
    shared = {"a": block.view(4, 4), "b": block.view(2, 8), "part": block[:4], "own": block + 1}
    save_tensors(shared, tmp_path / "t.safetensors", {})
    read, _ = load_tensors(tmp_path / "t.safetensors")
    assert read.keys() == shared.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in shared.items())
