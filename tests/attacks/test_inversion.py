"""A film from an update: computed exactly where one image stands behind it, and not let out.

Zhu, Liu, Han: "Deep Leakage from Gradients", NeurIPS 2019; for a first layer with a bias the film
is the gradient of a unit's weights over that of its bias (Phong et al., 2018).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from leaving import context, in_flowers_runtime, question, site_file

from fedrad.assemble import initial_state
from fedrad.config import Experiment, from_text
from fedrad.config.checking import checked
from fedrad.config.site import SiteFile
from fedrad.core.state import State
from fedrad.data.sites import hospital_of
from fedrad.deployment.kits.kit_templates import POLICY
from fedrad.deployment.site.update_rules import patients_behind, risk_of
from fedrad.deployment.site.worker import answering
from fedrad.rounds.records import bundle_of
from fedrad.training.batches import model_input

ONE_STEP = """
{name: inverted, task: {name: binary, labels: [lesion], input: [1, 16, 16]},
 model: {name: mlp, hidden: [32]}, data: phantom, rounds: 1, algorithm: fedavg, replicates: 0,
 local: {steps: 1, batch: 1, optimizer: {name: sgd, lr: 1.0}}, metrics: [brier]}
"""
SHIPPED = {key: POLICY[key] for key in ("min_patients", "min_sites", "max_upload_mb", "max_norm")}
SHIPPED_ALLOW = {key: list(POLICY[key]) for key in ("algorithms", "models", "actions")}


@pytest.fixture(autouse=True)
def _runtime() -> Iterator[None]:
    in_flowers_runtime()
    yield


def hospital(folder: Path, images_each: int = 1, **policy: Any) -> SiteFile:
    data = {"name": "phantom", "hospitals": {"nord": {"patients": 60}}}
    changes = {"data": data, "allow": SHIPPED_ALLOW, "max_norm": None, **policy}
    return site_file(folder, **changes)


def asked(folder: Path, what: Experiment, **policy: Any) -> tuple[Message, State]:
    """A hospital's answer to one fit, and the model that was sent to it."""
    sent = initial_state(what.arm("fedavg"), 0)
    reply = answering(hospital(folder, **policy))(question(what), context(folder))
    return reply, sent


def inverted(sent: State, update: State) -> np.ndarray:
    """The film that a first layer's update tells: its weights' change over its bias's."""
    weight = next(key for key in sent if key.endswith("weight") and sent[key].dim() == 2)
    bias = weight.replace("weight", "bias")
    change_w, change_b = update[weight] - sent[weight], update[bias] - sent[bias]
    unit = int(change_b.abs().argmax())
    return (change_w[unit] / change_b[unit]).numpy()


def films(folder: Path, what: Experiment) -> np.ndarray:
    """What the network sees of each training film, [n, pixels]."""
    site = hospital(folder)
    data = hospital_of(what, site).sites["nord"]
    x = torch.from_numpy(np.ascontiguousarray(data.x[data.rows["train"]]))
    return model_input(x).flatten(1).numpy()


def test_with_the_rule_switched_off_one_step_on_one_film_is_that_film(tmp_path: Path) -> None:
    """The attack works: the same run without `min_patients` returns a film pixel for pixel."""
    what = from_text(ONE_STEP)
    reply, sent = asked(tmp_path, what, min_patients=1)
    found = inverted(sent, bundle_of(reply.content)["model"])
    likeness = [np.corrcoef(found, film)[0, 1] for film in films(tmp_path, what)]
    assert max(likeness) > 0.9999
    assert sorted(likeness)[-2] < 0.999, "one film and no other"


@pytest.mark.parametrize(
    ("local", "told"),
    [
        ({"steps": 1, "batch": 1}, "an update from 1 step of 1 image, 1 at most"),
        ({"steps": 3, "batch": 3}, "an update from 3 steps of 3 images, 9 at most"),
    ],
)
def test_under_the_shipped_policy_such_a_run_is_refused_with_its_numbers(
    tmp_path: Path, local: dict[str, int], told: str
) -> None:
    """Nothing leaves but the refusal, so an attacker knows no more of a film than before."""
    text = from_text(ONE_STEP)
    what = checked(
        Experiment,
        text.model_dump() | {"local": text.local.model_dump() | local},
        where="experiment",
    )
    reply, _ = asked(tmp_path, what, **SHIPPED)
    assert reply.has_error()
    assert reply.error.reason == f"PolicyError: nord: min_patients: limit 10, asked {told}"


