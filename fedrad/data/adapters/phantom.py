"""Generated chest films of several hospitals, to try everything without a patient.

A film is a body, two dark lungs between clavicles and diaphragm, ribs, spine and heart; a positive
one bears a soft blob in a lung. Hospitals differ in size, prevalence, exposure, noise and field of
view. No real image went into it, and nothing learned on it says anything about patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from fedrad.config import Task
from fedrad.core.seeds import seed as seed_of
from fedrad.data.adapters.anatomy import films
from fedrad.data.base import Records, hashes
from fedrad.data.fingerprint import fingerprints
from fedrad.data.splits import assign_splits
from fedrad.errors import ConfigError

__all__ = ["HOSPITALS", "Hospital", "phantom"]


@dataclass(frozen=True)
class Hospital:
    """The character of a hospital.

    Attributes:
        patients: how many.
        images_per_patient: each patient has from one to so many, all with the same findings.
        prevalence: share of patients with each finding.
        gamma: of the grey levels; below 1 brighter, above 1 darker.
        noise: standard deviation in each pixel, in units of the full grey range.
        field_of_view: width of the film in units of the usual; above 1 the thorax looks smaller.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)
    patients: int = 100
    images_per_patient: int = 2
    prevalence: float = 0.4
    gamma: float = 1.0
    noise: float = 0.03
    field_of_view: float = 1.0


HOSPITALS: Mapping[str, Hospital] = {
    "nord": Hospital(180, 2, prevalence=0.40, gamma=1.0, noise=0.02, field_of_view=1.0),
    "sued": Hospital(130, 2, prevalence=0.25, gamma=0.65, noise=0.04, field_of_view=1.15),
    "ost": Hospital(80, 3, prevalence=0.55, gamma=1.5, noise=0.03, field_of_view=0.88),
    "west": Hospital(110, 1, prevalence=0.35, gamma=0.85, noise=0.07, field_of_view=1.0),
}
"""The four that an experiment gets when it names none."""

FINDINGS = 3
MOST_HOSPITALS = 10_000
MOST_FILMS = 10_000_000
MOST_BYTES = 4_000_000_000


def phantom(
    task: Task,
    root: object = None,
    *,
    hospitals: int | dict[str, Hospital] = 4,
    val: float = 0.15,
    test: float = 0.25,
    seed: int = 0,
) -> Records:
    """Return generated chest films with sites and splits.

    Args:
        task: binary, or multilabel with up to three findings (a mass, a haze, a shadow at the base
            of the lung, in this order); input [1, h, w].
        root: not used; there is nothing to read.
        hospitals: the first so many of nord, sued, ost, west, then hospital-5 and on with drawn
            characters; or name -> `Hospital`. A hospital's films depend on its name, its character
            and the seed, not on the other hospitals.
        val: share of each hospital's patients for validation.
        test: share for testing.
        seed: of all draws.

    Returns:
        uint8 [n, 1, h, w], the hospitals one behind the other in the order given.

    Raises:
        ConfigError: the task is multiclass, or the hospitals' numbers do not fit.

    >>> task = Task(name="binary", labels=("lesion",), input=(1, 32, 32))
    >>> tiny = phantom(task, hospitals={"nord": Hospital(patients=10, images_per_patient=1)})
    >>> tiny.x.shape, tiny.y.sum().item(), sorted(set(tiny.split.tolist()))
    ((10, 1, 32, 32), 4.0, ['test', 'train', 'val'])
    """
    _check_task(task)
    named = _first(hospitals, seed) if isinstance(hospitals, int) else hospitals
    if not named:
        raise ConfigError("hospitals: needs at least one")
    named = {name: _checked(name, one) for name, one in named.items()}
    _check_size(named, task)
    parts = [_hospital(name, one, task, seed) for name, one in named.items()]
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    records = Records(
        x=columns["x"],
        y=columns["y"],
        patient=columns["patient"],
        site=columns["site"],
        split=None,
        pixels=fingerprints(columns["x"]),
        attributes={key: columns[key] for key in ("age", "sex", "view")},
    )
    return assign_splits(records, val=val, test=test, seed=seed)


