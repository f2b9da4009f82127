"""The whole way in one process: Flower's apps and messages, and what is recorded of them."""

import gc
import json
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import numpy as np
import pytest
import torch
from made import experiment, federation, play, site

from fedrad.core import seeds
from fedrad.core.store import load_bundle
from fedrad.data.sites import Federation
from fedrad.errors import RunError
from fedrad.rounds.nodes import Node
from fedrad.rounds.site_sampling import sampled_sites
from fedrad.runs import RunFolder
from fedrad.training.local import LocalTask


def final(folder: Path, arm: str) -> bytes:
    return (folder / arm / "seed-0" / "state.safetensors").read_bytes()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(folder)
    return folder


def test_the_same_command_gives_the_same_files(finished: Path, tmp_path: Path) -> None:
    """Same YAML, same seed: every arm's final state is the same file, bit for bit."""
    play(tmp_path)
    for arm in experiment().arm_names:
        assert final(tmp_path, arm) == final(finished, arm)


def test_an_arm_gives_the_same_alone_as_among_others(finished: Path, tmp_path: Path) -> None:
    """What ran before in the process leaves no trace."""
    play(tmp_path, arms=["tuned"])
    assert final(tmp_path, "tuned") == final(finished, "tuned")
    ours = tmp_path / "sites" / "ost" / "tuned" / "seed-0"
    theirs = finished / "sites" / "ost" / "tuned" / "seed-0"
    assert {p.name: p.read_bytes() for p in ours.iterdir()} == {
        p.name: p.read_bytes() for p in theirs.iterdir()
    }


def test_a_finished_arm_is_not_played_again(finished: Path) -> None:
    told = play(finished)
    assert told.rounds == [] and told.skips == list(experiment().arm_names)


def test_one_site_federated_equals_that_site_pooled(tmp_path: Path) -> None:
    """One site = centralised: with one hospital there is nothing to average."""
    alone = Federation({"nord": site("nord", 40)}, ())
    play(tmp_path, sites=alone, arms=["fedavg", "centralized"])
    one, other = (
        load_bundle(tmp_path / a / "seed-0" / "state.safetensors")
        for a in ("fedavg", "centralized")
    )
    for name, value in one["model"].items():
        torch.testing.assert_close(value, other["model"][name], atol=1e-6, rtol=0)


def test_a_run_of_another_experiment_is_refused_and_left_alone(finished: Path) -> None:
    before = final(finished, "fedavg")
    with pytest.raises(
        RunError, match=r"another experiment or other data: 'rounds: 4' became 'rounds: 5'.*--out"
    ):
        play(finished, experiment(rounds=5))
    assert final(finished, "fedavg") == before


def test_more_arms_and_seeds_go_into_the_same_folder(finished: Path) -> None:
    told = play(finished, experiment(seeds=(0, 1)), arms=["fedavg"])
    assert [seed for _, seed, _ in told.rounds] == [1] * 4 and told.skips == ["fedavg"]


def test_what_left_the_sites_is_counted_to_the_byte(finished: Path) -> None:
    """mlp 6-8-1: 48 + 8 + 8 + 1 = 65 floats, to and from each of three sites, each round."""
    lines = RunFolder(finished).arm("fedavg", 0).rounds()
    assert [(line["bytes_down"], line["bytes_up"]) for line in lines] == [(3 * 260, 3 * 260)] * 4


def test_alone_nothing_is_sent_and_nothing_comes_back(finished: Path) -> None:
    lines = RunFolder(finished).arm("local", 0).rounds()
    assert {(line["bytes_down"], line["bytes_up"]) for line in lines} == {(0, 0)}


def test_the_pooled_value_is_that_of_the_pooled_images(finished: Path) -> None:
    """Brier scores are means over images: pooled = mean of the sites' weighted by images."""
    found = RunFolder(finished).arm("fedavg", 0).evaluation()
    n = {name: found.counts[name]["images"] for name in found.counts}
    by_site = {name: found.cells["global", name]["brier"] for name in n}
    pooled = sum(by_site[name] * n[name] for name in n) / sum(n.values())
    np.testing.assert_allclose(found.cells["global", "pooled"]["brier"], pooled, atol=1e-12)


