"""A builder's signature is its schema; whoever mistypes is told what fits."""

from typing import Annotated

import pytest
from pydantic import Field

from fedrad.errors import ConfigError
from fedrad.registry import build, check_options


def fedprox(*, mu: float = 0.01) -> tuple[str, float]:
    return "fedprox", mu


def power(base: int, *, by: int) -> int:
    return base**by


TABLE = {"fedprox": fedprox, "power": power}


def test_a_name_alone_takes_the_defaults() -> None:
    assert build(TABLE, "fedprox", where="algorithm") == ("fedprox", 0.01)


def test_options_are_converted_to_what_the_signature_says() -> None:
    """YAML 1.1 reads 1e-3 as text; a float is a float all the same."""
    assert build(TABLE, {"name": "fedprox", "mu": "1e-3"}, where="algorithm") == ("fedprox", 0.001)


def test_what_the_caller_gives_is_no_option() -> None:
    assert build(TABLE, {"name": "power", "by": 3}, 2, where="x") == 8
    with pytest.raises(ConfigError, match="power takes by: int"):
        build(TABLE, {"name": "power", "base": 2, "by": 3}, 2, where="x")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "fedporx",
            r"algorithm: 'fedporx' is not one of fedprox, power \(did you mean 'fedprox'\?\)",
        ),
        (
            {"name": "fedprox", "nu": 1},
            r"algorithm\.nu: fedprox takes mu: float \(did you mean 'mu'\?\)",
        ),
        (
            {"name": "fedprox", "mu": "much"},
            r"algorithm\.mu: .*found 'much'; fedprox takes mu: float",
        ),
        ({"name": "power"}, r"algorithm\.by: field required; power takes by: int"),
        ({"mu": 1}, r"algorithm: found .*needs a name"),
    ],
)
def test_a_mistake_is_told_with_place_finding_and_fit(spec: object, message: str) -> None:
    given = (2,) if spec == {"name": "power"} else ()
    with pytest.raises(ConfigError, match=message):
        build(TABLE, spec, *given, where="algorithm")


def test_a_builder_without_options_says_so() -> None:
    def plain() -> None: ...

    with pytest.raises(ConfigError, match="plain takes no options"):
        check_options(plain, {"mu": 1}, where="algorithm", name="plain")


def test_no_option_is_infinite_or_no_number() -> None:
    """YAML can write .inf and .nan; no learning rate, share or noise is either."""

    def sgd(*, lr: float) -> None: ...

    for value in (float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"local\.lr: must be a finite number"):
            check_options(sgd, {"lr": value}, where="local", name="sgd")


def test_of_a_choice_of_types_the_one_that_was_meant_is_told() -> None:
    """A mapping with a mistake deep inside is no failed integer."""

    def hospitals(*, sizes: int | dict[str, int]) -> None: ...

    with pytest.raises(ConfigError, match=r"sizes.*nord: needs a whole number.*'x'"):
        check_options(hospitals, {"sizes": {"nord": "x"}}, where="data", name="hospitals")


def test_limits_are_left_out_of_what_a_builder_takes() -> None:
    def adam(*, betas: tuple[Annotated[float, Field(ge=0)], float]) -> None: ...

    with pytest.raises(ConfigError, match=r"adam takes betas: tuple\[float, float\] "):
        check_options(adam, {"beta": 1}, where="local", name="adam")
