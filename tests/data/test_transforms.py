import pytest
import torch

from fedrad.data import TRANSFORMS
from fedrad.data.transforms import chained, flip, gamma, noise, rotate, scale, shift
from fedrad.errors import ConfigError
from fedrad.registry import build

STRONG = {
    "flip": {},
    "gamma": {"by": 0.5},
    "noise": {"sd": 0.1},
    "rotate": {"degrees": 20},
    "scale": {"factor": 1.3},
    "shift": {"pixels": 3},
}
NOTHING = {
    "gamma": {"by": 0},
    "noise": {"sd": 0},
    "rotate": {"degrees": 0},
    "scale": {"factor": 1},
    "shift": {"pixels": 0},
}


def batch(n: int = 8, h: int = 16, w: int = 16) -> torch.Tensor:
    return torch.rand(n, 1, h, w, generator=torch.Generator().manual_seed(0))


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_every_transform_is_tried_here() -> None:
    """A new transform joins the laws below."""
    assert STRONG.keys() == TRANSFORMS.keys()


@pytest.mark.parametrize("name", STRONG)
def test_the_generator_alone_decides_and_the_batch_is_left_alone(name) -> None:
    """Same seed, same bits; another seed, another batch; the shape stays."""
    transform = build(TRANSFORMS, {"name": name, **STRONG[name]}, where="augment")
    images = batch(n=32)
    before = images.clone()
    one, again = transform(images, seeded(1)), transform(images, seeded(1))
    assert one.shape == images.shape and one.dtype == images.dtype
    assert torch.equal(one, again) and torch.equal(images, before)
    assert not torch.equal(one, transform(images, seeded(2)))


@pytest.mark.parametrize("name", STRONG)
def test_each_image_gets_a_draw_of_its_own(name) -> None:
    """32 equal images do not stay equal."""
    transform = TRANSFORMS[name](**STRONG[name])
    out = transform(batch(n=1).repeat(32, 1, 1, 1), seeded())
    assert not all(torch.equal(out[0], other) for other in out[1:])


@pytest.mark.parametrize("name", NOTHING)
def test_a_strength_of_nothing_changes_nothing(name) -> None:
    """The limit case of each transform."""
    out = TRANSFORMS[name](**NOTHING[name])(batch(), seeded())
    torch.testing.assert_close(out, batch(), atol=1e-5, rtol=0)


def test_a_shift_moves_whole_pixels_and_lets_black_in() -> None:
    """One bright pixel lands within the reach; over many draws every place is reached, evenly."""
    images = torch.zeros(5000, 1, 9, 9)
    images[:, :, 4, 4] = 1
    out = shift(pixels=2)(images, seeded())
    assert torch.equal(out.sum((1, 2, 3)), torch.ones(5000))
    places = out.mean(0)[0]
    assert torch.equal(places > 0, torch.nn.functional.pad(torch.ones(5, 5), (2,) * 4) > 0)
    # Each of 25 places: 200 +- 5 standard deviations of 14.
    assert ((places[2:7, 2:7] * 5000 - 200).abs() < 70).all()


def test_a_shift_beyond_the_edge_leaves_black() -> None:
    """No pixel wraps around to the other side."""
    images = torch.zeros(200, 1, 4, 4)
    images[:, :, 0, :] = 1
    assert (shift(pixels=3)(images, seeded()).sum((1, 2, 3)) <= 4).all()
    assert not shift(pixels=3)(images, seeded())[:, :, 0].all()


def test_a_quarter_turn_is_rot90() -> None:
    """degrees is set so that the first draw u of seed 0, in [-1, 1], is 90 degrees: 90 / u."""
    image = batch(n=1)
    u = torch.rand(1, generator=seeded()).item() * 2 - 1
    out = rotate(degrees=90 / abs(u))(image, seeded())
    turns = [torch.rot90(image, k, (2, 3)) for k in (1, 3)]
    assert sum(torch.allclose(out, turn, atol=1e-4) for turn in turns) == 1


def test_a_turn_does_not_shear_an_oblong_image() -> None:
    """A disc stays a disc but for half its rim, and the rim is 2 pi 10 = 63 of 2048 pixels."""
    down, right = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    disc = ((down - 15.5) ** 2 + (right - 31.5) ** 2 < 100).float()[None, None]
    out = rotate(degrees=45)(disc.repeat(20, 1, 1, 1), seeded())
    assert ((out - disc).abs().mean((1, 2, 3)) < 0.015).all()


def test_an_enlargement_scales_the_area_by_its_square() -> None:
    """A disc's area is between 1 / factor**2 and factor**2 of what it was, near both."""
    down, right = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((down - 31.5) ** 2 + (right - 31.5) ** 2 < 225).float()[None, None]
    area = scale(factor=1.5)(disc.repeat(200, 1, 1, 1), seeded()).sum((1, 2, 3)) / disc.sum()
    assert 1 / 2.3 < area.min() < 0.5 and 2.0 < area.max() < 2.3


def test_gamma_keeps_black_white_and_order() -> None:
    """A power maps 0 to 0 and 1 to 1, and is monotone."""
    ramp = torch.linspace(0, 1, 16).repeat(50, 1, 1, 1)
    out = gamma(by=0.4)(ramp, seeded())
    assert (out[..., 0] == 0).all() and (out[..., -1] == 1).all()
    assert (out.diff(dim=-1) > 0).all()


def test_noise_has_the_standard_deviation_asked_for() -> None:
    """20 000 draws: the sample's deviation is within 3 % of 0.1."""
    out = noise(sd=0.1)(torch.zeros(2, 1, 100, 100), seeded())
    assert out.std().item() == pytest.approx(0.1, rel=0.03)


def test_a_flip_mirrors_left_and_right_or_leaves_as_it_is() -> None:
    """Both happen, nothing else does."""
    out = flip()(batch(64), seeded())
    same = (out == batch(64)).flatten(1).all(1)
    mirrored = (out == batch(64).flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and 16 < same.sum() < 48


def test_a_composition_is_one_after_the_other() -> None:
    """compose([f, g]) draws from the generator as f and then g do."""
    f, g = shift(pixels=2), noise(sd=0.1)
    generator = seeded(4)
    expected = g(f(batch(), generator), generator)
    assert torch.equal(chained([f, g])(batch(), seeded(4)), expected)


@pytest.mark.parametrize(
    ("name", "options"),
    [("shift", {"pixels": -1}), ("rotate", {"degrees": -1}), ("scale", {"factor": 0.9}),
     ("gamma", {"by": -0.1}), ("noise", {"sd": -1})],
)  # fmt: skip
def test_strengths_that_do_not_fit_are_refused(name, options) -> None:
    """The option and what was found are named."""
    (key,) = options
    with pytest.raises(ConfigError, match=f"{key}: found"):
        build(TRANSFORMS, {"name": name, **options}, where="augment")
