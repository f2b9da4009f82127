import pytest
import torch
from torch import Tensor, nn

from fedrad.config import Task
from fedrad.errors import ConfigError
from fedrad.training.fit import clipped, fit, load_into
from fedrad.training.objective import objective
from fedrad.training.optimizers import sgd

OBJECTIVE = objective(Task(name="binary", labels=("a",), input=(3,)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def batches(number: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 3, generator=generator), torch.arange(8.0).remainder(2)[:, None])
        for _ in range(number)
    ]


def trained(**options: object) -> list[Tensor]:
    model = network()
    params = list(model.parameters())
    fit(model, params, batches(), OBJECTIVE, sgd(params, lr=0.5, momentum=0.9), **options)
    return [p.detach() for p in params]


def gradients(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    loss = nn.functional.binary_cross_entropy_with_logits(model(batch[0]), batch[1])
    return torch.autograd.grad(loss, list(model.parameters()))


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def half_square(params: list[Tensor], start: list[Tensor]) -> Tensor:
    return sum(((p - s).square().sum() / 2 for p, s in zip(params, start, strict=True)))  # type: ignore[return-value]


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": lambda params, start: 0 * half_square(params, start)},
        {"correction": [torch.zeros_like(p) for p in network().parameters()]},
        {"clip": 1e20},
    ],
    ids=["penalty", "correction", "clip"],
)
def test_an_opening_that_adds_nothing_changes_no_bit(options: dict[str, object]) -> None:
    """FedProx with mu = 0 and SCAFFOLD with equal sites are FedAvg."""
    assert equal(trained(**options), trained())


def test_a_penalty_s_gradient_is_added_and_its_start_stays() -> None:
    """From start s, a step with ||p - s||^2 / 2 is p - lr (g + p - s); the first one is plain."""
    model, reference = network(), network()
    start = [p.detach().clone() for p in reference.parameters()]
    params = list(model.parameters())
    fit(model, params, batches(3), OBJECTIVE, sgd(params, lr=0.5), penalty=half_square)
    for batch in batches(3):
        grads = gradients(reference, batch)
        with torch.no_grad():
            for p, g, s in zip(reference.parameters(), grads, start, strict=True):
                p -= 0.5 * (g + p - s)
    for p, q in zip(params, reference.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=0)


def test_the_loss_is_the_mean_over_steps_without_the_penalty() -> None:
    """Losses of arms with and without a penalty can be compared."""
    model = network()
    params = list(model.parameters())
    still = sgd(params, lr=1e-30)
    found = fit(model, params, batches(), OBJECTIVE, still, penalty=lambda p, s: p[0].sum() * 0 + 7)
    losses = [nn.functional.binary_cross_entropy_with_logits(model(x), y) for x, y in batches()]
    assert found == (4, pytest.approx(torch.stack(losses).mean().item()))


def test_no_batch_is_no_step_and_no_loss() -> None:
    model = network()
    assert fit(model, list(model.parameters()), [], OBJECTIVE, sgd([], lr=1.0)) == (0, 0.0)


def test_clipping_is_torch_s() -> None:
    """The norm is that of all gradients together."""
    for limit in (0.01, 1.0, 100.0):
        params = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
        for p in params:
            p.grad = torch.randn_like(p)
        found = clipped([p.grad.clone() for p in params if p.grad is not None], limit)
        nn.utils.clip_grad_norm_(params, limit)
        for p, g in zip(params, found, strict=True):
            torch.testing.assert_close(g, p.grad)


def test_a_correction_is_added_after_clipping() -> None:
    """SCAFFOLD's option II divides the way by the steps: what is added must arrive whole."""
    model = network()
    params = list(model.parameters())
    before = [p.detach().clone() for p in params]
    ones = [torch.ones_like(p) for p in params]
    fit(model, params, batches(1), OBJECTIVE, sgd(params, lr=1.0), correction=ones, clip=1e-9)
    for p, q in zip(params, before, strict=True):
        torch.testing.assert_close(p, q - 1, atol=1e-6, rtol=0)


def test_only_the_given_parameters_change_and_no_gradient_is_left_behind() -> None:
    """A frozen body or head is a matter of which parameters are handed in."""
    model = network()
    body, head = network()[0], list(model[2].parameters())
    fit(model, head, batches(), OBJECTIVE, sgd(head, lr=0.5))
    assert torch.equal(model[0].weight, body.weight)
    assert not torch.equal(model[2].weight, network()[2].weight)
    assert all(p.grad is None for p in model.parameters())


def test_training_is_in_training_mode_also_after_an_evaluation() -> None:
    """BatchNorm's statistics move: 4 batches from 0, each a tenth of the way to the mean."""
    model = nn.Sequential(nn.BatchNorm1d(3, affine=False), nn.Linear(3, 1)).eval()
    params = list(model.parameters())
    fit(model, params, batches(), OBJECTIVE, sgd(params, lr=0.5))
    expected = torch.zeros(3)
    for x, _ in batches():
        expected = 0.9 * expected + 0.1 * x.mean(0)
    torch.testing.assert_close(model[0].running_mean, expected)


def test_a_state_that_does_not_fit_is_refused() -> None:
    """A shape that would only broadcast is refused too."""
    model = nn.Linear(2, 3)
    with pytest.raises(ConfigError, match=r"bias is in one only \(1 such\)"):
        load_into(model.state_dict(), {"weight": torch.ones(3, 2)})
    with pytest.raises(ConfigError, match=r"weight is \(1, 2\), the model's \(3, 2\)"):
        load_into(model.state_dict(), {"weight": torch.ones(1, 2), "bias": torch.ones(3)})


def test_loading_copies_every_array() -> None:
    """A model that many sites share carries nothing over, and the state stays the caller's."""
    model, state = network(), {k: v.clone() for k, v in network().state_dict().items()}
    for value in model.state_dict().values():
        value.fill_(7)
    load_into(model.state_dict(), state)
    assert equal(list(model.state_dict().values()), list(network().state_dict().values()))
    for value in model.state_dict().values():
        value.fill_(7)
    assert equal(list(state.values()), list(network().state_dict().values()))
