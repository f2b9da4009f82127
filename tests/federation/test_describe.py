"""What a site tells before round 1 is enough for the same plan, and for nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made import experiment, federation

from fedrad.config import Task
from fedrad.core.state import Bundle
from fedrad.data.sites import Federation
from fedrad.errors import SiteFailedError
from fedrad.report.plan import plan_of
from fedrad.report.results import _partition
from fedrad.rounds.records import bundle_of, config_of, numbers_of, pack
from fedrad.rounds.site_summary import keyed, site_from_summary, site_summary

CPU = torch.device("cpu")


def test_the_plan_made_from_descriptions_is_the_plan_made_from_the_data() -> None:
    """Counts of images, patients and labels in every split are all that a plan reads."""
    what, known = experiment(), federation()
    told = {
        name: site_from_summary(site_summary(data, what.task, CPU, digest=""), what.task)
        for name, data in known.sites.items()
    }
    stand_in = Federation(told, (), counted=True)
    assert plan_of(what, stand_in) == plan_of(what, known)


def test_a_stand_in_holds_no_image_and_no_row() -> None:
    """A record of rows would be made up; of hospitals' there is no line."""
    what = experiment()
    data = site_from_summary(
        site_summary(federation().sites["nord"], what.task, CPU, digest=""), what.task
    )
    assert data.x.strides == (0,) * data.x.ndim and not data.x.flags.writeable
    assert _partition(Federation({"nord": data}, (), counted=True)) == "site,split,row\n"


def spoilt(**changes: float | torch.Tensor) -> tuple[Bundle, dict[str, float], dict[str, str]]:
    """A description with some numbers or labels replaced."""
    content = site_summary(federation().sites["nord"], experiment().task, CPU, digest="")
    arrays, numbers = bundle_of(content), numbers_of(content)
    for name, value in changes.items():
        if isinstance(value, torch.Tensor):
            arrays["labels"][name] = value
        else:
            numbers[name.replace("_", "-")] = value
    return arrays, numbers, config_of(content)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patients_train": 10**9}, "tells 1000000000 patients"),
        ({"train": torch.zeros(2, 3, dtype=torch.int64)}, "do not fit task.labels"),
        ({"val": torch.tensor([[-1, 1, 0]])}, "do not fit task.labels"),
    ],
)
def test_a_description_that_does_not_fit_names_the_site(changes: dict, says: str) -> None:
    with pytest.raises(SiteFailedError, match=f"nord.*{says}"):
        site_from_summary(pack(*spoilt(**changes)), experiment().task)


def test_labels_that_were_not_read_stay_unread() -> None:
    """nan is a third answer beside yes and no."""
    known = federation().sites["nord"]
    known.y[known.rows["val"][:3]] = np.nan
    task = experiment().task
    told = site_from_summary(site_summary(known, task, CPU, digest=""), task)
    assert np.isnan(told.y[told.rows["val"]]).sum() == 3


def test_of_private_training_data_only_rounded_counts_are_told() -> None:
    """Another patient more or less must not show; validation and test sets are told as they are."""
    task, known = experiment().task, federation().sites["nord"]
    fewer = replace(known, rows=dict(known.rows) | {"train": known.rows["train"][:-1]})
    one, other = (site_summary(data, task, CPU, digest="", private=True) for data in (known, fewer))
    assert numbers_of(one) == numbers_of(other)
    told = site_from_summary(one, task)
    assert told.images("train") == 40 and told.images("test") == known.images("test")


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_no_label_of_private_training_data_is_told(kind: str) -> None:
    """Rounded counts would tell no positive from one; all descriptions are alike to the bit."""
    labels = ("lesion",) if kind == "binary" else ("none", "mild", "severe")
    task, known = Task(name=kind, labels=labels, input=(1, 8, 8)), federation().sites["nord"]
    told = []
    for positives in (0, 1, 20):
        y = np.zeros_like(known.y)
        y[known.rows["train"][:positives]] = 1
        one = site_summary(replace(known, y=y), task, CPU, digest="", private=True)
        told.append(bundle_of(one)["labels"]["train"])
        assert np.isnan(site_from_summary(one, task).y[: told[-1].sum()]).all()
    assert torch.equal(told[0], told[1]) and torch.equal(told[0], told[2])


@pytest.mark.parametrize("positives", [1, 4, 5])
def test_labels_of_few_patients_are_not_counted_to_others(positives: int) -> None:
    """Four patients with a finding look like one; five, the policy's `min_cell`, are told."""
    task, known = experiment().task, federation().sites["nord"]
    rows, y = known.rows["test"], np.zeros_like(known.y)
    _, first = np.unique(known.patient[rows], return_index=True)
    y[rows[first[:positives]]] = 1
    data = replace(known, y=y)
    told = bundle_of(site_summary(data, task, CPU, digest="", min_cell=5))["labels"]["test"]
    if positives < 5:
        assert told.tolist() == [[0, 0, len(rows)]]
    else:
        assert told.tolist() == [[len(rows) - 5, 5, 0]]


def test_a_digest_under_a_key_cannot_be_tried_out_and_still_changes_with_the_data() -> None:
    assert keyed("a", b"key") != keyed("b", b"key") != keyed("b", b"other")
