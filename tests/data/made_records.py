"""Records made in memory, for tests of what is done with rows."""

import numpy as np

from fedrad.data.base import Records, hashes


def records(n: int = 60, seed: int = 0) -> Records:
    """n rows of about n / 2 patients at two sites, a third of them positive."""
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, n // 2, n)
    return Records(
        x=np.arange(n, dtype=np.float32)[:, None],
        y=(patient % 3 == 0).astype(np.float32)[:, None],
        patient=hashes(map(str, patient)),
        site=np.where(patient % 2 == 0, "nord", "west"),
        split=None,
        pixels=None,
        attributes={"age": patient.astype(np.float32)},
    )
