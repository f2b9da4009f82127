"""What a site's answer must look like before it may be added to anything.

A reply with a missing or extra record, array, number or setting, another shape or kind, or a number
that is not finite or not what the site told at the roll call, is named and left out for the round.
"""

import logging
from collections.abc import Callable, Mapping
from math import isfinite

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedrad.assemble import steps_per_round
from fedrad.config import Experiment
from fedrad.core.printable import printable
from fedrad.core.state import Bundle, num_bytes
from fedrad.deployment.coordinator.plausibility import SiteClaims, implausible, not_counts
from fedrad.deployment.frame_spec import FrameSpec, infer_frame_spec
from fedrad.deployment.reply_spec import ReplySpec, empty_site, infer_reply_spec, specs_of
from fedrad.deployment.streams.frame_rules import FrameRules
from fedrad.errors import FedradError
from fedrad.rounds.client_app import COUNTS
from fedrad.rounds.records import bundle_of, config_of, numbers_of
from fedrad.rounds.refusals import REFUSALS_KEY
from fedrad.rounds.site_summary import site_summary
from fedrad.training.dp.private_arm import dp_config_of

__all__ = ["ReplyChecker", "unexpected_record"]

log = logging.getLogger(__name__)


LARGEST_NUMBER = 1e15
"""Beyond it no weight and no sum of an honest site is, and a weighted sum would overflow."""

_SLACK = 1 << 20
_UNFORESEEN = 256 << 20
_PER_ARRAY = 300
"""Bytes: of an answer's frame, of one that could not be foreseen, and of an array's name."""
_MOST_SETTING, _MOST_REFUSALS = 4000, 100_000
_DESCRIBE, _SITE = "describe", frozenset({"site"})


class ReplyChecker:
    """Knows what an experiment's sites answer.

    Args:
        experiment: its arms, models and statistics.

    Attributes:
        told: node -> what its site told at the roll call; a number is held against it. Of others
            nothing but a description is taken, once there is any.
        private: any arm trains with differential privacy, so what sites tell is rounded.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.told: Mapping[int, SiteClaims] = {}
        self._experiment = experiment
        self._streamed: dict[tuple[str, str], FrameSpec] = {}
        self._outlines: dict[tuple[str, ...], ReplySpec | None] = {}
        self.private = any(dp_config_of(experiment.arm(name)) for name in experiment.arm_names)

    def check(self, question: Message, reply: Message) -> str | None:
        """Return what is wrong with a site's reply, or None; never raises for what is in it."""
        action = str(config_of(question.content)["action"])
        try:
            wrong = self._wrong(question, action, reply.content)
        except FedradError as error:
            wrong = str(error)
        except Exception as error:
            # What this stumbles over is what the site has sent, so it is that site's failure.
            log.info("an answer cannot be checked", exc_info=error)
            wrong = f"it cannot be checked ({type(error).__name__})"
        return printable(f"its answer to {action} does not fit: {wrong}") if wrong else None

    def limit(self, question: Message) -> int:
        """Return the bytes that the answer to a question may have at most."""
        config = config_of(question.content)
        outline = self._outline(question, str(config["action"]))
        if outline is None:
            return _UNFORESEEN + 2 * num_bytes(bundle_of(question.content))
        arrays = sum(map(len, outline.arrays.values()))
        return _SLACK + outline.bytes + _PER_ARRAY * arrays

    def rules(self, question: Message) -> FrameRules:
        """Return what a site may send in the stream that a question opens."""
        config = config_of(question.content)
        arm, action = self._experiment.arm(str(config["arm"])), str(config["action"])
        key = str(config["arm"]), action
        told = self.told.get(question.metadata.dst_node_id)
        if key not in self._streamed:
            streamed = infer_frame_spec(arm, action, lambda _: 1)
            assert streamed is not None, "only the actions of a cut network have streams"
            self._streamed[key] = streamed
        steps = steps_per_round(arm.local, told.images["train"]) if told else None
        return FrameRules(
            self._streamed[key],
            arm.task.outputs if arm.task.name == "multiclass" else None,
            # Rounded counts make other steps than the site takes: then nothing is held against it.
            steps if action == "fit" and not self.private else None,
        )

    def _wrong(self, question: Message, action: str, content: RecordDict) -> str | None:
        if record := unexpected_record(content, _settings(action)):
            return record
        arrays, numbers = bundle_of(content), numbers_of(content)
        outline = self._outline(question, action)
        # First the shapes: a number that is not finite is only looked for where one may be.
        if outline and (difference := outline.difference(specs_of(arrays), numbers)):
            return difference
        if beyond := _beyond(arrays):
            return beyond
        if not all(isfinite(value) and abs(value) <= LARGEST_NUMBER for value in numbers.values()):
            return "a number is not finite, or far too large"
        if uncounted := not_counts(numbers):
            return uncounted
        if action == _DESCRIBE or not self.told:
            return None
        told = self.told.get(question.metadata.dst_node_id)
        if told is None:
            return (
                "the site was not there at the roll call, so its numbers cannot be held against "
                "what it told; it takes part when the run is started again"
            )
        arm = self._experiment.arm(str(config_of(question.content)["arm"]))
        return implausible(arm, action.split("+"), numbers, arrays, told)

    def _outline(self, question: Message, action: str) -> ReplySpec | None:
        if action == _DESCRIBE:
            return self._known(("", _DESCRIBE), self._description)
        config, sent = config_of(question.content), bundle_of(question.content)
        sent.pop(COUNTS, None)
        key = (str(config["arm"]), action, *sorted(sent))
        number = max(int(config["server-round"]), 1)

        def foreseen() -> ReplySpec:
            arm = self._experiment.arm(key[0])
            return infer_reply_spec(arm, action.split("+"), sent, {}, round=number)

        return self._known(key, foreseen)

    def _description(self) -> ReplySpec:
        content = site_summary(
            empty_site(self._experiment),
            self._experiment.task,
            torch.device("cpu"),
            digest="",
            private=self.private,
        )
        return ReplySpec(specs_of(bundle_of(content)), frozenset(numbers_of(content)))

    def _known(self, key: tuple[str, ...], foreseen: Callable[[], ReplySpec]) -> ReplySpec | None:
        if key not in self._outlines:
            try:
                self._outlines[key] = foreseen()
            except (FedradError, LookupError) as error:
                # What cannot be foreseen here was foreseen by the site's own guard.
                log.warning("%s: only finite numbers are checked (%s)", ", ".join(key), error)
                self._outlines[key] = None
        return self._outlines[key]


