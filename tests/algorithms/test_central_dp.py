"""Central privacy: its limit case, what it hides of a site, and what it comes to."""

import pytest
import torch
from calls import Calls, run_rounds, site_data, task_of

from fedrad.algorithms.base import Algorithm, Reply
from fedrad.algorithms.central_dp import central_dp, statement
from fedrad.algorithms.fedavg import fedavg
from fedrad.algorithms.fedprox import fedprox
from fedrad.algorithms.finetune import finetune
from fedrad.core.state import State
from fedrad.errors import ConfigError

EQUAL = {name: task_of(site_data(name, 12)) for name in ("nord", "ost", "sued")}


def vector(state: State) -> torch.Tensor:
    return torch.cat([value.flatten() for value in state.values()])


def moved(algorithm: Algorithm, tasks: dict = EQUAL) -> torch.Tensor:
    """What one round adds to the common model."""
    state, _ = run_rounds(algorithm, tasks, rounds=1)
    return vector(state["model"]) - vector(next(iter(tasks.values())).initial())


@pytest.mark.parametrize("federated", [fedavg, lambda: fedprox(mu=0.1)], ids=["fedavg", "fedprox"])
def test_without_noise_and_clip_it_is_the_algorithm_with_equal_sites(federated) -> None:
    """Sites of equal size count alike in FedAvg, too."""
    bare, wrapped = federated(), central_dp(federated(), noise=0.0, clip=1e20)
    for rounds in (1, 3):
        one, other = (run_rounds(a, EQUAL, rounds)[0]["model"] for a in (bare, wrapped))
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(moved(bare), moved(central_dp(federated(), noise=0.0, clip=0.01)))


def test_one_site_moves_the_mean_by_its_share_of_the_clip_at_most() -> None:
    """Whatever its data: the claim that epsilon rests on; a large site counts like a small one."""
    loud = {**EQUAL, "sued": task_of(site_data("sued", 40, shift=50.0), clip=None)}
    quiet = {**EQUAL, "sued": task_of(site_data("sued", 4))}
    bounded = central_dp(fedavg(), noise=0.0, clip=0.05)
    assert (moved(bounded, loud) - moved(bounded, quiet)).norm() <= 2 * 0.05 / 3 + 1e-6
    assert moved(bounded, loud).norm() <= 0.05 + 1e-6


def test_the_sum_is_divided_by_the_sites_that_were_asked() -> None:
    """Dividing by those that answered would tell who was missing, and weigh the rest more."""

    class OneMissing(Calls):
        def gather(self, action, send):
            yield from ((n, r) for n, r in super().gather(action, send) if n != "sued")

    algorithm = central_dp(fedavg(), noise=0.0, clip=0.05)
    start = EQUAL["nord"].initial()
    found = []
    for kind in (Calls, OneMissing):
        calls = kind(algorithm, EQUAL, 1, number=1)
        after = algorithm.round(algorithm.init(start), 1, calls)["model"]
        found.append((vector(after) - vector(start)).norm())
    two = {name: EQUAL[name] for name in ("nord", "ost")}
    assert found[1] == pytest.approx(moved(algorithm, two).norm().item() * 2 / 3, rel=1e-4)


def test_noise_is_normal_with_the_stated_spread() -> None:
    """Standard deviation noise * clip / sites; clipped away, the sites add nothing."""
    algorithm = central_dp(fedavg(), noise=3e9, clip=1e-9, repeatable=True)
    state, _ = run_rounds(algorithm, EQUAL, rounds=60)
    start = EQUAL["nord"].initial()
    drawn = vector(state["model"]) - vector(start)
    # 60 rounds of spread 1 in 29 weights; the standard error of a spread is about 13 %
    assert 0.5 * 60**0.5 < drawn.std() < 1.5 * 60**0.5


def test_noise_cannot_be_foretold_unless_asked_for_and_a_resumed_run_has_the_same() -> None:
    """The key is in the server's own state, which is not sent."""
    quiet, loud = central_dp(fedavg(), repeatable=True), central_dp(fedavg())
    assert torch.equal(moved(quiet), moved(quiet)) and not torch.equal(moved(loud), moved(loud))
    calls = Calls(loud, EQUAL, 2, number=1)
    state = loud.round(loud.init(EQUAL["nord"].initial()), 1, calls)
    again = [loud.round(state, 2, calls)["model"] for _ in range(2)]
    assert torch.equal(vector(again[0]), vector(again[1]))


def test_nothing_but_the_clipped_change_leaves_a_site() -> None:
    """Counts and losses are not covered by the noise."""
    algorithm = central_dp(fedavg(), clip=0.05)
    calls = Calls(algorithm, EQUAL, 1, number=1)
    for _, reply in calls.gather("fit", {"model": EQUAL["nord"].initial()}):
        assert reply.numbers == {"sites": 1.0} and reply.arrays.keys() == {"change"}
        assert vector(reply.arrays["change"]).norm() <= 0.05 + 1e-6


def test_it_goes_around_fine_tuning_and_refuses_what_it_cannot_hide() -> None:
    """A personal model stays at home; single updates and other arrays are not for it."""
    tuned = central_dp(finetune(fedavg(), rounds=1), noise=0.1)
    _, memories = run_rounds(tuned, EQUAL, rounds=2)
    assert all("personal" in memory for memory in memories.values())

    def extra(request):
        return Reply({"model": {}, "c": {}}), {}

    odd = Algorithm(lambda m: {"model": m}, fedavg().round, {"fit": extra})
    with pytest.raises(ConfigError, match="that send a model, not c, model"):
        run_rounds(central_dp(odd), EQUAL, rounds=1)
    nosy = Algorithm(
        lambda m: {"model": m}, lambda s, n, sites: dict(sites.gather("fit", s)), fedavg().handlers
    )
    with pytest.raises(ConfigError, match="reads single sites' updates"):
        run_rounds(central_dp(nosy), EQUAL, rounds=1)


def test_without_noise_there_is_no_epsilon_to_tell() -> None:
    """Infinity is no promise, and no number to print."""
    assert statement(noise=0.0, rounds=50, sites=6).endswith("there is no epsilon")


def test_the_statement_says_that_few_hospitals_are_hardly_protected() -> None:
    """Noise 1, 50 rounds, no sampling, delta 1e-5: about 55, with 6 hospitals as with 600."""
    for sites in (6, 600):
        told = statement(noise=1.0, rounds=50, sites=sites)
        assert "epsilon 54.4" in told and "protects little" in told
        assert "does not protect against the coordinator" in told
    assert "protects little" not in statement(noise=10.0, rounds=50, sites=600)
