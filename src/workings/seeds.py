"""One seed → named random generators. No two purposes share a stream, so a new one leaves the numbers of all others as they were.

numpy and torch are imported where a generator of theirs is made: text and arithmetic need neither.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator


def derive(name: str, seed: int) -> int:
    """A seed for one purpose ("init", "order", "sampling"): 63 bits, the same on every machine and in every version."""
    return int.from_bytes(hashlib.sha256(f"{name}\0{seed}".encode()).digest()[:8], "big") >> 1


def python(name: str, seed: int) -> random.Random:
    """A generator of the standard library."""
    return random.Random(derive(name, seed))


def numpy(name: str, seed: int) -> np.random.Generator:
    """A PCG64 generator."""
    import numpy as np

    return np.random.default_rng(derive(name, seed))


def torch(name: str, seed: int, device: str = "cpu") -> Generator:
    """A generator on `device`; the numbers drawn differ between kinds of device."""
    from torch import Generator

    return Generator(device=device).manual_seed(derive(name, seed))
