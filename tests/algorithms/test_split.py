"""Split learning is the uncut training, bit for bit, wherever the two ought to be the same."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from calls import Calls, play_rounds, run_rounds

from fedrad.algorithms.base import PERSONAL, Algorithm
from fedrad.algorithms.fedavg import fedavg
from fedrad.algorithms.local import local
from fedrad.algorithms.split.server import evaluate_with
from fedrad.algorithms.split.splitfed import splitfed
from fedrad.algorithms.split.splitnn import splitnn
from fedrad.config import Task
from fedrad.core.state import Mean, State, clone, is_bit_identical
from fedrad.core.wire import decode, encode
from fedrad.data.base import SiteData
from fedrad.errors import ConfigError, TrainingDivergedError
from fedrad.metrics.ranking import auroc
from fedrad.models import MODELS
from fedrad.models.cut import legal_cuts, merged_parts, parts
from fedrad.training.batches import model_input
from fedrad.training.local import LocalTask
from fedrad.training.nopeek import sample_distance_correlation

TASK = Task(name="binary", labels=("lesion",), input=(1, 16, 16))
WIDTH = {"width": 4}
CUTS = legal_cuts(MODELS["cnn"](TASK, **WIDTH), inner=True)[:-1]  # one layer is left for the server
SHAPES = ("u", "labels_at_server")
PLAIN = {"name": "sgd", "lr": 0.1}
MOMENTUM = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def images(name: str, count: int) -> SiteData:
    """A site with so many training images of noise; in those with a lesion it is brighter."""
    rng = np.random.default_rng([*name.encode()])
    y = rng.integers(0, 2, (3 * count, 1)).astype(np.float32)
    x = rng.integers(0, 128, (3 * count, 1, 16, 16)) + 60 * y[:, :, None, None]
    rows = dict(zip(("train", "val", "test"), np.arange(3 * count).reshape(3, -1), strict=True))
    return SiteData(name, x.astype(np.uint8), y, np.arange(3 * count, dtype=np.uint64), rows)


def task_of(data: SiteData, **changes: Any) -> LocalTask:
    """A site's task: an epoch of batches of four, the last one smaller."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = MODELS["cnn"](TASK, **WIDTH)
    start = clone(model.state_dict())
    options: dict = {"optimizer": MOMENTUM, "batch": 4, "epochs": 1} | changes
    return LocalTask(
        site=data.site, seed=0, task=TASK, data=data, model=model,
        initial=lambda: start, metrics=(auroc(TASK),), **options,
    )  # fmt: skip


SITES = [images("nord", 11), images("ost", 6), images("sued", 9)]


def tasks(**changes: Any) -> dict[str, LocalTask]:
    return {data.site: task_of(data, **changes) for data in SITES}


def alone(**changes: Any) -> dict[str, LocalTask]:
    return {"nord": task_of(SITES[0], **changes)}


def trained_alone(rounds: int, **changes: Any) -> State:
    """The whole network after a site's own training: no cut, no mean."""
    return run_rounds(local(), alone(**changes), rounds)[1]["nord"][PERSONAL]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", CUTS)
def test_split_is_uncut_bit_for_bit_at_one_site_for_any_cut(cut: str, shape: Any) -> None:
    """One-site splitnn is centralized training: the same operations, on two sides of a cut."""
    state, _ = run_rounds(splitnn(cut=cut, shape=shape), alone(), rounds=2)
    assert is_bit_identical(state, {"model": trained_alone(2)})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alternate", ["client", "minibatch"])
@pytest.mark.parametrize(
    "changes",
    [
        {"clip": 0.05},
        {"clip": 0.05, "optimizer": {"name": "adam", "lr": 0.01}},
        {"optimizer": {"name": "adamw", "lr": 0.01}},
        {"weights": torch.tensor([[0.5, 2.0]])},
        {"epochs": None, "steps": 5},
    ],
    ids=["clip", "clip-adam", "adamw", "weights", "steps"],
)
def test_split_is_uncut_with_every_option_of_training(
    changes: dict, alternate: Any, shape: Any
) -> None:
    """Clipping sees the whole gradient, class weights the labels, wherever they are."""
    algorithm = splitnn(cut="layer1", shape=shape, alternate=alternate)
    state, _ = run_rounds(algorithm, alone(**changes), rounds=2)
    assert is_bit_identical(state, {"model": trained_alone(2, **changes)})


