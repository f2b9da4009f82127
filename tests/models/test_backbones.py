from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedrad.config import Task
from fedrad.errors import ConfigError, MissingError
from fedrad.models.backbones import densenet121, resnet18, resnet34, resnet50
from fedrad.models.pretrained import pretrained

BACKBONES = [densenet121, resnet18, resnet34, resnet50]
GREY = Task(name="binary", labels=("pneumonia",), input=(1, 32, 32))
COLOUR = Task(name="binary", labels=("pneumonia",), input=(3, 32, 32))


def theirs(name: str, outputs: int = 1000) -> nn.Module:
    """torchvision's network with drawn weights and statistics, so that each of them matters."""
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(1)
    net = getattr(models, name)(num_classes=outputs)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1:
                value.normal_(0, 0.1)
    return net.eval()


@pytest.mark.parametrize("builder", BACKBONES)
def test_a_backbone_with_batch_norm_is_torchvision_s(
    builder: Callable[..., nn.Sequential], tmp_path: Path
) -> None:
    """The same weights give the same features, so published weights mean what they meant."""
    net = theirs(builder.__name__)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    ours = builder(COLOUR, norm="batch", weights=str(tmp_path / "w.safetensors")).eval()
    last = "classifier" if builder is densenet121 else "fc"
    setattr(ours.head, last, net.get_submodule(last))
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), net(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("builder", BACKBONES)
def test_a_backbone_has_as_many_parameters_as_torchvision_s(
    builder: Callable[..., nn.Sequential],
) -> None:
    """GroupNorm has BatchNorm's parameters; a grey stem has 2 * 64 * 7 * 7 fewer."""
    number = sum(p.numel() for p in theirs(builder.__name__, outputs=1).parameters())
    assert sum(p.numel() for p in builder(GREY).parameters()) == number - 2 * 64 * 49


def test_a_grey_stem_is_the_colour_stem_summed(tmp_path: Path) -> None:
    """A grey image is one whose three channels are equal, and a convolution is linear."""
    net = theirs("resnet18")
    torch.save(net.state_dict(), tmp_path / "w.pth")
    grey = resnet18(GREY, norm="batch", weights=str(tmp_path / "w.pth")).eval()
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(
        grey.stem.conv1(x), net.conv1(x.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5
    )


def test_group_norm_takes_the_weights_and_leaves_the_statistics(tmp_path: Path) -> None:
    """Scale and shift have a place in GroupNorm, running means have none."""
    net = theirs("resnet18")
    torch.save(net.state_dict(), tmp_path / "w.pt")
    ours = resnet18(GREY, weights=str(tmp_path / "w.pt")).state_dict()
    assert torch.equal(ours["layer4.1.bn2.weight"], net.state_dict()["layer4.1.bn2.weight"])
    assert not any("running" in name for name in ours)


def test_the_names_of_the_first_densenet_files_are_known(tmp_path: Path) -> None:
    """The published file of 2017 says norm.1 for norm1 and has no batch counters."""
    net = theirs("densenet121")
    old = {
        k.replace("norm1", "norm.1").replace("conv2", "conv.2"): v
        for k, v in net.state_dict().items()
        if "num_batches" not in k
    }
    torch.save(old, tmp_path / "w.pth")
    ours = densenet121(COLOUR, norm="batch", weights=str(tmp_path / "w.pth")).state_dict()
    key = "denseblock4.denselayer16.conv2.weight"
    assert torch.equal(ours[key], net.state_dict()[f"features.{key}"])


def test_a_file_of_our_own_is_taken_whole(tmp_path: Path) -> None:
    """Also its classifier: this is how a trained model is trained on."""
    model = resnet18(GREY)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    again = resnet18(GREY, weights=str(tmp_path / "w.safetensors")).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.state_dict().items())


def test_a_file_that_does_not_fit_is_refused_with_what_is_odd(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with pytest.raises(MissingError, match=r"model\.weights: there is no file .*w\.pth"):
        resnet18(GREY, weights=str(path))
    torch.save(resnet34(GREY).state_dict(), path)
    with pytest.raises(ConfigError, match=r"w\.pth has an unknown layer1\.2\.bn1\.bias"):
        resnet18(GREY, weights=str(path))
    torch.save(resnet18(COLOUR).state_dict() | {"head.fc.bias": torch.zeros(4)}, path)
    with pytest.raises(ConfigError, match=r"has another shape of head\.fc\.bias \(1 such"):
        resnet18(COLOUR, weights=str(path))
    torch.save({"epoch": 3}, path)
    with pytest.raises(ConfigError, match=r"w\.pth holds more than names and arrays"):
        resnet18(GREY, weights=str(path))
    path.write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match=r"w\.pth is no state_dict \(UnpicklingError\)"):
        resnet18(GREY, weights=str(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """Weights come from strangers; a whole pickled module is code."""
    torch.save(nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"w\.pth is no state_dict"):
        resnet18(GREY, weights=str(tmp_path / "w.pth"))


def test_too_small_an_image_is_refused() -> None:
    """DenseNet halves five times: 28 pixels leave none."""
    small = Task(name="binary", labels=("x",), input=(1, 28, 28))
    with pytest.raises(ConfigError, match=r"29 pixels a side or more; task.input is \[1, 28, 28\]"):
        densenet121(small)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_module.", "model.", "backbone."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model_state_dict", "model"])
def test_weights_of_a_wrapped_model_or_in_a_checkpoint_are_the_same_weights(
    tmp_path: Path, prefix: str, inside: str | None
) -> None:
    """DataParallel puts "module." before every name; trainings save epoch and optimiser too."""
    ours = {"stem.conv1.weight": torch.ones(2, 1, 3, 3), "head.fc.bias": torch.zeros(1)}
    named = {f"{prefix}{name}": value for name, value in ours.items()}
    saved = named if inside is None else {inside: named, "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(saved, tmp_path / "w.pt")
    again = pretrained(tmp_path / "w.pt", {name: 9 + value for name, value in ours.items()})
    assert again.keys() == ours.keys()
    assert all(torch.equal(again[name], value) for name, value in ours.items())


def test_a_file_without_weights_is_told_with_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "net": {"a": torch.zeros(1)}}, tmp_path / "w.pt")
    with pytest.raises(
        ConfigError, match=r"more than names and arrays \(epoch, net\); it has none"
    ):
        resnet18(GREY, weights=str(tmp_path / "w.pt"))
