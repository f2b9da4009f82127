"""Sites trained in threads side by side are sites trained one by one."""

import pytest
import torch
from together import close, tasks

from fedrad.errors import TrainingDivergedError
from fedrad.training.devices.cuda_streams import StreamTrainer
from fedrad.training.devices.deferred_training import TrainingCall


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_sites_side_by_side_are_one_after_the_other(device: str) -> None:
    """Three groups on the same lanes; the third goes on from the second's weights.

    On a CPU bit for bit, as nothing is computed in another order.
    """
    sites, start = tasks(device)
    lanes = StreamTrainer()
    for round in (1, 2, 3):
        asked = [TrainingCall(task, start, round) for task in sites]
        found = lanes.train(asked[: round + 1])
        for one, alone in zip(found, [one.fit() for one in asked], strict=False):
            assert (one.examples, one.steps) == (alone.examples, alone.steps)
            assert one.loss == pytest.approx(alone.loss, abs=0 if device == "cpu" else 1e-3)
            close(one.state, alone.state, atol=0 if device == "cpu" else 1e-3)
        start = found[0].state


def test_the_time_of_the_threads_is_counted_once_and_no_random_number_is_lost() -> None:
    sites, start = tasks()
    before = torch.get_rng_state()
    StreamTrainer().train([TrainingCall(task, start, 1) for task in sites])
    assert torch.equal(torch.get_rng_state(), before)
    seconds = sites[0].meter.seconds
    assert seconds["training"] > 0 and seconds["data"] == 0


def test_a_site_that_diverges_in_a_lane_is_an_error() -> None:
    sites, start = tasks(optimizer={"name": "sgd", "lr": 1e30})
    with pytest.raises(TrainingDivergedError, match="nord: round 1"):
        StreamTrainer().train([TrainingCall(task, start, 1) for task in sites])
