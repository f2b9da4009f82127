"""Sites that are not asked anything of an arm: they said at the roll call that they will not run.

Nothing is sent to them, so they are neither late nor silent, and no byte is counted for them.
"""

from collections.abc import Mapping

from fedrad.core.names import listed
from fedrad.rounds.nodes import Node

__all__ = [
    "REFUSALS_KEY",
    "is_refusal",
    "not_asked",
    "refusal_hint",
    "refusal_sentences",
    "unanswered_reason",
    "will_train",
]

REFUSALS_KEY = "refuses"
"""In a site's summary: arm -> why the site would refuse it, as JSON."""

_NOT_ASKED = "was not asked"


def unanswered_reason(grid: object, nodes: Mapping[str, Node], arm: str) -> dict[str, str]:
    """Return site -> why it is not asked anything of an arm; {} where nobody may refuse.

    Args:
        grid: one over a network knows who refused; one of a simulation owns all data.
        nodes: of the sites, by name.
        arm: its name.
    """
    known: Mapping[int, Mapping[str, str]] = getattr(grid, "unasked", {})
    reasons = {site: known.get(node.id, {}) for site, node in nodes.items()}
    # "" stands for every arm.
    found = {site: of.get("") or of.get(arm) for site, of in reasons.items()}
    return {site: why for site, why in found.items() if why}


def will_train(grid: object, nodes: Mapping[str, Node], arm: str) -> int:
    """Return how many of some sites train in an arm: they are asked, and have images to train on.

    The arguments are those of `unanswered_reason`.
    """
    left = nodes.keys() - unanswered_reason(grid, nodes, arm).keys()
    return sum(nodes[site].can_train for site in left)


def not_asked(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return what the record of a round says of such sites.

    >>> not_asked({"west": "PolicyError: west: epsilon: limit 3, asked 9"})
    {'west': 'was not asked: PolicyError: west: epsilon: limit 3, asked 9'}
    """
    return {site: f"{_NOT_ASKED}: {why}" for site, why in reasons.items()}


def is_refusal(reason: str) -> bool:
    """Return whether a record's reason is that of a site that was not asked.

    >>> is_refusal("was not asked: epsilon 9"), is_refusal("no answer within 9 s")
    (True, False)
    """
    return reason.startswith(f"{_NOT_ASKED}: ")


def refusal_hint(willing: int) -> str:
    """Return who can mend that too few sites are willing.

    >>> refusal_hint(2)
    "quorum: 2 in the experiment lets the others go on, or that hospital's policy allows the arm"
    >>> refusal_hint(0)
    "that hospital's policy may allow the arm"
    """
    if not willing:
        return "that hospital's policy may allow the arm"
    return (
        f"quorum: {willing} in the experiment lets the others go on, or that hospital's policy "
        "allows the arm"
    )


def refusal_sentences(refuses: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return who refuses which arm, and why, once for all sites of which the same is said.

    Args:
        refuses: site -> arm -> why.

    >>> why = "PolicyError: west: allow.models: limit cnn, asked mlp"
    >>> refusal_sentences({"west": {"fedavg": why}})
    ['west refuses fedavg: allow.models: limit cnn, asked mlp']
    """
    found: dict[tuple[str, str], list[str]] = {}
    for site, arms in refuses.items():
        for arm, why in arms.items():
            found.setdefault((arm, why.removeprefix(f"PolicyError: {site}: ")), []).append(site)
    return [
        f"{listed(sites)} refuse{'s' if len(sites) == 1 else ''} {arm}: {why}"
        for (arm, why), sites in found.items()
    ]
