"""Named random streams, all derived from one seed.

Two names give independent streams, so adding a consumer of randomness changes nothing for the others.
"""

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import Generator


def derive(seed: int, *names: str | int) -> int:
    """A seed for the stream `names` of `seed`: 63 bits, the same on every platform and in every release.

    The first 8 bytes of SHA-256 over the JSON list `[seed, *names]`, without the lowest bit; "1" and 1 differ.
    """
    text = json.dumps([int(seed), *names], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> "Generator":
    """A NumPy generator (PCG64) for the stream `names` of `seed`."""
    import numpy  # here, so that commands that draw nothing start without it

    return numpy.random.Generator(numpy.random.PCG64(derive(seed, *names)))
