"""The site's worker: order of rounds, repeated questions, other versions."""

import pytest
from flwr.app import Context, Error, Message, RecordDict

from fedrad.deployment.handshake import check_version, version_info
from fedrad.deployment.site.worker import _once, _Rounds
from fedrad.errors import ConfigError
from fedrad.rounds.records import config_of, numbers_of, pack
from fedrad.simulation.in_process import InProcessGrid


def question(number: int, *, run: int = 1, arm: str = "fedavg") -> Message:
    """A question of a round."""
    InProcessGrid(None, {})  # type: ignore[arg-type]  # lets messages be made outside a runtime
    config = {"arm": arm, "seed": 0, "server-round": number, "action": "fit"}
    message = Message(pack({}, config=config), 2, "train", group_id=str(number))
    message.metadata.__dict__["_run_id"] = run
    message.metadata.__dict__["_message_id"] = f"{run}-{number}"
    return message


def context() -> Context:
    """A context that says nothing."""
    return Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


def test_a_message_of_a_round_that_is_over_is_refused() -> None:
    """Working on it would put the site's memory back; a run started again may repeat a round."""
    rounds = _Rounds()
    for number in (4, 5, 5):
        rounds.check(question(number), config_of(question(number).content))
    with pytest.raises(ConfigError, match="a message of round 4 came in round 5"):
        rounds.check(question(4), config_of(question(4).content))
    other = question(1, arm="fedprox")
    rounds.check(other, config_of(other.content))
    again = question(4, run=2)
    rounds.check(again, config_of(again.content))


def test_a_repeated_question_is_answered_alike_without_working_again() -> None:
    """The answer would be the same, bit for bit; training once more would only cost time."""
    worked = []

    def answer(message: Message, context: Context) -> Message:
        worked.append(message)
        return Message(pack({}, {"n": float(len(worked))}), reply_to=message)

    once = _once(answer)
    first, again = question(1), question(1)
    again.metadata.__dict__["_message_id"] = "another"
    replies = [once(message, context()) for message in (first, again)]
    assert len(worked) == 1
    assert [numbers_of(reply.content)["n"] for reply in replies] == [1.0, 1.0]
    assert replies[1].metadata.reply_to_message_id == "another"
    once(question(2), context())
    assert len(worked) == 2


def test_a_refusal_is_repeated_as_a_refusal() -> None:
    once = _once(lambda message, context: Message(Error(100, "no"), reply_to=message))
    assert [once(question(1), context()).error.reason for _ in range(2)] == ["no", "no"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fedrad": "7.3.0"}, r"runs fedrad 7\.3\.0, this site \d"),
        ({"fedrad": ""}, "runs fedrad , this site"),
        ({"schema": 99}, "schema 99, this site reads schema 1"),
    ],
)
def test_another_version_is_refused_with_both_named(change: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_version(version_info() | change)


def test_a_message_without_a_version_is_refused() -> None:
    """Over a network nobody is let in who does not say who asks."""
    with pytest.raises(ConfigError, match=r"\(unnamed\)"):
        check_version({})
