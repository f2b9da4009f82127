"""The hospital's guard: stands around what answers a message, before and after, and logs both.

`guarded(answer, site, source)` is all that a site's process calls. Nothing is trained that the
policy does not allow, nothing leaves that is not what was asked for, and nothing leaves without a
line in the audit log.
"""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from flwr.app import Context, Error, Message, RecordDict

from fedrad.config import Experiment, SiteFile
from fedrad.config.received import received
from fedrad.core.state import State
from fedrad.data.base import SPLITS, SiteData
from fedrad.deployment.frame_spec import FrameSpec, infer_frame_spec
from fedrad.deployment.handshake import check_version
from fedrad.deployment.site.audit import AuditEntry, AuditLog
from fedrad.deployment.site.evaluation_limits import EvaluationLimits
from fedrad.deployment.site.evaluation_places import check_place
from fedrad.deployment.site.message_checks import check_form, check_size, check_thresholds
from fedrad.deployment.site.parsed_message import (
    LONGEST,
    RoundKey,
    TaskRequest,
    message_number,
    round_of,
)
from fedrad.deployment.site.payload import payload_bytes, payload_digest
from fedrad.deployment.site.policy import (
    PrivacyBudget,
    check_epsilon,
    check_names,
    check_norm,
    check_task,
    check_upload,
    policy_error,
)
from fedrad.deployment.site.promised_patients import (
    check_promised,
    hold_back_labels,
    record_promise,
)
from fedrad.deployment.site.reply_specs import ReplySpecs
from fedrad.deployment.site.reply_validation import find_violation
from fedrad.deployment.site.stream_guard import FrameFilter, check_invitation
from fedrad.deployment.site.update_rules import check_sites, check_update
from fedrad.deployment.site.whole_run import add_refusals
from fedrad.errors import ConfigError, FedradError, PolicyError, about_the_question, outward_of
from fedrad.privacy.promised import Promised
from fedrad.rounds.client_app import COUNTS
from fedrad.rounds.records import bundle_of, config_of
from fedrad.rounds.site_tasks import Source

__all__ = ["Answerer", "Guard", "guarded"]

log = logging.getLogger(__name__)

_FEDRAD_ERROR = 100
_OTHER_ERROR = 101
Answerer = Callable[[Message, Context], Message]


def guarded(
    answer: Answerer,
    site: SiteFile,
    source: Source,
    ledger: PrivacyBudget | None = None,
    gate: FrameFilter | None = None,
    unpack: Callable[[RecordDict], RecordDict] = lambda content: content,
    own: Callable[[TaskRequest], State] = lambda task: {},
    promised: Promised | None = None,
) -> Answerer:
    """Return what answers messages, with the hospital's guard around it.

    Whatever a message holds, and whatever fails in reading or answering it, ends in an answer and
    in a line of the log; nothing is raised.

    Args:
        answer: what works on a message that the policy allows.
        site: the hospital's file, with its policy.
        source: finds the hospital's own data; asked only for how many patients there are.
        ledger: the account of privacy that `epsilon` is held against.
        gate: through which `answer` passes its streams; without one there are none.
        unpack: makes of a message's content what `answer` takes.
        own: finds the model that the site itself has in an arm; {} without one.
        promised: patients who were trained on under a promise of privacy.

    Raises:
        ConfigError: the policy names what fedrad does not have.
        RunError: the audit log was tampered with.
    """
    guard = Guard(site, source, ledger, gate, own, promised)

    def stand(message: Message, context: Context) -> Message:
        task = TaskRequest.unread(message.metadata.run_id)
        try:
            message.content = unpack(message.content)
            task = guard.read(message)
            task = guard.before(message, task)
            reply = answer(message, context)
            if not reply.has_error():
                return guard.after(task, reply)
            return guard.failed(task, message, reply.error.code, reply.error.reason or "")
        except Exception as error:
            return guard.failed(task, message, *_told(error))

    return stand


