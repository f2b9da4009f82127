"""The models that a site has evaluated for one place of an experiment: as many as `places` says.

Metrics of a model are exact. Whoever may have any number of models evaluated can move one by a
little each time and see at which step a single patient changes sides. So a site evaluates, for each
arm, seed, round and action, a few models and no more; the same model again is the same question.
What was evaluated is kept on the disk, so that starting the site again does not forget it.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from fedrad.algorithms.evaluation import THRESHOLDS
from fedrad.config import Experiment, SiteFile
from fedrad.core.state import State
from fedrad.core.wire import to_bytes
from fedrad.deployment.frame_spec import SPLIT_EVALUATIONS
from fedrad.deployment.site.evaluation_places import EVALUATIONS, models_of
from fedrad.deployment.site.parsed_message import TaskRequest
from fedrad.deployment.site.policy import policy_error
from fedrad.errors import RunError

__all__ = ["EvaluationLimits"]


class EvaluationLimits:
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

    def check(
        self,
        site: SiteFile,
        arm: Experiment,
        task: TaskRequest,
        own: Callable[[TaskRequest], State],
        heard: str | None = None,
    ) -> None:
        """Refuse one model too many for a place of an experiment; remember the others.

        Args:
            site: whose policy it is.
            arm: the experiment as the arm sees it.
            task: what is asked.
            own: finds the site's own model; {} if it has none by then.
            heard: digest of what came in a stream that is over: of a cut network the coordinator
                has the body, and its frames are the model. None before the stream.

        Raises:
            PolicyError: says how many are the most.
            RunError: it cannot be remembered.
        """
        for action in task.actions:
            streamed = action in SPLIT_EVALUATIONS
            if action not in EVALUATIONS or streamed != (heard is not None):
                continue
            most = models_of(site, arm, action)
            place = f"{task.digest} {task.arm} {task.seed} {task.round} {action}"
            content = _digest(task, action, own(task), heard or "")
            if content in self._seen[place]:
                continue
            if len(self._seen[place]) >= most:
                raise policy_error(
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


def _digest(task: TaskRequest, action: str, own: State, heard: str) -> str:
    """Return a digest of all that an answer depends on, beside the site's data."""
    sent = task.sent.get("model", {})
    # Curves are of the model in use: the site's own as soon as it has one.
    first, second = (own, sent) if action == "validate" else (sent, own)
    used = {"model": first or second, THRESHOLDS: task.sent.get(THRESHOLDS, {})}
    found = sha256(heard.encode())
    for name, state in used.items():
        for key, tensor in sorted(state.items()):
            kind, shape, raw = to_bytes(tensor)
            found.update(f"{name} {key} {shape} {kind}\n".encode())
            found.update(raw)
    return found.hexdigest()
