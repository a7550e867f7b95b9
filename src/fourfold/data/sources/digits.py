"""The handwritten digits that are installed with scikit-learn."""

from pathlib import Path

import numpy as np
import torch

from fourfold.data.sources._source import Source


def read_digits(folder: Path, threads: int) -> Source:
    """Read the 1,797 handwritten digits (8x8, grey) of scikit-learn; no file, no thread is needed.

    Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # published in steps 0..16
    return Source(
        classes=[str(name) for name in bunch.target_names],
        images=torch.from_numpy(images)[:, None],
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
    )