def test_the_clipping_of_the_test_above_bites() -> None:
    assert not is_bit_identical({"m": trained_alone(1)}, {"m": trained_alone(1, clip=0.05)})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cut", CUTS)
def test_splitfed_1_is_fedavg_bit_for_bit_at_unequal_sites_for_any_cut(
    cut: str, shape: Any
) -> None:
    """Each site with a server part of its own trains the whole network; then all is averaged."""
    ours, _ = run_rounds(splitfed(cut=cut, shape=shape), tasks(clip=0.5), rounds=2)
    whole, _ = run_rounds(fedavg(), tasks(clip=0.5), rounds=2)
    assert is_bit_identical(ours, whole)


def test_splitfed_2_is_neither_fedavg_nor_independent_of_the_order() -> None:
    """Its server part meets the sites one after another, in an order that is recorded."""
    sites = tasks(optimizer=PLAIN)
    ours, calls = play_rounds(splitfed(cut="layer1", version=2), sites, rounds=1)
    whole, _ = run_rounds(fedavg(), sites, rounds=1)
    assert not is_bit_identical(ours, whole)
    order = calls.notes["order"]
    assert sorted(order) == ["nord", "ost", "sued"]
    assert is_bit_identical(ours, {"model": replayed(order)})
    assert not is_bit_identical(ours, {"model": replayed(order[::-1])})


def replayed(order: list[str]) -> State:
    """Version 2 in one place: whole networks, fitted in an order.

    Without momentum, because each of these fits has an optimiser of its own.
    """
    sites = tasks(optimizer=PLAIN)
    start = sites["nord"].initial()
    split = parts(sites["nord"].model, "layer1", "head.2")
    body = {name: start[name] for name in split.body.state_dict()}
    own = {}
    for site in order:
        fitted = sites[site].fit(merged_parts(start, start, body), round=1).state
        body = {name: fitted[name] for name in body}
        own[site] = {name: v for name, v in fitted.items() if name not in body}
    mean = Mean()
    for site in sorted(own):
        mean.add({"own": own[site]}, sites[site].examples)
    return merged_parts(start, body, mean.value()["own"])


@pytest.mark.parametrize("alternate", ["client", "minibatch"])
def test_splitnn_visits_the_sites_in_the_recorded_order(alternate: Any) -> None:
    """A permutation of the same sites under other names gives another model."""
    _, calls = play_rounds(splitnn(cut="layer1", alternate=alternate), tasks(), rounds=1)
    visited = [place.split()[0] for place, frame in calls.frames if frame.kind == "forward"]
    assert list(dict.fromkeys(visited)) == calls.notes["order"]
    # By visit a site stays until it is done; by batch the first three batches are of three sites.
    assert len(set(visited[:3])) == (1 if alternate == "client" else 3)


def test_the_order_is_drawn_anew_in_every_round() -> None:
    calls = Calls(splitnn(cut="layer1"), tasks(), rounds=6)
    state = calls.algorithm.init(next(iter(calls.tasks.values())).initial())
    orders = set()
    for number in range(1, 7):
        calls.number = number
        calls.algorithm.round(state, number, calls)
        orders.add(tuple(calls.notes["order"]))
    assert len(orders) > 1


U_NAMES = {
    "forward": {"activations", "shrink"},
    "features": {"features"},
    "backward": {"gradients"},
    "gradients": {"gradients", "norms"},
    "settle": {"shrink"},
    "settled": set(),
}


