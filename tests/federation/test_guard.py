"""The guard: a hospital's rules before and after every message, and a line for each."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from flwr.app import Array, ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedrad.config import Experiment, SiteFile
from fedrad.config.checking import checked
from fedrad.core.state import Bundle
from fedrad.data.sites import Federation
from fedrad.deployment.handshake import version_info
from fedrad.deployment.site.audit import AuditLog
from fedrad.deployment.site.guard import Answerer, guarded
from fedrad.errors import ConfigError, RunError
from fedrad.metrics.site_result import hospital_disclosure
from fedrad.rounds.arm_rounds import RunSpec
from fedrad.rounds.client_app import client_app
from fedrad.rounds.records import TensorArray, config_of, pack
from fedrad.rounds.server import server_app
from fedrad.rounds.site_tasks import Known
from fedrad.runs import RunFolder
from fedrad.simulation.in_process import InProcessGrid

CPU = torch.device("cpu")
HOSPITAL = hospital_disclosure()
POLICY: dict[str, Any] = {
    "data": "phantom",
    "coordinator": {"host": "localhost", "port": 9092},
    "allow": {
        "algorithms": ["fedavg", "fedprox", "finetune", "float16_updates", "local"],
        "models": ["mlp"],
        "actions": ["count", "describe", "finetune", "fit", "share", "test", "tune", "validate"],
    },
    "experiments": "any",
    "min_patients": 10,
    "max_upload_mb": 1,
    "max_norm": 100,
}


class Spy(Known):
    """The hospital's data, and whether anybody looked at them."""

    looked = 0

    def federation(self, experiment: Experiment) -> Federation:
        Spy.looked += 1
        return self.known


@pytest.fixture(autouse=True)
def _runtime() -> Iterator[None]:
    Spy.looked = 0
    # Messages can be made only inside a task of Flower's.
    InProcessGrid(client_app(Known(made.federation()), CPU, disclosure=HOSPITAL), {})
    yield


def site(folder: Path, **changes: Any) -> SiteFile:
    raw = {"name": "nord", **POLICY, **changes}
    return checked(SiteFile, raw, where="site.yaml").under(folder)


def guard(folder: Path, answer: Answerer | None = None, **changes: Any) -> Answerer:
    source = Spy(made.federation())
    return guarded(
        answer or client_app(source, CPU, disclosure=HOSPITAL), site(folder, **changes), source
    )


def question(
    action: str = "fit",
    arm: str = "fedavg",
    send: Bundle | None = None,
    what: Experiment | None = None,
    number: int = 1,
    **changes: Any,
) -> Message:
    what = what or made.experiment()
    config = {"experiment": what.text(), "action": action, **version_info()}
    if action != "describe":
        config |= {"arm": arm, "seed": 0, "server-round": number, "training-sites": 3}
    content = pack(model() if send is None else send, config={**config, **changes})
    return Message(content, 2, "train")


def model(what: Experiment | None = None) -> Bundle:
    from fedrad.assemble import initial_state

    return {"model": initial_state((what or made.experiment()).arm("fedavg"), 0)}


def context(folder: Path) -> Context:
    config = {"site": "nord", "state-dir": str(folder / "memory")}
    return Context(1, 2, config, RecordDict(), {})


def asked(folder: Path, message: Message, **changes: Any) -> Message:
    return guard(folder, **changes)(message, context(folder))


def reason(reply: Message) -> str:
    assert reply.has_error(), "an answer left"
    return reply.error.reason or ""


def lines(folder: Path) -> list[dict[str, Any]]:
    return list(AuditLog(folder / "state" / "audit.jsonl").entries())