def test_every_personal_model_meets_every_test_set(finished: Path) -> None:
    found = RunFolder(finished).arm("local", 0).evaluation()
    names = ("nord", "ost", "sued")
    pairs = {(f"personal:{a}", b) for a in names for b in names}
    assert set(found.cells) == pairs | {("personal:pooled", "pooled")}


def test_both_models_of_a_personalised_arm_are_tested(finished: Path) -> None:
    found = RunFolder(finished).arm("tuned", 0).evaluation()
    assert ("global", "nord") in found.cells and ("personal:nord", "nord") in found.cells
    one, other = found.cells["global", "nord"], found.cells["personal:nord", "nord"]
    assert one["brier"][0] != other["brier"][0]


def test_arms_are_tested_on_the_same_resamples(finished: Path) -> None:
    """Paired intervals need them: with equal models the replicates would be equal too."""
    folder = RunFolder(finished)
    shares = [
        folder.arm(arm, 0).evaluation().cells["global", "nord"]["brier"]
        for arm in ("fedavg", "fedprox")
    ]
    assert np.corrcoef(shares[0][1:], shares[1][1:])[0, 1] > 0.8


def test_a_held_out_site_never_trains_and_is_tested_last(tmp_path: Path) -> None:
    """Its data change: the model keeps its bits, only the column of that site moves."""
    play(tmp_path / "a", sites=federation("sued"), arms=["fedavg"])
    other = Federation(dict(federation().sites) | {"sued": site("sued", 30, shift=2.0)}, ("sued",))
    play(tmp_path / "b", sites=other, arms=["fedavg"])
    assert final(tmp_path / "a", "fedavg") == final(tmp_path / "b", "fedavg")
    cells = [RunFolder(tmp_path / x).arm("fedavg", 0).evaluation().cells for x in "ab"]
    assert cells[0]["global", "nord"]["brier"][0] == cells[1]["global", "nord"]["brier"][0]
    assert cells[0]["global", "sued"]["brier"][0] != cells[1]["global", "sued"]["brier"][0]
    assert ("global", "pooled") in cells[0]


def test_a_diverging_arm_stops_with_site_and_round_and_the_others_go_on(tmp_path: Path) -> None:
    arms = dict(experiment().arms) | {
        "wild": {"algorithm": "fedavg", "local": {"optimizer": {"name": "sgd", "lr": 1e30}}}
    }
    told = play(tmp_path, experiment(arms=arms), arms=["wild", "fedavg"])
    assert "nord: round 1" in told.stopped["wild"] or "round" in told.stopped["wild"]
    assert ("fedavg", 0, 4) in told.rounds
    assert RunFolder(tmp_path).arm("wild", 0).stopped() == told.stopped["wild"]


def test_a_site_of_one_class_trains_and_its_metric_has_a_reason(tmp_path: Path) -> None:
    sites = Federation(dict(federation().sites) | {"eins": site("eins", 20, one_class=True)}, ())
    play(tmp_path, sites=sites, arms=["fedavg"])
    found = RunFolder(tmp_path).arm("fedavg", 0).evaluation()
    assert np.isnan(found.cells["global", "eins"]["auroc"]).all()
    assert "one class only" in found.reasons["global", "eins"]["auroc"]
    assert np.isfinite(found.cells["global", "eins"]["brier"]).all()


def test_global_class_weights_are_those_of_all_sites(tmp_path: Path) -> None:
    """They change what is learnt, and site by site they differ from the sites' own."""
    base = experiment().local.model_dump(exclude_none=True)
    finals = []
    for kind in ("none", "site", "global"):
        what = experiment(local=base | {"class_weights": kind})
        sites = Federation(
            dict(federation().sites) | {"eins": site("eins", 20, one_class=True)}, ()
        )
        play(tmp_path / kind, what, sites, arms=["fedavg"])
        finals.append(final(tmp_path / kind, "fedavg"))
    assert len(set(finals)) == 3


def test_sites_can_be_sampled_and_the_sample_is_the_same_again(tmp_path: Path) -> None:
    what = experiment(sites_per_round=2)
    play(tmp_path / "a", what, arms=["fedavg"])
    play(tmp_path / "b", what, arms=["fedavg"])
    assert final(tmp_path / "a", "fedavg") == final(tmp_path / "b", "fedavg")
    lines = RunFolder(tmp_path / "a").arm("fedavg", 0).rounds()
    assert {line["bytes_down"] for line in lines} == {2 * 260}
    assert all(len(line["drawn"]) == 2 and line["answered"] == line["drawn"] for line in lines)
    assert len({tuple(line["drawn"]) for line in lines}) > 1


