"""DP-SGD in the one training loop: its limits, its units, and what it refuses."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from calls import site_data, task_of

from fedrad.algorithms.base import fitted_numbers
from fedrad.algorithms.fedprox import proximal
from fedrad.core.state import State
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError, PrivacyError
from fedrad.privacy.account import Charge, Simulated, fresh_key
from fedrad.privacy.dp_sgd import Plan, rounded
from fedrad.training.dp.dp_sgd import Private, data_digest, samples, units_of
from fedrad.training.local import LocalTask

ALL = 1e20  # a clip that clips nothing


def planned(**changes: object) -> Plan:
    """All 20 images in every step, no noise, no clip."""
    options: dict = {
        "unit": "patient", "clip": ALL, "noise": 0.0, "rate": 1.0, "images": 20.0, "steps": 3,
        "rounds": 2, "delta": 1e-5, "epsilon": float("inf"), "rdp": float("inf"),
        "accountant": "prv", "units": 1, "physical": 64,
    }  # fmt: skip
    return Plan(**options | changes)


def site(images: int = 20, *, each: int = 1) -> SiteData:
    """A site whose patients have some images each."""
    data = site_data("nord", images)
    return replace(data, patient=np.arange(len(data.x), dtype=np.uint64) // each)


def local(data: SiteData | None = None, account: object = None, **changes: object) -> LocalTask:
    """Three steps of all images, momentum, in double so that equal means equal."""
    private = Private(planned(**changes), account or Simulated(), "made", "digest")
    task = task_of(data or site(), batch=20, steps=3, epochs=None, private=private,
        optimizer={"name": "sgd", "lr": 0.5, "momentum": 0.9})  # fmt: skip
    return task


def change(task: LocalTask, round: int = 1, **options: object) -> torch.Tensor:
    """What a round adds to the weights, as one vector."""
    start = task.initial()
    after = task.fit(start, round=round, **options).state
    return torch.cat([(after[k] - start[k]).flatten() for k in start])


@pytest.mark.parametrize("each", [1, 4])
@pytest.mark.parametrize("physical", [64, 7, 3])
def test_without_noise_and_clip_it_is_plain_sgd(each: int, physical: int) -> None:
    """Whatever the images of a patient, and however few images fit into memory at once."""
    data = site(each=each)
    plain = change(replace(local(data), private=None))
    private = change(local(data, physical=physical))
    torch.testing.assert_close(private, plain, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changed", [{"noise": 1.0, "clip": 1.0}, {"clip": 0.01}])
def test_with_noise_or_clip_it_is_not(changed: dict[str, float]) -> None:
    """The limit case must be able to fail."""
    assert not torch.allclose(change(local(**changed)), change(local()), atol=1e-3)


def test_a_patient_with_many_films_counts_once() -> None:
    """One step of 20 films of one patient is at most one clip; of 20 patients it is more."""
    one_step: dict = {"steps": 1, "optimizer": {"name": "sgd", "lr": 1.0}}
    lengths = [
        change(replace(local(site(each=each), clip=0.1), **one_step)).norm().item()
        for each in (20, 1)
    ]
    assert lengths[0] == pytest.approx(0.1 / 20, rel=1e-4) and lengths[1] > 2 * lengths[0]
    images = replace(local(site(each=20), clip=0.1, unit="image"), **one_step)
    assert change(images).norm().item() == pytest.approx(lengths[1])


def test_one_patient_more_moves_the_sum_by_one_clip_at_most() -> None:
    """The claim that epsilon rests on: gradients times images, with and without a patient."""
    data = site(each=4)
    fewer = replace(data, rows={**data.rows, "train": data.rows["train"][4:]})
    one_step: dict = {"steps": 1, "optimizer": {"name": "sgd", "lr": 20.0}}
    with_them, without = (change(replace(local(d, clip=0.05), **one_step)) for d in (data, fewer))
    moved = (with_them - without).norm().item()
    assert 0.04 < moved <= 0.05 * (1 + 1e-3)


def test_noise_is_normal_with_the_stated_spread() -> None:
    """Clipped away, gradients leave only noise: lr * noise * clip / images a step."""
    task = replace(local(clip=1e-9, noise=2e9), steps=1, optimizer={"name": "sgd", "lr": 20.0})
    drawn = torch.cat([change(task, round=n) for n in range(1, 101)])
    assert len(drawn) == 2900
    # the mean's and the spread's standard errors are 2 / sqrt(2900) and 2 / sqrt(5800)
    assert abs(drawn.mean()) < 4 * 2 / 2900**0.5 and abs(drawn.std() - 2) < 4 * 2 / 5800**0.5


def test_a_simulation_repeats_its_noise_and_a_hospital_never_does() -> None:
    """A run's seed is known to the coordinator, who must not be able to take the noise off."""

    class Hospital(Simulated):
        def key(self, seed: int) -> bytes:
            return fresh_key()

    noisy = {"noise": 1.0, "clip": 1.0}
    assert torch.equal(change(local(**noisy)), change(local(**noisy)))
    assert not torch.equal(change(local(**noisy)), change(local(**noisy), round=2))
    hospital = local(account=Hospital(), **noisy)
    assert not torch.equal(change(hospital), change(hospital))


