"""Random numbers that nobody can foretell without their key: AES-256 in counter mode.

The same key gives the same numbers, so one generator serves a simulation, whose key follows from
the run's seed, and a hospital, whose key is drawn from the operating system and never kept
(docs/decisions/0008-noise.md).
"""

from hashlib import blake2b

import numpy as np

__all__ = ["SecureGenerator"]

_BLOCK = 2**20  # numbers made at once


class SecureGenerator:
    """One stream of random numbers.

    Args:
        key: 32 bytes; whoever knows them knows the stream.
        purpose: streams of one key for different purposes have nothing in common.

    >>> first, again = (SecureGenerator(bytes(32), "noise").normal(2) for _ in range(2))
    >>> first == again
    array([ True,  True])
    >>> first[:1] == SecureGenerator(bytes(32), "samples").normal(1)
    array([False])
    """

    def __init__(self, key: bytes, purpose: str) -> None:
        # Imported late: only what draws noise pays for it.
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        own = blake2b(purpose.encode(), key=key, digest_size=32).digest()
        # A counter from 0 is safe because no key is used for a second stream.
        self._cipher = Cipher(algorithms.AES(own), modes.CTR(bytes(16))).encryptor()

    def uniform(self, count: int) -> np.ndarray:
        """Return float64 [count] between 0 and 1, never 0 or 1; multiples of 2**-53."""
        words = np.frombuffer(self._cipher.update(bytes(8 * count)), np.uint64)
        numbers: np.ndarray = ((words >> 12).astype(np.float64) + 0.5) * 2.0**-52
        return numbers

    def chosen(self, count: int, rate: float) -> np.ndarray:
        """Return those of `count` places, sorted, that are drawn with a rate each (Poisson)."""
        return np.flatnonzero(self.uniform(count) < rate)

    def normal(self, count: int) -> np.ndarray:
        """Return float64 [count] of the standard normal distribution (Box and Muller, 1958)."""
        numbers = np.empty(count + count % 2)
        for at in range(0, len(numbers), _BLOCK):
            block = numbers[at : at + _BLOCK]
            radius, turn = np.split(self.uniform(len(block)), 2)
            radius = np.sqrt(-2 * np.log(radius))
            block[0::2] = radius * np.cos(2 * np.pi * turn)
            block[1::2] = radius * np.sin(2 * np.pi * turn)
        return numbers[:count]