@pytest.mark.parametrize(
    ("changes", "message", "told"),
    [
        ({"allow": {}}, {}, "nord: allow.actions: limit none, asked fit"),
        (
            {"allow": POLICY["allow"] | {"actions": ["describe", "validate"]}},
            {},
            "nord: allow.actions: limit describe, validate, asked fit",
        ),
        (
            {"allow": POLICY["allow"] | {"algorithms": ["fedavg"]}},
            {"arm": "fedprox"},
            "nord: allow.algorithms: limit fedavg, asked fedprox",
        ),
        (
            {"allow": POLICY["allow"] | {"algorithms": ["fedavg"]}},
            {"arm": "tuned"},
            "nord: allow.algorithms: limit fedavg, asked finetune",
        ),
        (
            {"allow": POLICY["allow"] | {"models": ["cnn", "resnet18"]}},
            {},
            "nord: allow.models: limit cnn, resnet18, asked mlp",
        ),
        ({"experiments": []}, {}, "nord: experiments: limit 0 approved, asked made ("),
        ({"experiments": ["0" * 64]}, {}, "nord: experiments: limit 1 approved, asked made ("),
        (
            {"task": {"name": "binary", "labels": ["tumour"], "input": [6]}},
            {},
            "nord: task.labels: limit those of the site's own file, asked lesion",
        ),
        ({"min_sites": 4}, {}, "nord: min_sites: limit 4, asked a mean of 3"),
        ({}, {"training-sites": 1}, "nord: min_sites: limit 2, asked a mean of 1"),
        ({}, {"training-sites": "9"}, "nord: min_sites: limit 2, asked a mean, without training"),
        ({"max_upload_mb": 1e-4}, {}, "nord: max_upload_mb: limit 0.0001, asked 0.000"),
        ({"epsilon": 8.0}, {}, "nord: epsilon: limit 8, asked unlimited: no differential privacy"),
    ],
)
def test_what_the_policy_does_not_allow_is_refused_before_any_data_are_used(
    tmp_path: Path, changes: dict[str, Any], message: dict[str, Any], told: str
) -> None:
    """A refusal says site, rule, limit and asked; the algorithm's site half is never called."""

    def never(message: Message, context: Context) -> Message:
        raise AssertionError("it was answered")

    answer = guarded(never, site(tmp_path, **changes), Known(made.federation()))
    reply = answer(question(**message), context(tmp_path))
    assert reason(reply).startswith(f"PolicyError: {told}")
    (line,) = lines(tmp_path)
    assert (line["decision"], line["sent"]) == ("refused", "")


@pytest.mark.parametrize("rule", ["allow", "experiments", "task"])
def test_rules_about_the_text_alone_are_checked_before_data_are_read(
    tmp_path: Path, rule: str
) -> None:
    closed = {
        "allow": {},
        "experiments": [],
        "task": {"name": "binary", "labels": ["x"], "input": [6]},
    }
    assert "limit" in reason(asked(tmp_path, question(), **{rule: closed[rule]}))
    assert Spy.looked == 0


@pytest.mark.parametrize(
    ("action", "least", "refused"),
    [("fit", 40, False), ("fit", 41, True), ("describe", 120, False), ("describe", 121, True)],
)
def test_too_few_patients_answer_nothing_and_how_many_there_are_is_not_told(
    tmp_path: Path, action: str, least: int, refused: bool
) -> None:
    """nord has 40 patients in each split; `describe` tells of all 120."""
    send = {} if action == "describe" else None
    reply = asked(tmp_path, question(action, send=send), min_patients=least)
    assert reply.has_error() == refused
    if refused:
        told = reason(reply)
        assert told.startswith(
            f"PolicyError: nord: min_patients: limit {least}, asked {action} on few"
        )
        assert "40" not in told.replace(f"limit {least}", "") and "120" not in told


def test_an_approved_experiment_is_let_in_and_one_letter_more_is_not(tmp_path: Path) -> None:
    """Approval is of the very text: another number of rounds is another experiment."""
    digest = made.experiment().digest()
    assert not asked(tmp_path, question(), experiments=[digest]).has_error()
    other = question(what=made.experiment(rounds=5))
    assert "experiments: limit 1 approved" in reason(asked(tmp_path, other, experiments=[digest]))


def test_bytes_of_a_round_are_added_up_also_after_a_restart(tmp_path: Path) -> None:
    """Two answers fit into the limit and a third does not, wherever the process was restarted."""
    one = lines_of_one(tmp_path / "once")["bytes_out"]
    limit = (2 * one + 10) / 1e6
    for number in (1, 2):
        assert not asked(tmp_path, question(), max_upload_mb=limit).has_error(), number
    assert "max_upload_mb" in reason(asked(tmp_path, question(), max_upload_mb=limit))
    assert not asked(tmp_path, question(number=2), max_upload_mb=limit).has_error()


def lines_of_one(folder: Path) -> dict[str, Any]:
    asked(folder, question())
    return lines(folder)[0]


def test_the_upload_is_known_before_training(tmp_path: Path) -> None:
    """An outline of the answer weighs what the answer weighs, to the byte of its site's name."""

    def never(message: Message, context: Context) -> Message:
        raise AssertionError("it was answered")

    one = lines_of_one(tmp_path / "once")["bytes_out"]
    answer = guard(tmp_path, never, max_upload_mb=(one - len("nord") - 1) / 1e6)
    assert "max_upload_mb" in reason(answer(question(), context(tmp_path)))


