"""The sites' keys at the SuperLink: those whose files are in the kit may connect, and no others."""

import sqlite3
from collections.abc import Callable
from shlex import quote

from flwr.proto.node_pb2 import NodeInfo

from fedrad.deployment.coordinator.kit import CoordinatorKit, public_key
from fedrad.deployment.coordinator.superlink import SuperLinkClient
from fedrad.errors import FedradError, SiteFailedError

__all__ = ["Keys"]

_FREE = """
UPDATE node SET public_key = CAST('unregistered ' || node_id AS BLOB)
WHERE status = 'unregistered' AND public_key = ?
"""
_BUSY_S = 10.0


class Keys:
    """Lets sites in as their keys come and go; nothing that goes wrong here ends the coordinator.

    Args:
        kit: the coordinator's.
        say: is told who may connect, and each problem once.
    """

    def __init__(self, kit: CoordinatorKit, say: Callable[[str], None]) -> None:
        self._kit, self._say = kit, say
        self._problems: dict[str, str] = {}

    def wanted(self) -> dict[str, bytes]:
        """Return the keys in the kit that can be read; the others are told of."""
        found: dict[str, bytes] = {}
        for site, path in self._kit.key_files().items():
            try:
                found[site] = public_key(path)
                self._solved(site)
            except FedradError as error:
                self._problem(site, f"{error}; the key that {site} had before still holds")
        return found

    def settle(self) -> None:
        """Let in the sites whose keys are in the kit, and no others."""
        wanted = self.wanted()
        damaged = self._kit.key_files().keys() - wanted.keys()
        try:
            link = self._kit.link(patience=5.0)
            known = {i.public_key: i for i in link.nodes() if i.status != "unregistered"}
            self._solved("")
        except SiteFailedError as error:
            self._problem("", str(error))
            return
        for key, info in known.items():
            if wanted.get(info.name) != key and info.name not in damaged:
                self._let_out(link, info)
        for site, key in wanted.items():
            if key not in known:
                self._let_in(link, site, key)

    def _let_out(self, link: SuperLinkClient, info: NodeInfo) -> None:
        name = info.name or "a site without a name"
        try:
            link.unregister(info.node_id)
        except SiteFailedError as error:
            self._problem(name, f"{name} may not connect any more, but it is still let in: {error}")
            return
        self._say(f"{name} may not connect any more: its key is not in {self._place}")

    def _let_in(self, link: SuperLinkClient, site: str, key: bytes) -> None:
        try:
            self._free(key)
            link.register(site, key)
        except (SiteFailedError, sqlite3.Error) as error:
            self._problem(
                site,
                f"{site} cannot be let in ({error}); the organiser: fedrad provision FILE --rotate "
                f"{quote(site)} makes it another key",
            )
            return
        self._solved(site)
        self._say(f"{site} may connect")

    def _free(self, key: bytes) -> None:
        """Let a key be registered that was let out before.

        Flower keeps the key of a node that was unregistered, and takes none twice: a key file that
        was moved away and back would be refused for ever.
        """
        path = self._kit.state / "superlink.db"
        if not path.is_file():
            return
        connection = sqlite3.connect(path, timeout=_BUSY_S)
        try:
            with connection:
                connection.execute(_FREE, (key,))
        finally:
            connection.close()

    @property
    def _place(self) -> str:
        return f"{self._kit.folder.name}/sites"

    def _problem(self, about: str, text: str) -> None:
        if self._problems.get(about) != text:
            self._problems[about] = text
            self._say(text)

    def _solved(self, about: str) -> None:
        self._problems.pop(about, None)
