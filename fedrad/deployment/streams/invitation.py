"""What a site is told, in one ordinary message, to open its stream: where, and with which token."""

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import inf
from typing import Any

from fedrad.errors import SiteFailedError

__all__ = ["Admission", "Invitation", "address_of", "new_token"]

_KEY = "stream-"
_TYPES: dict[type, tuple[type, ...]] = {str: (str,), int: (int,), float: (int, float)}
_LONGEST, _LARGEST = 100_000, 1 << 31
"""Of a text in an invitation, in characters; of a packet, in bytes: protobuf's own bound."""


@dataclass(frozen=True)
class Invitation:
    """All that a site needs to open its stream.

    Args:
        address: host:port of the coordinator's stream server.
        token: opens one conversation of this site in this round of this run.
        run: which run.
        round: which round of it.
        ca: the certificate, PEM, that the server's must be signed by; no other is trusted.
        largest: most bytes of one packet.
        deadline: seconds after which the round is over.
    """

    address: str
    token: str
    run: str
    round: int
    ca: str
    largest: int
    deadline: float

    def config(self) -> dict[str, str | int | float]:
        """Return the settings under which an invitation travels in a message.

        >>> invitation = Invitation("host:9094", "t", "run", 1, "", 1024, 60.0)
        >>> Invitation.of(invitation.config()) == invitation
        True
        """
        return {_KEY + key: value for key, value in asdict(self).items()}

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Invitation | None":
        """Return the invitation in a message's settings, or None where there is none.

        Raises:
            SiteFailedError: a part of it is missing, or of another type or size than it can be.
        """
        if _KEY + "token" not in config:
            return None
        missing = [key for key in Invitation.__annotations__ if _KEY + key not in config]
        if missing:
            raise SiteFailedError(f"the invitation to a stream lacks {', '.join(missing)}")
        found = {key: config[_KEY + key] for key in Invitation.__annotations__}
        for key, kind in Invitation.__annotations__.items():
            if isinstance(found[key], bool) or not isinstance(found[key], _TYPES[kind]):
                raise SiteFailedError(
                    f"the invitation to a stream has no {kind.__name__} for {key}"
                )
            if isinstance(found[key], str) and len(found[key]) > _LONGEST:
                raise SiteFailedError(f"the invitation to a stream has a {key} that is too long")
        if not (0 < found["largest"] <= _LARGEST and 0 < found["deadline"] < inf):
            raise SiteFailedError("the invitation to a stream has no largest or no deadline of use")
        return Invitation(**found)

    def __repr__(self) -> str:
        """Leave the token out: what is printed ends up in logs."""
        return f"Invitation(address={self.address!r}, run={self.run!r}, round={self.round})"


def address_of(host: str, port: int) -> str:
    """Return a machine and port as gRPC writes them.

    >>> address_of("fl.example.org", 9095), address_of("::1", 9095)
    ('fl.example.org:9095', '[::1]:9095')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Admission:
    """Whether who knocks may come in: once with the token, then again with the same secret.

    The token alone opens nothing twice: the first to bring it also brings a secret of its own
    drawing, and only who knows both comes in again. What is kept here opens nothing.

    >>> admission = Admission(token := new_token())
    >>> admission.refusal(token, b"s" * 32), admission.refusal(token, b"s" * 32)
    (None, None)
    >>> admission.refusal(token, b"x" * 32)
    'its token was used before, by another'
    """

    def __init__(self, token: str) -> None:
        self._token = _digest(token.encode())
        self._secret: bytes | None = None

    def refusal(self, token: str, secret: bytes) -> str | None:
        """Return why who brings these is refused, or None; not for two threads at once."""
        if not hmac.compare_digest(_digest(token.encode()), self._token):
            return "its token is not the one for this site, run and round"
        if len(secret) < 16:
            return "its secret is too short"
        if self._secret is None:
            self._secret = _digest(secret)
        if not hmac.compare_digest(_digest(secret), self._secret):
            return "its token was used before, by another"
        return None


def new_token() -> str:
    """Return 256 random bits, as text."""
    return secrets.token_urlsafe(32)


def _digest(secret: bytes) -> bytes:
    return sha256(secret).digest()
