"""Seeds differ where anything differs, and never change between machines."""

from fedrad.core.seeds import seed


def test_every_argument_counts() -> None:
    base = (0, "nord", 1, "shuffle")
    others = [(1, "nord", 1, "shuffle"), (0, "sued", 1, "shuffle"), (0, "nord", 2, "shuffle"),
              (0, "nord", 1, "augment")]  # fmt: skip
    assert len({seed(*arguments) for arguments in (base, *others)}) == 5


def test_a_site_cannot_be_mistaken_for_another_by_where_its_name_ends() -> None:
    """ "a" + "11" and "a1" + "1" are the same text when simply joined."""
    assert seed(0, "a", 11, "x") != seed(0, "a1", 1, "x")


def test_seeds_are_the_same_on_every_machine() -> None:
    """Stored number: blake2b of b"0\\x1fnord\\x1f1\\x1fshuffle", first 8 bytes, halved."""
    from hashlib import blake2b

    digest = blake2b(b"0\x1fnord\x1f1\x1fshuffle", digest_size=8).digest()
    assert seed(0, "nord", 1, "shuffle") == int.from_bytes(digest, "big") // 2
    assert 0 <= seed(0, "nord", 1, "shuffle") < 2**63