def test_an_update_that_is_too_long_stays(tmp_path: Path) -> None:
    """The norm is of the difference to what was sent: weights of any length may be trained."""
    far = {"model": {key: value + 50 for key, value in model()["model"].items()}}

    def moved(by: float) -> Answerer:
        def answer(message: Message, context: Context) -> Message:
            reply = {"model": {k: v + by for k, v in far["model"].items()}}
            numbers = {"num-examples": 1.0, "steps": 1.0, "loss-sum": 0.0}
            return Message(pack(reply, numbers, {"site": "nord"}), reply_to=message)

        return answer

    parameters = sum(value.numel() for value in far["model"].values())
    # Each of n weights moves by 1: the L2 norm is the root of n.
    for limit, refused in ((parameters**0.5 + 0.01, False), (parameters**0.5 - 0.01, True)):
        answer = guard(tmp_path, moved(1.0), max_norm=limit)
        reply = answer(question(send=far), context(tmp_path))
        assert reply.has_error() == refused
    assert reason(reply).startswith("PolicyError: nord: max_norm: limit ")


@pytest.mark.parametrize("wrapper", ["float16_updates", "central_dp"])
def test_the_norm_of_a_change_that_is_sent_is_its_own(tmp_path: Path, wrapper: str) -> None:
    """Less the model that came it would be far too long, and a coordinator who sends a "change"
    that cancels it would make it too short."""
    what = made.experiment(arms=made.experiment().arms | {"wrapped": {
        "algorithm": "fedavg", "wrap": [wrapper]}})  # fmt: skip
    allow = POLICY["allow"] | {"algorithms": ["fedavg", wrapper]}
    told = {"num-examples": 1.0, "steps": 1.0, "loss-sum": 0.0}
    numbers = {"sites": 1.0} if wrapper == "central_dp" else told
    kind = torch.float32 if wrapper == "central_dp" else torch.float16
    far = {"model": {key: value + 50 for key, value in model()["model"].items()}}
    change = {key: torch.ones_like(value, dtype=kind) for key, value in far["model"].items()}

    def answer(message: Message, context: Context) -> Message:
        return Message(pack({"change": change}, numbers, {"site": "nord"}), reply_to=message)

    length = sum(value.numel() for value in change.values()) ** 0.5
    for send in (far, far | {"change": change}):
        for limit, refused in ((length + 0.01, False), (length - 0.01, True)):
            strict = guard(tmp_path, answer, max_norm=limit, allow=allow)
            reply = strict(question(arm="wrapped", send=send, what=what), context(tmp_path))
            assert reply.has_error() == refused, reply.error.reason
    assert reason(reply).startswith("PolicyError: nord: max_norm: limit ")


def spoiled(change: Callable[[RecordDict], None]) -> Answerer:
    """An answer as it should be, with something done to it."""
    app = client_app(Known(made.federation()), CPU, disclosure=HOSPITAL)

    def answer(message: Message, context: Context) -> Message:
        reply = app(message, context)
        change(reply.content)
        return reply

    return answer


def a_key(content: RecordDict) -> str:
    return sorted(content.array_records["arrays"])[0]


def no_array(content: RecordDict) -> None:
    del content.array_records["arrays"][a_key(content)]


def more_arrays(content: RecordDict) -> None:
    content.array_records["arrays"]["patients/Meier"] = TensorArray(torch.zeros(1))


def more_states(content: RecordDict) -> None:
    content["arrays.images"] = pack({"images": {"x": torch.zeros(1)}})["arrays.images"]


def ten_times(content: RecordDict) -> None:
    content.array_records["arrays"][a_key(content)] = TensorArray(torch.zeros(80))


def other_kind(content: RecordDict) -> None:
    key = a_key(content)
    found = content.array_records["arrays"][key]
    content.array_records["arrays"][key] = Array(found.numpy().astype(np.float64))


def not_finite(content: RecordDict) -> None:
    key = a_key(content)
    shape = content.array_records["arrays"][key].shape
    content.array_records["arrays"][key] = TensorArray(torch.full(shape, float("nan")))