@pytest.mark.parametrize(
    "algorithm",
    [splitnn(cut="layer1"), *(splitfed(cut="layer1", version=v) for v in (1, 2, 3))],
    ids=["splitnn", "v1", "v2", "v3"],
)
def test_neither_labels_nor_scores_nor_the_tail_are_in_a_frame_of_the_u(
    algorithm: Algorithm,
) -> None:
    """Every frame is read: only what crosses the two cuts is in it, and a number for clipping.

    Batches of three leave no batch of one image, whose features look like the tail's weights.
    """
    sites = tasks(clip=0.05, batch=3)
    _, calls = play_rounds(algorithm, sites, rounds=1)
    assert {frame.kind for _, frame in calls.frames} == set(U_NAMES)
    tail = [tuple(v.shape) for v in parts(net(), "layer1", "head.2").tail.state_dict().values()]
    for _, frame in calls.frames:
        assert set(frame.arrays) <= U_NAMES[frame.kind] and not frame.numbers
        for name, value in frame.arrays.items():
            if name in ("shrink", "norms"):
                continue
            # Labels and logits are [n, 1], the tail's weights [1, 32] and [1].
            assert value.dim() in (2, 4) and tuple(value.shape[1:]) != (1,)
            assert tuple(value.shape) not in tail


def net() -> torch.nn.Module:
    return MODELS["cnn"](TASK, **WIDTH)


def test_with_labels_at_the_server_the_frames_carry_them_and_no_scores() -> None:
    _, calls = play_rounds(splitfed(cut="layer1", shape="labels_at_server"), alone(), rounds=1)
    kinds = {frame.kind: set(frame.arrays) for _, frame in calls.frames}
    assert kinds["forward"] == {"activations", "labels"}
    assert kinds["gradients"] == {"gradients", "loss"}


def test_private_fronts_stay_where_they_are_and_differ_from_site_to_site() -> None:
    """Version 3: a reply has no arrays, an opening message has none, each memory has its own."""
    algorithm = splitfed(cut="layer1", version=3)
    state, calls = play_rounds(algorithm, tasks(), rounds=2)
    assert all(stream.keys() == {PERSONAL} for stream in calls.memories.values())
    own = [memory[PERSONAL] for memory in calls.memories.values()]
    assert not is_bit_identical({"m": own[0]}, {"m": own[1]})
    start = tasks()["nord"].initial()
    assert all(torch.equal(state["model"][name], start[name]) for name in own[0])
    body = state["model"].keys() - own[0].keys()
    assert body and not any(torch.equal(state["model"][name], start[name]) for name in body)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_over_streams_is_that_of_the_whole_model(shape: Any) -> None:
    """The same sums, bit for bit, and no image among the frames."""
    algorithm = splitfed(cut="layer1", shape=shape)
    state, _ = run_rounds(algorithm, tasks(), rounds=1)
    calls = Calls(algorithm, tasks(), rounds=1, number=2)
    assert algorithm.cut
    for site, reply in evaluate_with(algorithm.cut, state["model"], calls, "test"):
        task = tasks()[site]
        whole = task.tell(task.predict(state["model"], split="test"), split="test")
        assert is_bit_identical(reply.arrays, {"result": whole.as_state()})
        assert reply.numbers["num-examples"] == len(
            SITES[("nord", "ost", "sued").index(site)].rows["test"]
        )
    assert {frame.kind for _, frame in calls.frames} == {"forward", "features"}
    assert not any(tuple(f.arrays.get("activations", torch.empty(0)).shape[1:]) == TASK.input
                   for _, f in calls.frames)  # fmt: skip


@pytest.mark.parametrize(("precision", "dtype"), [("float16", torch.float16), ("int8", torch.int8)])
def test_a_narrow_wire_carries_narrow_numbers_within_their_error(
    precision: Any, dtype: torch.dtype
) -> None:
    """The first activations of both runs come from the same front, so they are comparable."""
    narrow = splitfed(cut="layer1", activations=precision, gradients=precision)
    changed, calls = play_rounds(narrow, alone(), rounds=1)
    exact, wide = play_rounds(splitfed(cut="layer1"), alone(), rounds=1)
    assert not is_bit_identical(changed, exact)
    sent, full = calls.frames[0][1].arrays, wide.frames[0][1].arrays["activations"]
    assert sent["activations"].dtype is dtype
    limit = full.abs().amax((0, 2, 3), keepdim=True) / 253.9 + full.abs() * (
        dtype is not torch.int8
    )
    assert ((decode("activations", sent) - full).abs() <= limit + 2**-25).all()
    assert torch.equal(decode("activations", encode("activations", full, precision)),
                       decode("activations", sent))  # fmt: skip
    for _, frame in calls.frames:
        for name in ("activations", "features", "gradients"):
            assert name not in frame.arrays or frame.arrays[name].dtype is dtype