def test_a_site_without_training_images_is_never_drawn_and_the_others_as_among_themselves(
    tmp_path: Path,
) -> None:
    """A round of that site alone has no mean, and its repetition would have none again."""
    what, sites = experiment(sites_per_round=1, rounds=6), without("ost", "train", federation())
    told = play(tmp_path, what, sites, arms=["fedavg"])
    assert told.stopped == {}
    found = [line["drawn"] for line in RunFolder(tmp_path).arm("fedavg", 0).rounds()]
    draws = [random.Random(seeds.seed(0, "", n, "participants")) for n in range(1, 7)]
    assert found == [draw.sample(["nord", "sued"], 1) for draw in draws]


def test_where_all_sites_can_train_the_draw_is_among_all() -> None:
    """As it was before sites were asked whether they can: old runs go on with the same sites."""
    nodes = {name: Node(0, images, "3fe2") for name, images in (("a", 3), ("b", 1), ("c", 2))}
    for number in range(1, 20):
        draw = random.Random(seeds.seed(5, "", number, "participants"))
        assert sampled_sites(nodes, 2, seed=5, number=number) == tuple(
            sorted(draw.sample("abc", 2))
        )
    away = nodes | {"b": Node(0, 0)}
    assert any("b" in sampled_sites(away, 1, seed=5, number=number) for number in range(1, 20))


def playing(folder: Path, *, killed_at: int | None = None) -> Process:
    """Start two arms in a process of its own, which may kill itself at one of its writes."""

    def work() -> None:
        # Whoever runs the tests in the background has made them deaf to Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        count, replaced = 0, os.replace

        def counting(beside: Path, path: Path) -> None:
            nonlocal count
            count += 1
            if count == killed_at:
                # Killed in the middle of a write: half the bytes lie beside the file's place.
                os.truncate(beside, os.path.getsize(beside) // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            replaced(beside, path)

        os.replace = counting
        play(folder, arms=["tuned", "fedavg"])

    # Forked: a new interpreter would import torch and Flower anew, for seconds.
    process = get_context("fork").Process(target=work)
    process.start()
    return process


@pytest.mark.parametrize("write", [9, 20])
def test_killed_at_any_write_and_started_again_the_bits_are_those_of_an_unbroken_run(
    finished: Path, tmp_path: Path, write: int
) -> None:
    """kill -9 for real, at different writes of a state or a site's memory."""
    process = playing(tmp_path, killed_at=write)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    play(tmp_path, arms=["tuned", "fedavg"])
    for arm in ("tuned", "fedavg"):
        assert final(tmp_path, arm) == final(finished, arm)
    for name in ("nord", "ost", "sued"):
        memory = Path("sites") / name / "tuned" / "seed-0" / "round-000004.safetensors"
        assert (tmp_path / memory).read_bytes() == (finished / memory).read_bytes()
    told = json.loads((tmp_path / "tuned" / "seed-0" / "evaluation.json").read_text())
    same = json.loads((finished / "tuned" / "seed-0" / "evaluation.json").read_text())
    assert told == same


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(finished: Path, tmp_path: Path) -> None:
    process = playing(tmp_path)
    while not list(tmp_path.glob("*/seed-0/server/round-*.safetensors")):
        assert process.is_alive(), "it ended before a round was done"
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join()
    play(tmp_path, arms=["tuned", "fedavg"])
    assert final(tmp_path, "tuned") == final(finished, "tuned")


def test_the_server_holds_no_more_models_the_more_sites_there_are(tmp_path: Path) -> None:
    """Replies are folded one by one: the peak with 9 sites is that with 4, within a model."""
    what = experiment(
        model={"name": "mlp", "hidden": [1000, 500]}, replicates=0, validate_every=0, rounds=1
    )
    model = 4 * (6 * 1000 + 1000 + 1000 * 500 + 500 + 500 + 1)

    def peak(count: int) -> int:
        sites = Federation({f"s{k:02d}": site(f"s{k:02d}", 8) for k in range(count)}, ())
        tracer = PeakOfTensors()
        with tracer:
            play(tmp_path / str(count), what, sites, arms=["fedavg"])
        return tracer.peak

    assert peak(9) - peak(4) < model


class PeakOfTensors:
    """The most bytes that living tensors held at any optimiser step of a site."""

    def __enter__(self) -> "PeakOfTensors":
        self.peak, self._plain = 0, LocalTask.fit
        # What was there before is no part of a run, and takes longest to search.
        gc.collect()
        gc.freeze()

        def watched(task: LocalTask, *args: object, **kwargs: object) -> object:
            fitted = self._plain(task, *args, **kwargs)
            gc.collect()
            storages = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in gc.get_objects()
                if isinstance(t, torch.Tensor)
            }
            self.peak = max(self.peak, sum(storages.values()))
            return fitted

        LocalTask.fit = watched
        return self

    def __exit__(self, *_: object) -> None:
        LocalTask.fit = self._plain
        gc.unfreeze()