def test_each_patient_is_drawn_with_the_rate_and_all_images_with_it() -> None:
    """Poisson sampling: numbers differ from step to step, also down to none."""
    units = np.repeat(np.arange(10), 2)
    steps = list(samples(units, rate=0.1, steps=400, physical=64, key=bytes(32)))
    drawn = [np.concatenate([s.places for s in step]) if step else np.array([]) for step in steps]
    for places in drawn:
        assert sorted(places) == sorted(p for p in range(20) if p // 2 in {q // 2 for q in places})
    counts = np.array([len(places) // 2 for places in drawn])
    # of 10 patients each with 0.1: mean 1, variance 0.9, none in 0.9^10 = 35 %
    assert abs(counts.mean() - 1) < 4 * (0.9 / 400) ** 0.5 and abs(counts.var() - 0.9) < 0.3
    assert 0.25 < (counts == 0).mean() < 0.45


def test_physical_batches_hold_whole_patients_and_change_only_rounding() -> None:
    """A patient that was split over two would be clipped twice."""
    units = np.repeat(np.arange(6), [1, 5, 2, 2, 9, 1])
    for step in samples(units, rate=1.0, steps=1, physical=5, key=bytes(32)):
        groups = [set(units[s.places]) for s in step]
        assert [len(s.places) for s in step] == [1, 5, 4, 9, 1]
        assert sum(map(len, groups)) == 6 == len(set.union(*groups))
    data, noisy = site(each=5), {"noise": 1.0, "clip": 0.1}
    torch.testing.assert_close(
        change(local(data, physical=64, **noisy)), change(local(data, physical=3, **noisy)),
        atol=1e-6, rtol=1e-4,
    )  # fmt: skip


def test_an_empty_sample_still_takes_a_noised_step() -> None:
    """Else the weights would tell that nobody was drawn."""
    task = local(rate=1e-9, noise=1.0, clip=1.0)
    fitted = task.fit(task.initial(), round=1)
    assert fitted.steps == 3 and change(task).abs().min() > 0


def test_a_penalty_is_added_without_noise_and_zero_changes_no_bit() -> None:
    """FedProx looks at the weights only, so it needs no noise; mu = 0 is FedAvg."""
    noisy: dict = {"noise": 1.0, "clip": 1.0}

    def pull(mu: float):
        return lambda now, start: proximal(now, start, mu=mu)

    plain = change(local(**noisy))
    assert torch.equal(change(local(**noisy), penalty=pull(0.0)), plain)
    assert change(local(**noisy), penalty=pull(1.0)).norm() < plain.norm()


def test_a_correction_is_refused_with_the_reason() -> None:
    """SCAFFOLD and DP-SGD do not go together."""
    task = local()
    with pytest.raises(ConfigError, match=r"SCAFFOLD.*noise of one round would be added to every"):
        task.fit(task.initial(), round=1, correction=task.initial())


def test_no_exact_count_and_no_loss_leave_the_site() -> None:
    """Counts go to the nearest ten; one patient's loss can be read off a sum that is exact."""
    task = local(site(23))
    numbers = fitted_numbers(task.fit(task.initial(), round=1))
    assert numbers == {"num-examples": 20.0, "steps": 3.0}
    assert [rounded(n) for n in (0, 1, 14, 15, 26)] == [0, 10, 10, 20, 30]
    with pytest.raises(ConfigError, match="counts of labels do not leave a site"):
        task.label_counts()


def test_the_account_is_asked_before_the_data_are_touched() -> None:
    """A crash, or a refusal, then costs privacy on paper only."""
    charges: list[Charge] = []

    class Refusing(Simulated):
        def spend(self, charge: Charge) -> None:
            charges.append(charge)
            raise PrivacyError("no")

    def read(*_: object) -> Iterator[None]:
        raise AssertionError("an image was read")

    task = local(account=Refusing(), noise=1.0)
    task.__dict__["_read"] = read
    start: State = task.initial()
    with pytest.raises(PrivacyError):
        task.fit(start, round=7)
    assert [(c.round, c.mechanism, c.unit, c.use.steps) for c in charges] == [
        (7, "dp_sgd", "patient", 3)
    ]
    assert charges[0].data == data_digest(task.data)


def test_another_patient_makes_another_data_set() -> None:
    """And another image of the same patient, too; the order of rows does not."""
    one, other = site(each=2), site(each=4)
    shuffled = replace(one, rows={**one.rows, "train": one.rows["train"][::-1]})
    assert data_digest(one) == data_digest(shuffled) != data_digest(other)
    assert units_of(one, "patient").max() + 1 == 10 and len(set(units_of(one, "image"))) == 20