def test_nopeek_adds_the_penalty_s_gradient_to_the_front_s() -> None:
    """One step of plain SGD from a network with the penalty in its loss, uncut."""
    changes: dict = {"optimizer": {"name": "sgd", "lr": 0.1}, "batch": 16}
    state, _ = run_rounds(splitnn(cut="layer1", nopeek=0.7), alone(**changes), rounds=1)
    task = alone(**changes)["nord"]
    task.model.load_state_dict(task.initial())
    split = parts(task.model, "layer1")
    x, y = next(task.batches(1, 1))
    z = split.front(x)
    goal = task.objective.loss(split.body(z), y) + 0.7 * sample_distance_correlation(x, z)
    named = dict(task.model.named_parameters())
    grads = torch.autograd.grad(goal, list(named.values()))
    for (name, p), grad in zip(named.items(), grads, strict=True):
        torch.testing.assert_close(state["model"][name], p - 0.1 * grad, atol=1e-6, rtol=0)
    plain, _ = run_rounds(splitnn(cut="layer1"), alone(**changes), rounds=1)
    assert not is_bit_identical(plain, state)


def test_noise_is_added_to_what_is_sent_and_is_the_same_in_every_run() -> None:
    noisy, plain = splitfed(cut="layer1", noise=0.5), splitfed(cut="layer1")
    _, first = play_rounds(noisy, alone(batch=11), rounds=1)
    _, again = play_rounds(noisy, alone(batch=11), rounds=1)
    _, without = play_rounds(plain, alone(batch=11), rounds=1)
    sent, same_sent, bare = (c.frames[0][1].arrays["activations"] for c in (first, again, without))
    assert torch.equal(sent, same_sent)
    added = sent - bare
    # 11 x 8 x 4 x 4 = 1408 draws: the standard error of their deviation is 0.5 / sqrt(2 * 1408).
    assert abs(added.std().item() - 0.5) < 4 * 0.5 / (2 * added.numel()) ** 0.5


def test_a_site_that_diverges_says_so() -> None:
    changes: dict = {"optimizer": {"name": "sgd", "lr": 1e30}}
    with pytest.raises(
        TrainingDivergedError, match="nord: the loss or a weight is no finite number"
    ):
        run_rounds(splitfed(cut="layer1"), alone(**changes), rounds=1)


def test_a_site_without_images_opens_a_stream_and_sends_nothing() -> None:
    empty = replace(images("leer", 2), rows={**images("leer", 2).rows, "train": np.arange(0)})
    sites = {**tasks(), "leer": task_of(empty)}
    _, calls = play_rounds(splitfed(cut="layer1"), sites, rounds=1)
    assert not any(place.startswith("leer") for place, _ in calls.frames)


def test_a_tail_is_refused_where_the_network_ends_at_the_server() -> None:
    plan = splitnn(cut="layer1", tail="head", shape="labels_at_server").cut
    assert plan
    with pytest.raises(ConfigError, match=r"algorithm\.tail: with shape: labels_at_server"):
        plan.check(net())


def test_the_model_input_of_a_front_is_an_image() -> None:
    """What `forward` carries is the front's output of it, and nothing of smaller depth."""
    _, calls = play_rounds(splitfed(cut="layer1"), alone(batch=11), rounds=1)
    front = parts(net(), "layer1").front
    x = model_input(torch.from_numpy(SITES[0].x[:11]))
    assert calls.frames[0][1].arrays["activations"].shape == front(x).shape