def bad_number(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({**content.metric_records["metrics"], "steps": float("inf")})


def more_numbers(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({**content.metric_records["metrics"], "age-of-row-3": 71.0})


def a_list(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({**content.metric_records["metrics"], "steps": [1.0, 2.0]})


def a_setting(content: RecordDict) -> None:
    content["config"] = ConfigRecord({"site": "nord", "name": "Meier"})


def a_record(content: RecordDict) -> None:
    content["more"] = MetricRecord({"x": 1.0})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (no_array, "is missing"),
        (more_arrays, "an array that nobody asked for"),
        (more_states, "an array that nobody asked for"),
        (ten_times, "is float32 [80], not float32 [1]"),
        (other_kind, "is float64 [1], not float32 [1]"),
        (not_finite, "a number that is not finite"),
        (bad_number, "a number that is not finite"),
        (more_numbers, "a number that nobody asked for"),
        (a_list, "a number that is not finite"),
        (a_setting, "a setting that nobody asked for"),
        (a_record, "a record that nobody asked for"),
    ],
)
def test_only_what_was_asked_for_leaves(
    tmp_path: Path, change: Callable[[RecordDict], None], told: str
) -> None:
    reply = guard(tmp_path, spoiled(change))(question(), context(tmp_path))
    assert reason(reply).startswith("PolicyError: nord: reply: limit what fit answers, asked ")
    assert told in reason(reply) and "Meier" not in reason(reply)
    (line,) = lines(tmp_path)
    assert (line["decision"], line["sent"]) == ("refused", "")


def test_a_model_that_is_not_the_experiments_is_refused(tmp_path: Path) -> None:
    """The answer is as large as the question: a coordinator could ask for more than a model."""
    large = {"model": {key: torch.zeros(1000) for key in model()["model"]}}
    told = reason(asked(tmp_path, question(send=large)))
    assert told == "PolicyError: nord: message: limit the experiment's model, asked another one"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"fedrad": "9.4.1"}, "the coordinator runs fedrad 9.4.1, this site "),
        ({"schema": 2}, "is written in schema 2, this site reads schema 1"),
        ({"experiment": "name: ["}, "names no experiment that can be read"),
        ({"arm": ""}, "names no arm"),
        ({"arm": "fedagv"}, "did you mean 'fedavg'"),
        ({"seed": "zero", "server-round": "one"}, "seed is not one of the experiment's"),
    ],
)
def test_a_message_that_cannot_be_read_is_answered_and_logged(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    message = question()
    content = message.content
    content["config"] = ConfigRecord({**config_of(content), **changes})
    assert told in reason(asked(tmp_path, message))
    assert lines(tmp_path)[0]["decision"] == "failed"


def test_an_exceptions_own_text_stays_at_the_site(tmp_path: Path) -> None:
    """It can hold a path, and a path can hold a name."""

    def fails(message: Message, context: Context) -> Message:
        raise FileNotFoundError("/films/Meier/17.png")

    reply = guard(tmp_path, fails)(question(), context(tmp_path))
    assert reason(reply) == "FileNotFoundError"
    assert "Meier" not in (tmp_path / "state" / "audit.jsonl").read_text(encoding="utf-8")


def test_each_message_is_one_line_with_the_digest_of_what_left(tmp_path: Path) -> None:
    """Equal answers have equal digests, another answer another one: the log can be held to it."""
    app = client_app(Known(made.federation()), CPU, disclosure=HOSPITAL)
    answer = guard(tmp_path, app)
    answer(question(), context(tmp_path))
    answer(question(), context(tmp_path))
    answer(question(number=2), context(tmp_path))
    first, again, other = lines(tmp_path)
    told = {key: first[key] for key in ("experiment", "arm", "seed", "round", "action")}
    assert told == {
        "experiment": made.experiment().digest(),
        "arm": "fedavg",
        "seed": 0,
        "round": 1,
        "action": "fit",
    }
    parameters = sum(v.numel() for v in model()["model"].values())
    # float32 weights, three numbers of 8 bytes, and the site's name.
    assert first["bytes_out"] == 4 * parameters + 3 * 8 + len("nord")
    assert first["sent"] == again["sent"] != other["sent"]


def test_an_answer_that_is_given_again_leaves_again_and_is_logged(tmp_path: Path) -> None:
    """A coordinator that lost an answer asks again; the site does not train again."""
    from fedrad.deployment.site.worker import answering

    demo = {"name": "phantom", "hospitals": {"nord": {"patients": 30}}}
    allow = POLICY["allow"] | {"models": ["cnn"]}
    changes = {"task": {"name": "binary", "labels": ["lesion"], "input": [1, 16, 16]}}
    what = made.experiment(data="phantom", model="cnn", **changes)
    answer = answering(site(tmp_path, data=demo, allow=allow, min_patients=4))
    first = answer(question(send=model(what), what=what), context(tmp_path))
    again = answer(question(send=model(what), what=what), context(tmp_path))
    assert first.content is again.content
    assert [line["decision"] for line in lines(tmp_path)] == ["sent", "sent"]


def test_nothing_leaves_without_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full must not make a message unseen."""
    answer = guard(tmp_path)
    log = tmp_path / "state" / "audit.jsonl"
    assert not answer(question(), context(tmp_path)).has_error()
    log.write_bytes(b"")
    told = reason(answer(question(), context(tmp_path)))
    assert told == "RunError: the site's own log says more"
    assert "audit.jsonl: ends with line 0" in caplog.text


def test_a_site_does_not_start_on_a_log_that_was_tampered_with(tmp_path: Path) -> None:
    asked(tmp_path, question())
    log = tmp_path / "state" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"fit"', b'"fib"'))
    with pytest.raises(RunError, match="line 1: was changed after it was written"):
        guard(tmp_path)


@pytest.mark.parametrize(
    ("rule", "name", "told"),
    [
        ("algorithms", "fedporx", "did you mean 'fedprox'"),
        ("models", "resnet81", "did you mean 'resnet18'"),
        ("actions", "fitt", "did you mean 'fit'"),
    ],
)
def test_a_policy_that_names_what_does_not_exist_is_an_error(
    tmp_path: Path, rule: str, name: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        guard(tmp_path, allow={rule: [name]})


def test_a_validation_that_rides_along_is_no_update(tmp_path: Path) -> None:
    """Sums of errors grow with the images: only what is trained has a norm that matters."""
    reply = asked(tmp_path, question("fit+validate", number=2), max_norm=30)
    assert not reply.has_error(), reply.error.reason
    closed = POLICY["allow"] | {"actions": ["fit"]}
    told = reason(asked(tmp_path, question("fit+validate"), allow=closed))
    assert told == "PolicyError: nord: allow.actions: limit fit, asked validate"


class Account:
    """An account of privacy in which every round costs one."""

    def project(self, arm: Experiment, *, seed: int, round: int, action: str) -> float:
        return float(round)


def test_the_epsilon_ceiling_is_held_against_the_sites_own_ledger(tmp_path: Path) -> None:
    source = Known(made.federation())
    answer = guarded(
        client_app(source, CPU, disclosure=HOSPITAL), site(tmp_path, epsilon=2.0), source, Account()
    )
    assert not answer(question(number=2), context(tmp_path)).has_error()
    told = reason(answer(question(number=3), context(tmp_path)))
    assert told == "PolicyError: nord: epsilon: limit 2, asked 3"


ARMS = ["local", "fedavg", "fedprox", "tuned", "half"]


def guarded_run(folder: Path, arms: list[str] = ARMS, **changes: Any) -> RunFolder:
    """A whole run in process, a guard around every site."""
    sites = made.federation()
    what = made.experiment()
    guards = {
        name: guarded(
            client_app(Known(sites), CPU, disclosure=HOSPITAL),
            site(folder / name, **changes, name=name, max_upload_mb=20),
            Known(sites),
        )
        for name in sites.sites
    }

    def app(message: Message, context: Context) -> Message:
        config = {**config_of(message.content), **version_info()}
        message.content["config"] = ConfigRecord(config)
        return guards[str(context.node_config["site"])](message, context)

    run = RunFolder(folder / "run")
    grid = InProcessGrid(app, {name: run.site(name) for name in sites.sites})  # type: ignore[arg-type]
    play = RunSpec(what, arms, what.seeds, (), run, made.Told())
    server_app(play)(grid, context(folder))
    return run


def test_a_guard_that_allows_a_run_changes_no_bit_of_it(tmp_path: Path) -> None:
    """The guard reads; what it lets through is what an unguarded site sends."""
    made.play(tmp_path / "free", arms=ARMS)
    run = guarded_run(tmp_path / "guarded")
    for arm in ARMS:
        free = (tmp_path / "free" / arm / "seed-0" / "state.safetensors").read_bytes()
        assert (run.arm(arm, 0).path / "state.safetensors").read_bytes() == free
    for name in made.federation().sites:
        found = lines(tmp_path / "guarded" / name)
        assert {line["decision"] for line in found} == {"sent"}
        assert {line["action"] for line in found} == {
            "describe", "finetune", "fit", "share", "test", "validate",
        }  # fmt: skip


def test_an_arm_that_a_site_refuses_stops_with_the_reason_and_the_others_run(
    tmp_path: Path,
) -> None:
    allow = POLICY["allow"] | {"algorithms": ["fedavg", "finetune", "local"]}
    run = guarded_run(tmp_path, allow=allow)
    assert "allow.algorithms: limit fedavg, finetune, local, asked fedprox" in (
        run.arm("fedprox", 0).stopped() or ""
    )
    assert run.arm("fedavg", 0).finished
