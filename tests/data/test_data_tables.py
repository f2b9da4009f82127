import inspect

import numpy as np
import pytest

from fedrad.data import ADAPTERS, PARTITIONERS, TRANSFORMS
from fedrad.data.fingerprint import fingerprints, image_fingerprint
from fedrad.registry import options_of

TABLES = {"ADAPTERS": ADAPTERS, "PARTITIONERS": PARTITIONERS, "TRANSFORMS": TRANSFORMS}
ENTRIES = [(table, name) for table, builders in TABLES.items() for name in builders]


@pytest.mark.parametrize(("table", "name"), ENTRIES)
def test_a_builder_is_named_as_in_yaml_and_says_what_its_options_are(table, name) -> None:
    """The signature is the schema, and the docstring its manual."""
    builder = TABLES[table][name]
    assert builder.__name__ == name
    given = {"ADAPTERS": ["task", "root"], "PARTITIONERS": ["records", "task"], "TRANSFORMS": []}
    positional = [
        p.name
        for p in inspect.signature(builder).parameters.values()
        if p.kind is not p.KEYWORD_ONLY
    ]
    assert positional == given[table]
    if table != "TRANSFORMS":
        assert all(f"        {option}:" in builder.__doc__ for option in options_of(builder))


def test_a_fingerprint_is_of_pixels_shape_and_type() -> None:
    """Equal bytes of another shape are another image; memory layout does not matter."""
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    others = [image.reshape(4, 3), image.astype(np.uint16), image[::-1]]
    assert all(image_fingerprint(image) != image_fingerprint(other) for other in others)
    assert image_fingerprint(np.asfortranarray(image)) == image_fingerprint(image)
    assert fingerprints(np.stack([image, image]))[1] == image_fingerprint(image)
