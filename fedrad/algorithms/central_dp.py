"""Central differential privacy: the coordinator hides each hospital as a whole in the mean.

McMahan, Ramage, Talwar, Zhang: "Learning Differentially Private Recurrent Language Models", ICLR
2018, https://arxiv.org/abs/1710.06963, Algorithm 1, with all sites in every round: each site clips
what it changed in the trained parameters, the coordinator adds up, adds noise, and divides by the
number of sites that were asked, also when some did not answer. Sites count alike; buffers and
numbers such as counts and losses are left out.

It protects a hospital against the other hospitals and whoever gets the model, not against the
coordinator, who sees the mean before the noise. Without sampling its epsilon depends on noise and
rounds alone: with few hospitals, either it protects little or nothing is learnt.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Annotated

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from fedrad.algorithms.base import CHANGE, Algorithm, Handler, Reply, Request, Sites
from fedrad.algorithms.mean_only import MeanOnly
from fedrad.core.state import Bundle, State
from fedrad.errors import ConfigError
from fedrad.privacy.accountant import Use, compose_uses
from fedrad.privacy.noise import SecureGenerator

__all__ = ["central_dp", "statement"]

_OWN = "central_dp"
_ONE = "sites"
_READS = "central_dp: the algorithm reads single sites' updates; noise on the mean hides none"


def central_dp(
    federated: Algorithm,
    *,
    noise: Annotated[float, Field(ge=0)] = 1.0,
    clip: PositiveFloat = 1.0,
    repeatable: bool = False,
) -> Algorithm:
    """Return an algorithm whose every mean over sites is clipped and noised.

    Args:
        federated: sends and averages "model", and nothing else.
        noise: standard deviation of the noise, in `clip`.
        clip: the largest L2 norm of what one site changes in a round.
        repeatable: draw the noise from the initial weights, so that a simulation can be repeated;
            whoever has the YAML can then take the noise off again.

    Raises:
        ConfigError: the algorithm's sites send changes already, made in another way.

    >>> from fedrad.algorithms.fedavg import fedavg
    >>> sorted(central_dp(fedavg(), noise=1.0).handlers)
    ['fit']
    """
    if federated.changes:
        raise ConfigError(
            "central_dp: clips the change itself, so it does not go with float16_updates"
        )

    def init(model: State) -> Bundle:
        key = _key_of(model) if repeatable else secrets.token_bytes(32)
        own = {"key": torch.frombuffer(bytearray(key), dtype=torch.uint8)}
        return {**federated.init(model), _OWN: own}

    def play(state: Bundle, number: int, sites: Sites) -> Bundle:
        inner = {name: one for name, one in state.items() if name != _OWN}
        key = bytes(state[_OWN]["key"].tolist())
        stream = SecureGenerator(key, f"round {number}")
        after = federated.round(inner, number, _Noised(sites, _READS, noise, clip, stream))
        return {**after, _OWN: state[_OWN]}

    handlers = {action: _clipping(handler, clip) for action, handler in federated.handlers.items()}
    return replace(federated, init=init, round=play, handlers=handlers, changes=True)


def statement(*, noise: float, rounds: int, sites: int, delta: float = 1e-5) -> str:
    """Return in words what central privacy comes to for a number of hospitals.

    >>> statement(noise=1.0, rounds=50, sites=6)[:63]
    'central_dp: each of the 6 hospitals as a whole has epsilon 54.4'
    """
    if not noise:
        return "central_dp: noise 0 hides no hospital; there is no epsilon"
    epsilon = compose_uses([Use(1.0, noise, rounds)], delta).epsilon
    told = (
        f"central_dp: each of the {sites} hospitals as a whole has epsilon {epsilon:.3g} at delta "
        f"{delta:g} after {rounds} rounds with noise {noise:g}, whatever the number of hospitals"
    )
    if epsilon > 10:
        told += "; this protects little, and more noise would need more hospitals"
    return f"{told}. It does not protect against the coordinator."


@dataclass(frozen=True)
class _Noised(MeanOnly):
    """The sites of a round, whose mean is noised."""

    noise: float
    clip: float
    draws: SecureGenerator

    def mean(self, action: str, send: Bundle, *, weight: str = "num-examples") -> Reply:
        reply = self.sites.mean(action, send, weight=_ONE)
        if not reply.arrays:
            return reply
        # The mean is over those who answered; the sum is divided by those who were asked.
        answered, asked = reply.numbers[_ONE], len(self.names)
        spread = self.noise * self.clip / asked
        model = dict(send["model"])
        for name, mean in sorted(reply.arrays[CHANGE].items()):
            noise = torch.from_numpy(self.draws.normal(mean.numel()) * spread).view_as(mean)
            model[name] = model[name] + mean * (answered / asked) + noise.to(mean)
        return Reply({"model": model}, reply.numbers)


def _clipping(handler: Handler, clip: float) -> Handler:
    def clipped(request: Request) -> tuple[Reply, Bundle]:
        reply, memory = handler(request)
        if not reply.arrays:
            return Reply(numbers={_ONE: 1.0}), memory
        if reply.arrays.keys() != {"model"}:
            told = ", ".join(sorted(reply.arrays))
            raise ConfigError(f"central_dp: goes with algorithms that send a model, not {told}")
        trained = [k for k, p in request.local.model.named_parameters() if p.requires_grad]
        before, after = request.arrays["model"], reply.arrays["model"]
        change = _clipped({name: after[name] - before[name] for name in trained}, clip)
        return Reply({CHANGE: change}, {_ONE: 1.0}), memory

    return clipped


def _clipped(change: Mapping[str, Tensor], clip: float) -> State:
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(change.values()))))
    scale = (clip / norm.clamp(min=1e-30)).clamp(max=1.0)
    return {name: value * scale for name, value in change.items()}


def _key_of(model: State) -> bytes:
    digest = blake2b(digest_size=32)
    for name, value in sorted(model.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()