class Guard:
    """A hospital's policy at work; `before` and `after` refuse, and every message is logged."""

    def __init__(
        self,
        site: SiteFile,
        source: Source,
        ledger: PrivacyBudget | None = None,
        gate: FrameFilter | None = None,
        own: Callable[[TaskRequest], State] = lambda task: {},
        promised: Promised | None = None,
    ) -> None:
        check_names(site)
        self._gate, self._own, self._promised = gate, own, promised
        self._site = site
        self._source = source
        self._ledger = ledger
        self._audit = AuditLog(site.state_dir / "audit.jsonl")
        self._questions = EvaluationLimits(site.state_dir / "evaluated.jsonl")
        if mended := self._audit.mend():
            log.warning("%s", mended)
        # What left in a round counts also after a restart of this process.
        self._left: Counter[RoundKey] = Counter()
        for line in self._audit.entries():
            self._left[round_of(line)] += int(line["bytes_out"])
        self._looks = ReplySpecs()
        self._texts: dict[str, tuple[Experiment, str]] = {}

    def read(self, message: Message) -> TaskRequest:
        """Return what can be read of a message; what cannot is left empty, for `before`."""
        config = config_of(message.content)
        experiment, digest = self._experiment(str(config.get("experiment", "")))
        return TaskRequest(
            run=message.metadata.run_id,
            bytes_in=payload_bytes(message.content),
            experiment=experiment,
            digest=digest,
            arm=str(config.get("arm", ""))[:LONGEST],
            seed=message_number(config.get("seed")),
            round=message_number(config.get("server-round")),
            action=str(config.get("action", ""))[:LONGEST],
            sent={k: v for k, v in bundle_of(message.content).items() if k != COUNTS},
        )

    def before(self, message: Message, task: TaskRequest) -> TaskRequest:
        """Return what a message asks for, if the policy allows it.

        Raises:
            PolicyError: it does not; says site, rule, limit and asked.
            ConfigError: the message is of another version, or cannot be read.
        """
        config = config_of(message.content)
        with about_the_question():
            check_version(config)
            experiment = task.experiment
            if experiment is None:
                raise ConfigError("the message names no experiment that can be read")
            check_form(self._site, config, experiment)
            arm = experiment.arm(task.arm) if task.arm else None
            if arm is None and task.actions != ["describe"]:
                raise ConfigError("the message names no arm")
        invited = check_invitation(self._site, config)

        def patients(part: str) -> int:
            data = self._data(experiment)
            return sum(data.patients(one) for one in (SPLITS if part == "all" else (part,)))

        check_task(self._site, experiment, arm, task.actions, patients)
        if arm is not None:
            check_place(self._site, arm, task.actions, task.round)
            check_thresholds(self._site, arm, task.actions, task.sent)
            data = partial(self._data, experiment)
            check_promised(self._site, self._promised, experiment, task.actions, data)
            check_size(self._site, arm)
        with about_the_question():
            look, updates = self._looks.of(self._site, task, experiment, arm)
        if arm is not None and (updates or "share" in task.actions):
            check_update(self._site, arm, self._data(experiment))
        if arm is not None and updates:
            check_sites(self._site, arm, config)
        streamed = self._streamed(task, experiment, arm) if invited else None
        more = look.bytes + (streamed.bytes if streamed else 0)
        check_upload(self._site, self._left[task.key], more)
        if arm is not None:
            check_epsilon(
                self._site,
                self._ledger,
                arm,
                seed=task.seed,
                round=task.round,
                actions=task.actions,
            )
            self._questions.check(self._site, arm, task, self._own)
            record_promise(self._promised, arm, task.actions, partial(self._data, experiment))
        arms, seeds = (tuple(config.get(key, ())) for key in ("arms", "seeds"))
        task = replace(task, look=look, updates=updates, arms=arms, seeds=seeds)
        if streamed and self._gate:
            self._gate.allow(self._site.name, streamed, partial(self._opened, task, streamed))
        return task

    def after(self, task: TaskRequest, reply: Message) -> Message:
        """Return a reply, logged, if it is what was asked for and the policy lets it out.

        Raises:
            PolicyError: it is not, or does not.
            RunError: the log cannot be written; then nothing leaves.
        """
        content, refuses = reply.content, ""
        if task.actions == ["describe"] and task.experiment is not None:
            data = partial(self._data, task.experiment)
            reply.content = hold_back_labels(content, self._promised, task.experiment, data)
            content = reply.content
            what = task.experiment, task.arms, task.seeds
            known = self._ledger, self._promised
            refuses = add_refusals(content, self._site, *what, data, *known)
        arrays = bundle_of(content)
        assert task.look is not None, "before() comes first"
        wrong = find_violation(content, task.look, describes=task.actions == ["describe"])
        if wrong:
            raise policy_error(self._site.name, "reply", f"what {task.action} answers", wrong)
        if self._gate and task.experiment is not None and task.arm:
            arm, heard = task.experiment.arm(task.arm), self._gate.heard
            self._questions.check(self._site, arm, task, self._own, heard)
        weight = payload_bytes(content)
        check_upload(self._site, self._left[task.key], weight)
        check_norm(self._site, task.sent, {name: arrays[name] for name in task.updates})
        streamed = self._gate.close() if self._gate else ""
        self._write(task, weight, payload_digest(content), "sent", streamed or refuses)
        return reply

    def failed(self, task: TaskRequest, message: Message, code: int, reason: str) -> Message:
        """Return the answer that says why there is none, logged."""
        if self._gate:
            self._gate.close()
        decision = "refused" if reason.startswith(PolicyError.__name__) else "failed"
        try:
            self._write(task, len(reason.encode()), "", decision, reason)
        except FedradError as error:
            log.error("the audit log takes no line: %s", error)
            reason = outward_of(error)
        return Message(Error(code, reason), reply_to=message)

    def _data(self, experiment: Experiment) -> SiteData:
        return self._source.federation(experiment).sites[self._site.name]

    def _streamed(
        self, task: TaskRequest, experiment: Experiment, arm: Experiment | None
    ) -> FrameSpec:
        """Return what leaves in the stream that a message opens."""
        images = self._data(experiment).images
        streamed = infer_frame_spec(arm, task.action, images) if arm and self._gate else None
        if streamed is None:
            raise policy_error(
                self._site.name, "stream", "an arm whose network is cut", task.action
            )
        return streamed

    def _experiment(self, text: str) -> tuple[Experiment | None, str]:
        try:
            if text not in self._texts:
                experiment = received(text)
                self._texts = {text: (experiment, experiment.digest())}
        except ConfigError:
            return None, ""
        return self._texts[text]

    def _opened(self, task: TaskRequest, streamed: FrameSpec) -> None:
        self._write(task, streamed.bytes, "", "opened", f"a stream: {streamed.told}")

    def _write(self, task: TaskRequest, weight: int, sent: str, decision: str, reason: str) -> None:
        self._audit.append(
            AuditEntry(
                run=task.run,
                experiment=task.digest,
                arm=task.arm,
                seed=task.seed,
                round=task.round,
                action=task.action,
                bytes_in=task.bytes_in,
                bytes_out=weight,
                sent=sent,
                decision=decision,
                reason=reason,
            )
        )
        self._left[task.key] += weight


def _told(error: Exception) -> tuple[int, str]:
    if isinstance(error, FedradError):
        log.warning("a message could not be answered: %s: %s", type(error).__name__, error)
        return _FEDRAD_ERROR, outward_of(error)
    # The text stays here: it can hold a path, and a path can hold a name.
    log.error("a message could not be answered", exc_info=error)
    return _OTHER_ERROR, outward_of(error)
