"""The only place that seeds come from."""

from hashlib import blake2b

__all__ = ["seed"]


def seed(run: int, site: str, round: int, purpose: str) -> int:
    """Return the seed of one random stream, between 0 and 2**63 - 1.

    Args:
        run: the experiment's seed.
        site: the site that draws, or "" for the server.
        round: from 1; 0 for what happens before the first.
        purpose: what is drawn ("shuffle", "augment", "init", ...).

    The arm is no argument: arms of one seed share their initial weights, orders and resamples, so
    that they are compared on equal terms and `fedprox(mu=0)` is `fedavg` bit for bit.

    >>> seed(0, "nord", 1, "shuffle") == seed(0, "nord", 1, "shuffle")
    True
    >>> seed(0, "nord", 1, "shuffle") == seed(0, "nord", 2, "shuffle")
    False
    """
    text = "\x1f".join((str(run), site, str(round), purpose)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1