def test_a_mean_of_one_site_is_refused_under_the_shipped_policy(tmp_path: Path) -> None:
    """With the other sites held out the mean is the one site's own update."""
    text = ONE_STEP.replace("steps: 1, batch: 1", "epochs: 1")
    what = from_text(text)
    answer = answering(hospital(tmp_path, **SHIPPED))
    alone = answer(question(what, **{"training-sites": 1}), context(tmp_path))
    assert alone.error.reason == "PolicyError: nord: min_sites: limit 2, asked a mean of 1"
    few = from_text(text.replace("{name: inverted,", "{name: inverted, quorum: 1,"))
    told = answer(question(few), context(tmp_path)).error.reason
    assert told == "PolicyError: nord: min_sites: limit 2, asked quorum 1"
    assert not answer(question(what), context(tmp_path)).has_error()


def test_what_the_rule_lets_out_is_no_single_film(tmp_path: Path) -> None:
    """Twelve films in one step: no unit's quotient is one film more than another's mixture is.

    The likeness of the attack's result with its best film is no more than that of the films'
    plain mean, which whoever guesses an average film has as well.
    """
    what = from_text(ONE_STEP.replace("batch: 1,", "batch: 40,"))
    reply, sent = asked(tmp_path, what, **SHIPPED | {"max_norm": None})
    found = inverted(sent, bundle_of(reply.content)["model"])
    own = films(tmp_path, what)
    best = max(np.corrcoef(found, film)[0, 1] for film in own)
    guess = max(np.corrcoef(own.mean(0), film)[0, 1] for film in own)
    assert best <= guess + 0.02, (best, guess)


def test_new_kits_approve_no_experiment(tmp_path: Path) -> None:
    """Whoever fills in a kit says yes to each experiment by its digest."""
    from fedrad.deployment.kits.kit_templates import render_template

    about = {"federation": "f", "site": "nord", "named": "name: nord", "host": "h", "port": 1}
    about |= {"stream_port": None}
    text = render_template("site.yaml", {**about, "data": "", **POLICY})
    assert "\nexperiments: []\n" in text
    assert "\nmin_sites: 2\n" in text and "\nmin_patients: 10\n" in text


def test_the_fewest_patients_are_those_with_most_images(tmp_path: Path) -> None:
    """Six images of one patient and four of others: four steps of one image may be of one."""
    import made

    data = made.site("nord", 10)
    patient = data.patient.copy()
    patient[:6] = 107
    data = type(data)(data.site, data.x, data.y, patient, data.rows)
    for steps, patients in ((1, 1), (6, 1), (7, 2), (10, 5), (99, 5)):
        arm = made.experiment(local={"steps": steps, "batch": 1}).arm("fedavg")
        assert patients_behind(arm, data).patients == patients, steps
    assert patients_behind(made.experiment().arm("fedavg"), data).patients == 5
    one = made.experiment(local={"steps": 1, "batch": 1}).arm("fedavg")
    assert risk_of(one, data).startswith("an update is made of 1 of 5 patients at least (1 step")
    assert "pixel for pixel" in risk_of(one, data)


def test_weights_made_for_it_single_out_a_film_of_a_large_batch(tmp_path: Path) -> None:
    """A known limit: `min_patients` holds against honest weights, and epsilon alone against these.

    Fowl et al., "Robbing the Fed", ICLR 2022: every unit measures brightness against a threshold of
    its own; what lies between two thresholds is the difference of two units' gradients.
    """
    what = from_text(ONE_STEP.replace("batch: 1,", "batch: 40,").replace("[32]", "[128]"))
    own = films(tmp_path, what)
    sent = initial_state(what.arm("fedavg"), 0)
    first, last = [key for key in sent if key.endswith("weight")]
    bright = own.mean(1)
    thresholds = np.linspace(bright.min() - 0.01, bright.max() + 0.01, 128)
    crafted = {
        first: torch.full_like(sent[first], 1 / own.shape[1]),
        first.replace("weight", "bias"): torch.from_numpy(-thresholds).float(),
        last: torch.full_like(sent[last], 1e-3),
    }
    sent = {**sent, **crafted}
    message = question(what, send={"model": sent})
    reply = answering(hospital(tmp_path, **SHIPPED))(message, context(tmp_path))
    update = bundle_of(reply.content)["model"]
    change_w = (update[first] - sent[first]).numpy()
    change_b = (
        update[first.replace("weight", "bias")] - sent[first.replace("weight", "bias")]
    ).numpy()
    found = 0
    for one, other in zip(range(127), range(1, 128), strict=True):
        film, weight = change_w[one] - change_w[other], change_b[one] - change_b[other]
        if abs(weight) > 1e-7:
            likeness = max(np.corrcoef(film / weight, known)[0, 1] for known in own)
            found += likeness > 0.999
    assert found >= 5, found
