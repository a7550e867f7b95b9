"""Independent random streams from one seed."""

import hashlib

import torch


def derive_seed(seed: int, stream: str) -> int:
    """Return a 63-bit seed for the named stream; equal on every machine and in every process.

    SHA-256 rather than Python's `hash`, which is salted per process for strings.
    """
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device` for the named stream of `seed`."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, stream))