def _check_task(task: Task) -> None:
    if task.name == "multiclass" or len(task.labels) > FINDINGS:
        raise ConfigError(
            f"data: phantom makes binary tasks, or multilabel ones with up to {FINDINGS} "
            f"findings; found {task.name} with {len(task.labels)}"
        )
    if len(task.input) != 3 or task.input[0] != 1:
        raise ConfigError(f"task.input: phantom makes [1, height, width]; found {list(task.input)}")


def _checked(name: str, hospital: Hospital) -> Hospital:
    fits = {
        "patients": hospital.patients >= 1,
        "images_per_patient": hospital.images_per_patient >= 1,
        "prevalence": 0 <= hospital.prevalence <= 1,
        "gamma": hospital.gamma > 0,
        "noise": hospital.noise >= 0,
        "field_of_view": hospital.field_of_view > 0,
    }
    for key, fit in fits.items():
        if not fit:
            raise ConfigError(f"hospitals.{name}.{key}: {getattr(hospital, key):g} does not fit")
    return hospital


def _check_size(hospitals: Mapping[str, Hospital], task: Task) -> None:
    """Refuse what no machine's memory would hold, before any of it is made."""
    films = sum(one.patients * one.images_per_patient for one in hospitals.values())
    size = films * prod(task.input)
    if films > MOST_FILMS or size > MOST_BYTES:
        raise ConfigError(
            f"data: phantom would make up to {films:,} films of {prod(task.input):,} bytes; "
            f"{MOST_FILMS:,} films and {MOST_BYTES:,} bytes are the most, since all of them are "
            "held in memory: take fewer hospitals or patients, or a smaller task.input"
        )


def _first(number: int, seed: int) -> dict[str, Hospital]:
    if number < 1:
        raise ConfigError(f"hospitals: needs at least one, found {number}")
    if number > MOST_HOSPITALS:
        raise ConfigError(
            f"hospitals: found {number:,}; {MOST_HOSPITALS:,} are the most, since the films of all "
            "of them are made and held in memory"
        )
    known = list(HOSPITALS)[:number]
    more = [f"hospital-{i}" for i in range(len(HOSPITALS) + 1, number + 1)]
    return {name: HOSPITALS[name] for name in known} | {n: _drawn(n, seed) for n in more}


def _drawn(name: str, seed: int) -> Hospital:
    rng = np.random.default_rng(seed_of(seed, name, 0, "character"))
    return Hospital(
        patients=int(rng.integers(50, 200)),
        images_per_patient=int(rng.integers(1, 4)),
        prevalence=float(rng.uniform(0.2, 0.6)),
        gamma=float(np.exp(rng.uniform(-0.4, 0.4))),
        noise=float(rng.uniform(0.02, 0.09)),
        field_of_view=float(rng.uniform(0.88, 1.15)),
    )


def _hospital(name: str, hospital: Hospital, task: Task, seed: int) -> dict[str, np.ndarray]:
    """Return one hospital's columns."""
    rng = np.random.default_rng(seed_of(seed, name, 0, "phantom"))
    number = hospital.patients
    findings = np.stack([_exactly(number, hospital.prevalence, rng) for _ in task.labels], axis=1)
    age = rng.normal(58, 16, number).clip(18, 95).round()
    sex = np.where(rng.random(number) < 0.5, "F", "M")
    of = np.repeat(np.arange(number), rng.integers(1, hospital.images_per_patient + 1, number))
    patient = hashes(f"{name} {i}" for i in range(number))
    _, height, width = task.input
    x = films(
        findings,
        of,
        size=(height, width),
        gamma=hospital.gamma,
        noise=hospital.noise,
        field_of_view=hospital.field_of_view,
        rng=rng,
    )
    return {
        "x": x[:, None],
        "y": findings[of].astype(np.float32),
        "patient": patient[of],
        "site": np.full(len(of), name),
        "age": age[of].astype(np.float32),
        "sex": sex[of],
        "view": np.full(len(of), "PA"),
    }


def _exactly(number: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return bool [number] with a share of them true, rounded, at random places."""
    return rng.permutation(number) < round(number * share)