def without(name: str, split: str, sites: Federation) -> Federation:
    """The sites, one of them without any rows of a split."""
    rows = dict(sites.sites[name].rows) | {split: np.zeros(0, np.int64)}
    return replace(sites, sites=dict(sites.sites) | {name: replace(sites.sites[name], rows=rows)})


def test_other_data_under_the_same_experiment_are_refused_before_any_arm(tmp_path: Path) -> None:
    """One label corrected at one site: the old arms' numbers are of other data."""
    play(tmp_path, arms=["local"])
    sites = federation()
    ost = sites.sites["ost"]
    y = ost.y.copy()
    y[ost.rows["test"][0]] = 1 - y[ost.rows["test"][0]]
    changed = replace(sites, sites=dict(sites.sites) | {"ost": replace(ost, y=y)})
    with pytest.raises(
        RunError, match=r"local/seed-0 was begun with .*other data: 'trained on: 3 sites, "
    ):
        play(tmp_path, sites=changed, arms=["fedavg"])
    assert not (tmp_path / "fedavg").exists()


def test_two_processes_do_not_play_in_one_folder(tmp_path: Path) -> None:
    """The lock is the system's: it is gone with the process that held it, however that ended."""
    held = get_context("fork").Event()

    def hold() -> None:
        with RunFolder(tmp_path).locked():
            held.set()
            signal.pause()

    holder = get_context("fork").Process(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(RunError, match="another process runs in"):
        play(tmp_path, arms=["fedavg"])
    holder.kill()
    holder.join()
    assert len(play(tmp_path, arms=["fedavg"]).rounds) == 4


def test_a_site_that_trained_nothing_has_no_model_of_its_own(tmp_path: Path) -> None:
    """An untrained net would be an easy opponent; its cells are nan, and say why."""
    play(tmp_path, sites=without("ost", "train", federation()), arms=["local", "fedavg", "tuned"])
    for arm in ("local", "tuned"):
        found = RunFolder(tmp_path).arm(arm, 0).evaluation()
        for site_name in ("nord", "ost", "sued"):
            assert found.cells.get(("personal:ost", site_name), {}) == {}
            assert "trained nothing" in found.reasons["personal:ost", site_name]["auroc"]
        assert np.isfinite(found.cells["personal:nord", "ost"]["auroc"][0])
    shared = RunFolder(tmp_path).arm("fedavg", 0).evaluation()
    assert np.isfinite(shared.cells["global", "ost"]["auroc"][0])


def test_of_several_classes_each_is_counted(tmp_path: Path) -> None:
    """The rarest decides whether an interval is given, so every one must be known."""
    task = {"name": "multiclass", "labels": ["a", "b", "c"], "input": [6]}
    sites = {
        name: replace(data, y=(np.arange(len(data.y)) % 8 % 3).astype(np.float32)[:, None])
        for name, data in federation().sites.items()
    }
    what = experiment(
        task=task,
        metrics=("balanced_accuracy",),
        rounds=1,
        primary={"arm": "fedavg", "against": "local", "metric": "balanced_accuracy"},
    )
    play(tmp_path, what, Federation(sites, ()), arms=["fedavg"])
    counts = RunFolder(tmp_path).arm("fedavg", 0).evaluation().counts["nord"]
    y = sites["nord"].y[sites["nord"].rows["test"], 0]
    assert counts["positives"] == [int((y == k).sum()) for k in range(3)]
    assert counts["negatives"] == [int((y != k).sum()) for k in range(3)]
