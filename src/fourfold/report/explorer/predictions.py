"""Predictions small enough for a page: what an ensemble of any networks needs, and no more.

The accuracy, nll and ece of an average of predictions need the mean probability of the label and
the largest mean probability of another class. A class that no network prefers to an image's label
can't be preferred by an average of these networks either. So an image keeps of each network the
probability of its label and those of its *rivals*, classes that at least one network holds no less
likely than the label: nothing is lost, and most images have none.

Measured on 10,000 test images of CIFAR-10 at 80 % accuracy, in bits per prediction (one network,
one image) after deflate: all ten classes 44, rivals alone 25, at steps of 1/4096; at 1/1024 and
1/256 rivals take 21 and 16. Over 250 pairs and fours of networks drawn at random these steps change
the joint accuracy by at most 0.02, 0.05 and 0.10 points, so it is 1/1024; with steps that become
finer towards 0 and 1 it was no better. Of few images a single one counts, and networks that are
sure and disagree come to ties: then it is 1/32768, see `predictions_of`. Of a label the nll needs
the logarithm: what is below 16 steps is kept in sixteenths of a nat, which are as fine there.

One stream over all networks of a surface would take 10 to 25 % less, but all of it would have to be
read for the first click, and choosing networks to fit a budget would pack it anew. Nine experiments
of three surfaces with 121 points are 33 million predictions, 86 MB of it: there the page has room
for every image, but not for every point, and `pack` takes a coarser lattice.
"""

import zlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ECE_BINS = 15  # as in fourfold.evaluation.metrics
STEPS = (1024, 2**15)
_TAIL = 16  # codes per nat of a label's probability below so many steps
_LARGEST = 2**16 - 1


@dataclass(frozen=True)
class Packed:
    """Networks of one surface, on one split.

    Attributes:
        images: how many.
        steps: probabilities are multiples of 1 / `steps`.
        below, above: (images,) how many rivals each label has among the classes before and after
            it; those before it win a tie, as in `argmax`.
        streams: network -> its codes, deflated, see `encode`.
    """

    images: int
    steps: int
    below: Array
    above: Array
    streams: dict[int, bytes]

    @cached_property
    def members(self) -> dict[int, tuple[Array, Array]]:
        """Network -> log-probabilities of the labels; probabilities of them and of the rivals.

        The latter in steps.
        """
        return {network: self._decode(stream) for network, stream in self.streams.items()}

    def _decode(self, stream: bytes) -> tuple[Array, Array]:
        codes = unplane(zlib.decompress(stream, wbits=-zlib.MAX_WBITS)).astype(np.int64)
        label = codes[: self.images]
        tail = np.maximum(label - self.steps - 1, 0) / -_TAIL + np.log(_TAIL / self.steps)
        log_p = np.where(label > self.steps, tail, np.log(np.maximum(label, 1) / self.steps))
        steps = np.where(label > self.steps, np.exp(tail) * self.steps, label)
        return log_p, np.concatenate([steps, codes[self.images :]])

    def evaluate(self, networks: Sequence[int]) -> dict[str, float]:
        """Return accuracy, nll and ece of the mean of some networks' probabilities.

        The page computes the same by the same steps.
        """
        count = len(networks)
        log_p = np.stack([self.members[network][0] for network in networks])
        largest = log_p.max(axis=0)
        log_mean = largest + np.log(np.exp(log_p - largest).sum(axis=0) / count)
        steps = np.sum([self.members[network][1] for network in networks], axis=0)
        label, rivals = steps[: self.images], steps[self.images :]
        counts = np.stack([self.below, self.above], axis=1).ravel()
        image = np.repeat(np.arange(self.images).repeat(2), counts)
        wins_ties = np.repeat(np.tile([True, False], self.images), counts)
        beaten = (rivals > label[image]) | (wins_ties & (rivals == label[image]))
        correct = np.ones(self.images, bool)
        correct[image[beaten]] = False
        best = np.zeros(self.images)
        np.maximum.at(best, image, rivals / (count * self.steps))
        confidence = np.maximum(best, np.exp(log_mean))
        bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
        gaps = np.bincount(bins, weights=confidence - correct, minlength=ECE_BINS)
        return {
            "accuracy": float(correct.mean()),
            "nll": float(-log_mean.mean()),
            "ece": float(np.abs(gaps).sum() / self.images),
        }


def pack(
    logits: Callable[[int], Array],
    labels: Array,
    choices: Sequence[Sequence[int]],
    steps: int,
    limit: int,
) -> Packed | None:
    """Pack the largest choice of networks that fits, or None if none does.

    Args:
        logits: network -> (images, classes) of it.
        labels: (images,) class indices.
        choices: of networks, the largest first.
        steps: of which probabilities are multiples, one of `STEPS`.
        limit: bytes that it may take.
    """
    packed = cache(lambda k: _pack(logits, labels, choices[k], steps, limit))
    first = bisect_left(range(len(choices)), True, key=lambda k: packed(k) is not None)
    return packed(first) if first < len(choices) else None


def _pack(
    logits: Callable[[int], Array], labels: Array, networks: Sequence[int], steps: int, limit: int
) -> Packed | None:
    images = len(labels)
    rows = np.arange(images)
    is_rival = np.zeros((), bool)
    for network in networks:
        of = logits(network)
        is_rival = is_rival | (of >= of[rows, labels][:, None])
    is_rival[rows, labels] = False
    image, rival = np.nonzero(is_rival)
    below = np.bincount(image[rival < labels[image]], minlength=images)
    above = np.bincount(image[rival > labels[image]], minlength=images)
    streams, size = {}, len(deflated(below)) + len(deflated(above))
    for network in networks:
        log_p = log_softmax(logits(network))
        codes = encode(log_p[rows, labels], log_p[image, rival], steps)
        streams[network] = deflated(codes)
        size += len(streams[network])
        if size > limit:
            return None
    return Packed(images, steps, below, above, streams)


def encode(label: Array, rivals: Array, steps: int) -> Array:
    """Return the codes of one network: of each image's label, then of all its rivals in turn.

    Args:
        label: (images,) log-probabilities.
        rivals: (rivals,) log-probabilities, by image and class.
        steps: a probability p has the code p * steps, rounded. A label below 16 steps has that of
            how many sixteenths of a nat it is below, from steps + 1 on.
    """
    codes = np.rint(np.exp(label) * steps)
    tail = steps + 1 + np.rint((np.log(_TAIL / steps) - label) * _TAIL)
    codes = np.where(codes < _TAIL, np.clip(tail, steps + 1, _LARGEST), codes)
    return np.concatenate([codes, np.rint(np.exp(rivals) * steps)]).astype(np.uint16)


def log_softmax(logits: Array) -> Array:
    """Return log-probabilities in double precision."""
    wide = logits.astype(np.float64)
    shifted: Array = wide - wide.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def deflated(codes: Array) -> bytes:
    """Return 16-bit codes as deflate packs them best: all high bytes, then all low ones."""
    planes = codes.astype("<u2").view(np.uint8).reshape(-1, 2).T[::-1]
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(planes.tobytes()) + packer.flush()


def unplane(planes: bytes) -> Array:
    """Return the codes of which `deflated` has packed the bytes."""
    high, low = np.frombuffer(planes, np.uint8).reshape(2, -1).astype(np.uint16)
    codes: Array = high << 8 | low
    return codes
