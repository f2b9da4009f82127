"""Who may use the SuperLink's control port: whoever can read the coordinator's kit.

Flower's own check lets in everybody who reaches the port, and on a shared machine that is everybody
who has an account there: to hand in runs, and to register a site's key or take one away.
"""

import hmac
from collections.abc import Sequence

from flwr.common.constant import ACCESS_TOKEN_KEY, NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.supercore.auth.typing import AccountInfo
from flwr.superlink.auth_plugin.noop_auth_plugin import NoOpControlAuthnPlugin

__all__ = ["KitOnly", "control_token"]

_PURPOSE = b"fedrad control port"


def control_token(secret: bytes) -> str:
    """Return what opens the control port, made of the secret in the coordinator's state folder.

    >>> control_token(b"one") == control_token(b"other")
    False
    """
    return hmac.new(secret, _PURPOSE, "sha256").hexdigest()


class KitOnly(NoOpControlAuthnPlugin):
    """Flower's check of who calls its control API, which takes one token only.

    Args:
        secret: of the kit.
    """

    def __init__(self, secret: bytes) -> None:
        super().__init__()
        self._token = control_token(secret).encode()

    def validate_tokens_in_metadata(
        self, metadata: Sequence[tuple[str, str | bytes]]
    ) -> tuple[bool, AccountInfo | None]:
        """Return whether a call brings the token, and the only account that there is."""
        given = dict(metadata).get(ACCESS_TOKEN_KEY, b"")
        brought = given.encode() if isinstance(given, str) else given
        if not hmac.compare_digest(brought, self._token):
            return False, None
        return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)
