"""What an arm's numbers rest on: two claims in one, of its training and of its evaluation.

Weights stay what they are whatever they are tested with. So metrics, replicates and sites that only
test may change in a folder that is finished: the arm is evaluated again, and not trained again.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COMPUTED_ON", "DATA", "TRAINED_ON", "Provenance", "changed_parts", "training_change"]

DATA = "data"
"""The ground that is a digest of all sites' data."""
TRAINED_ON = "trained on"
"""The ground that is a digest of the data of the sites that train."""
COMPUTED_ON = "computed on"
"""The ground that is the kind of device and version of torch."""

_EVALUATION = frozenset({"metrics", "replicates"})
_HELD_OUT = frozenset({"held_out_sites"})
_SOURCES = frozenset({"data", "partition", "shared_patients", "sites", "split"})
_ITEM = re.compile(r"^\s*- (.+)$", re.MULTILINE)
_KEY = re.compile(r"([A-Za-z_]+):")


@dataclass(frozen=True)
class Provenance:
    r"""What an arm's numbers rest on: change any of it, and they are other numbers.

    Args:
        text: the arm's experiment, canonical.
        grounds: what else the bits depend on: digest of the data, kind of device, torch.

    >>> print(Provenance("rounds: 3\n", {"data": "3fe2"}).mark(), end="")
    rounds: 3
    # data: 3fe2
    """

    text: str
    grounds: Mapping[str, str]

    def mark(self) -> str:
        """Return the content of a file that says so."""
        return self.text + "".join(f"# {key}: {value}\n" for key, value in self.grounds.items())

    @staticmethod
    def read(mark: str) -> "Provenance":
        r"""Return the claim of a file.

        >>> Provenance.read(Provenance("rounds: 3\n", {"data": "3fe2"}).mark()).grounds
        {'data': '3fe2'}
        """
        lines = mark.splitlines(keepends=True)
        told = [line for line in lines if line.startswith("# ")]
        pairs = (line.removeprefix("# ").rstrip("\n").partition(": ") for line in told)
        text = "".join(line for line in lines if not line.startswith("# "))
        return Provenance(text, {key: value for key, _, value in pairs})

    def holds_for(self, other: "Provenance") -> bool:
        """Return whether nothing differs that both know."""
        return self.text == other.text and changed_parts(self.grounds, other.grounds) is None


def changed_parts(one: Mapping[str, str], other: Mapping[str, str]) -> str | None:
    """Return the first ground that both claims know and that is not the same, if any.

    >>> changed_parts({"data": "3fe2"}, {}), changed_parts({"data": "3fe2"}, {"data": "77ab"})
    (None, 'data')
    """
    return next((key for key in one if other.get(key, one[key]) != one[key]), None)


def training_change(before: Provenance, now: Provenance) -> str | None:
    r"""Return what would make other weights of an arm, None if it would be the same training.

    Where both claims know the data of the sites that train, it does not matter where data come from
    and which sites are held out beside them.

    >>> training_change(Provenance("rounds: 3\n", {}), Provenance("rounds: 4\n", {}))
    "'rounds: 3' became 'rounds: 4'"
    >>> auroc, brier = "metrics:\n- auroc\n", "metrics:\n- brier\n"
    >>> training_change(Provenance(auroc, {}), Provenance(brier, {}))
    """
    sure = TRAINED_ON in before.grounds and TRAINED_ON in now.grounds
    free = _EVALUATION | (_HELD_OUT | _SOURCES if sure else frozenset())
    old, new = _sections(before.text), _sections(now.text)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key) and key not in free:
            return _difference(old.get(key, ""), new.get(key, ""))
    # Of data that only test, training knows nothing.
    known = {k: v for k, v in before.grounds.items() if not (sure and k == DATA)}
    if other := changed_parts(known, now.grounds):
        first, second = known[other], now.grounds[other]
        if other != TRAINED_ON:
            return f"'{other}: {first}' became '{other}: {second}'"
        # Where the numbers of sites differ, that says more than the digests of their data.
        if (few := first.partition(", ")[0]) != (many := second.partition(", ")[0]):
            first, second = few, many
        return f"'{other}: {first}' became '{other}: {second}'{_held_out(old, new)}"
    return None


def _sections(text: str) -> dict[str, str]:
    """Return key -> its lines; in a canonical text keys alone begin a line with a letter."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines(keepends=True):
        if match := _KEY.match(line):
            key = match[1]
        found[key] = found.get(key, "") + line
    return found


def _held_out(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    r"""Return which sites were held out and which are, in names; "" where they are the same.

    >>> _held_out({}, {"held_out_sites": "held_out_sites:\n- nord\n- ost\n"})
    ' (held_out_sites: none became nord, ost)'
    """
    one, other = (
        ", ".join(_ITEM.findall(of.get("held_out_sites", ""))) or "none" for of in (before, now)
    )
    return "" if one == other else f" (held_out_sites: {one} became {other})"


def _difference(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    width = max(len(old), len(new))
    rows = zip(old + ["nothing"] * (width - len(old)), new + ["nothing"] * width, strict=False)
    first, second = next((a.strip(), b.strip()) for a, b in rows if a != b)
    return f"'{first}' became '{second}'"
