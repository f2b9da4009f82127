import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fedrad.config import Task
from fedrad.data import ADAPTERS
from fedrad.data.adapters import anatomy
from fedrad.data.adapters.phantom import HOSPITALS, Hospital, phantom
from fedrad.data.base import SPLITS, sites_of
from fedrad.data.checks.overlap import check_overlap
from fedrad.errors import ConfigError
from fedrad.registry import build

TASK = Task(name="binary", labels=("lesion",), input=(1, 32, 32))
FINDINGS = Task(name="multilabel", labels=("mass", "haze", "base"), input=(1, 32, 32))


def test_the_same_seed_makes_the_same_films_and_another_seed_others() -> None:
    """An experiment's text fixes its data."""
    one, again, other = (phantom(TASK, hospitals=2, seed=seed) for seed in (1, 1, 2))
    assert (one.x == again.x).all() and (one.split == again.split).all()
    assert not np.isin(other.pixels, one.pixels).any()


def test_a_hospital_that_joins_changes_nothing_at_the_others() -> None:
    """Films, labels and splits of nord are the same among two and among six."""
    few, many = phantom(TASK, hospitals=2), phantom(TASK, hospitals=6)
    for name in ("x", "y", "patient", "split"):
        mine = [getattr(found, name)[found.site == "sued"] for found in (few, many)]
        np.testing.assert_array_equal(*mine)
    assert len(set(many.site)) == 6


def test_the_films_pass_the_leak_gate_and_every_split_has_both_labels() -> None:
    """Also at the smallest hospital."""
    found = phantom(TASK)
    check_overlap(found)
    for site in sites_of(found).values():
        for split in SPLITS:
            assert set(found.y[site.rows[split], 0]) == {0, 1}


def test_a_hospitals_numbers_are_those_asked_for() -> None:
    """Of 40 patients, 0.3 are 12; one to three films each, all with the patient's label."""
    only = {"a": Hospital(patients=40, images_per_patient=3, prevalence=0.3)}
    found = phantom(TASK, hospitals=only, val=0.2, test=0.3)
    patients, films = np.unique(found.patient, return_counts=True)
    assert len(patients) == 40 and set(films) == {1, 2, 3}
    labels = [set(found.y[found.patient == patient, 0]) for patient in patients]
    assert sum(label == {1} for label in labels) == 12 and max(map(len, labels)) == 1
    held = {split: len(np.unique(found.patient[found.split == split])) for split in SPLITS}
    assert held == {"train": 20, "val": 8, "test": 12}


def test_hospitals_differ_as_their_characters_say() -> None:
    """Same name, same anatomy: gamma darkens, noise roughens, a wide field shrinks."""

    def films(**character):
        plain = {"patients": 40, "images_per_patient": 1, "noise": 0.0} | character
        return phantom(TASK, hospitals={"a": Hospital(**plain)}).x[:, 0].astype(float) / 255

    plain = films()
    np.testing.assert_allclose(films(gamma=2.0), plain**2, atol=0.01)
    middle = (plain > 0.3) & (plain < 0.7)
    assert (films(noise=0.05) - plain)[middle].std() == pytest.approx(0.05, rel=0.05)
    dark = [(films(field_of_view=field) < 0.1).mean() for field in (0.9, 1.0, 1.2)]
    assert dark[0] < dark[1] < dark[2]


def test_a_lesion_adds_brightness_inside_a_lung_and_nowhere_else() -> None:
    """Positives and negatives differ by a blob within the thorax; corners differ by chance only."""
    found = phantom(TASK, hospitals={"a": Hospital(600, 1, 0.5, noise=0.0)})
    x, sick = found.x[:, 0].astype(float), found.y[:, 0] == 1
    gap = x[sick].mean(0) - x[~sick].mean(0)
    assert gap[8:24, 5:27].max() > 8
    assert np.abs(gap[[0, 0, -1, -1], [0, -1, 0, -1]]).max() < 5


def test_a_linear_model_learns_the_lesion_but_not_perfectly() -> None:
    """Neither impossible nor trivial. Single pixels, by contrast, say little."""
    found = phantom(TASK, hospitals={"nord": Hospital(600, 1, 0.4, noise=0.02)}, val=0.0, test=0.4)
    small = found.x[:, 0].reshape(-1, 16, 2, 16, 2).mean((2, 4)).reshape(-1, 256) / 255
    train, truth = found.split == "train", found.y[:, 0]
    model = LogisticRegression(C=1.0, max_iter=2000).fit(small[train], truth[train])
    auroc = roc_auc_score(truth[~train], model.decision_function(small[~train]))
    assert 0.65 < auroc < 0.97
    brightness = roc_auc_score(truth, found.x.mean((1, 2, 3)))
    assert brightness < 0.75


def test_each_finding_of_a_multilabel_task_has_its_own_shadow() -> None:
    """Three findings, drawn independently, each brighter where it is than where it is not."""
    found = phantom(FINDINGS, hospitals={"a": Hospital(500, 1, 0.4, noise=0.0)})
    assert found.y.shape == (500, 3) and np.abs(np.corrcoef(found.y.T) - np.eye(3)).max() < 0.2
    base = found.x[:, 0, 16:23, 5:27].astype(float).mean((1, 2))
    sick = found.y[:, 2] == 1
    assert base[sick].mean() > base[~sick].mean() + 2


def test_films_are_drawn_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start must not wait for its data: 1,000 films in 16 strokes, not in 1,000."""
    strokes, plain = [], anatomy._thorax

    def counted(u: np.ndarray, *more: object) -> np.ndarray:
        strokes.append(len(u))
        return plain(u, *more)

    monkeypatch.setattr(anatomy, "_thorax", counted)
    big = Task(name="binary", labels=("lesion",), input=(1, 64, 64))
    phantom(big, hospitals={name: Hospital(250, 1) for name in HOSPITALS})
    assert sum(strokes) == 1000 and len(strokes) == 4 * 4


def test_hospitals_are_read_from_yaml() -> None:
    """A mapping of a mapping becomes a Hospital, and a typing error is told."""
    spec = {"name": "phantom", "hospitals": {"a": {"patients": 8, "gamma": 1.2}}}
    assert set(build(ADAPTERS, spec, TASK, None, where="data").site) == {"a"}
    with pytest.raises(ConfigError, match="gama"):
        build(ADAPTERS, spec | {"hospitals": {"a": {"gama": 1}}}, TASK, None, where="data")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (Task(name="multiclass", labels=("a", "b"), input=(1, 8, 8)), {}, "phantom makes binary"),
        (Task(name="binary", labels=("a",), input=(3, 8, 8)), {}, r"makes \[1, height, width\]"),
        (TASK, {"hospitals": 0}, "needs at least one"),
        (TASK, {"hospitals": {}}, "needs at least one"),
        (
            TASK,
            {"hospitals": {"a": Hospital(prevalence=1.5)}},
            "hospitals.a.prevalence: 1.5 does not fit",
        ),
    ],
)
def test_what_does_not_fit_is_refused(task, options, message) -> None:
    """Each message once."""
    with pytest.raises(ConfigError, match=message):
        phantom(task, **options)