def unexpected_record(content: RecordDict, settings: frozenset[str]) -> str | None:
    """Return which record, number or setting of a reply nobody asked for, or None.

    Args:
        content: of the reply.
        settings: that it may have.

    >>> from fedrad.rounds.records import pack
    >>> unexpected_record(pack({}, {"n": 1.0}, {"site": "nord"}), frozenset({"site"}))
    >>> unexpected_record(pack({}, config={"site": "nord", "quorum": 0}), frozenset({"site"}))
    'a setting that nobody asked for'
    """
    for key, record in content.items():
        wanted = _KINDS.get(key, ArrayRecord)
        if not isinstance(record, wanted) or (wanted is ArrayRecord and not _names_arrays(key)):
            return "a record that nobody asked for"
    metrics = content.get("metrics")
    if isinstance(metrics, MetricRecord) and any(isinstance(v, list) for v in metrics.values()):
        return "a list where a number was due"
    config = config_of(content)
    if set(config) - settings:
        return "a setting that nobody asked for"
    for key, value in config.items():
        most = _MOST_REFUSALS if key == REFUSALS_KEY else _MOST_SETTING
        if not isinstance(value, str) or len(value) > most:
            return f"a setting is no text of up to {most} characters"
    return None


_KINDS: Mapping[str, type[MetricRecord | ConfigRecord]] = {
    "metrics": MetricRecord, "config": ConfigRecord,
}  # fmt: skip


def _names_arrays(key: str) -> bool:
    return key == "arrays" or key.startswith("arrays.")


def _settings(action: str) -> frozenset[str]:
    if action != _DESCRIBE:
        return _SITE
    return _SITE | {"fedrad", "torch", "device", "data", "machine", REFUSALS_KEY}


def _beyond(arrays: Bundle) -> str | None:
    """Return that a number is not finite, or so large that a sum of it would not be."""
    for state in arrays.values():
        for tensor in state.values():
            if not tensor.numel() or tensor.dtype == torch.bool:
                continue
            most = max(abs(float(tensor.max())), abs(float(tensor.min())))
            if not isfinite(most):
                return "an array holds a number that is not finite"
            if most > LARGEST_NUMBER:
                return "an array holds a number far too large for a weight or a sum"
    return None
