"""How many models a site evaluates for one place of an experiment: as many as an honest run asks.

Metrics of a model are exact. Whoever may have any number of models evaluated can move one by a
little each time and see at which step a single patient changes sides. So a site evaluates, for each
arm, seed, round and action, a few models and no more; the same model again is the same question.
What was evaluated is kept on the disk, so that starting the site again does not forget it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fedrad.config import SiteFile
from fedrad.core.state import Bundle
from fedrad.errors import RunError
from fedrad.federation.hospital.asked import Task
from fedrad.federation.hospital.policy import refuse

__all__ = ["Questions"]

_MATRIX = 16  # other sites' models that a site x site matrix may hold
_RESUMED = 3  # a round that is played again with other sites ends in another model
_MOST: Mapping[str, int] = {
    "test": 2 * _RESUMED + _MATRIX,
    "tune": 2 * _RESUMED,
    "validate": _RESUMED,
    "split-test": 2 * _RESUMED,
    "split-tune": 2 * _RESUMED,
    "split-validate": _RESUMED,
}


class Questions:
    """The models that a site has evaluated.

    Args:
        path: of the file that remembers them; digests alone.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, set[str]] = defaultdict(set)
        if not path.is_file():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                place, content = json.loads(line)
            except ValueError:
                raise RunError(
                    f"{path.name} is damaged: it says which models were evaluated here; if nobody "
                    "meant to make it forget, remove the damaged line"
                ) from None
            self._seen[str(place)].add(str(content))

    def check(self, site: SiteFile, task: Task) -> None:
        """Refuse one model too many for a place of an experiment; remember the others.

        Raises:
            Refused: says how many are the most.
            RunError: it cannot be remembered.
        """
        for action in task.actions:
            most = _MOST.get(action)
            if most is None:
                continue
            place = f"{task.digest} {task.arm} {task.seed} {task.round} {action}"
            content = _digest(task.sent)
            if content in self._seen[place]:
                continue
            if len(self._seen[place]) >= most:
                raise refuse(
                    site.name, "evaluations", f"{most} models for one round's {action}", "one more"
                )
            self._remember(place, content)

    def _remember(self, place: str, content: str) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps([place, content]) + "\n")
            self._path.chmod(0o600)
        except OSError as error:
            raise RunError(f"{self._path.name} could not be written ({error.strerror})") from error
        self._seen[place].add(content)


def _digest(sent: Bundle) -> str:
    found = sha256()
    for name in ("model", "thresholds"):
        for key, tensor in sorted(sent.get(name, {}).items()):
            found.update(f"{name} {key} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            found.update(tensor.contiguous().cpu().numpy().data)
    return found.hexdigest()
