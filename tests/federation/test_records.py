"""Bundles over Flower's records: by reference in process, bit for bit over a wire."""

import gc
import weakref

import pytest
import torch
from flwr.app import ArrayRecord

from fedrad.rounds.records import TensorArray, bundle_of, config_of, numbers_of, pack

BUNDLE = {"model": {"w": torch.randn(3, 2), "n": torch.tensor(7)}, "c": {"w": torch.zeros(0, 4)}}


def test_in_process_the_very_tensors_arrive() -> None:
    content = pack(BUNDLE, {"num-examples": 3.0}, {"server-round": 1})
    assert bundle_of(content)["model"]["w"] is BUNDLE["model"]["w"]
    assert numbers_of(content) == {"num-examples": 3.0} and config_of(content) == {
        "server-round": 1
    }


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool]
)
def test_over_a_wire_every_bit_arrives(dtype: torch.dtype) -> None:
    """Deflate and inflate, as Flower does between processes, gives an ordinary Array back."""
    tensor = torch.arange(12).view(3, 4).to(dtype)
    sent = TensorArray(tensor)
    children = sent.children
    received = type(sent).__mro__[1].inflate(sent.deflate(), children)
    record = ArrayRecord()
    record["w"] = received
    content = pack({})
    content["arrays"] = record
    back = bundle_of(content)["model"]["w"]
    assert back.dtype == dtype and torch.equal(back, tensor)


def test_the_model_travels_under_the_key_that_stock_strategies_know() -> None:
    assert set(pack(BUNDLE, {}, {}).keys()) == {"arrays", "arrays.c", "metrics", "config"}


def test_an_array_on_the_wire_is_named_as_flowers_own() -> None:
    """Flower writes the class's name into each object's header and looks it up by it."""
    assert TensorArray(torch.ones(1)).deflate().split(b"\x00")[0].split(b" ")[0] == b"Array"


def test_arrays_that_were_read_are_let_go_at_once() -> None:
    """Without waiting for the garbage collector: with large models it would come too late."""
    gc.collect()
    gc.disable()
    try:
        content = pack({"model": {"w": torch.ones(3)}}, {"num-examples": 1.0}, {"arm": "a"})
        bundle = bundle_of(content)
        held = weakref.ref(bundle["model"]["w"])
        assert numbers_of(content) and config_of(content)
        del content, bundle
        assert held() is None
    finally:
        gc.enable()
