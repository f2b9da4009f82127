"""The comparison of arms: worked by hand, by published numbers, and by simulation."""

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fedrad.config import Task
from fedrad.metrics import METRICS
from fedrad.metrics.intervals import holm
from fedrad.report.chance import chance_level
from fedrad.report.comparison import ArmRun, Primary, compare
from fedrad.report.evidence import Evidence
from fedrad.report.formatting import interval
from fedrad.report.sentences import _bounds, _gap

SITES = ("nord", "ost", "sued")
TASK = Task(name="binary", labels=("lesion",), input=(1, 8, 8))
AUROC, BRIER = METRICS["auroc"](TASK), METRICS["brier"](TASK)
COUNTS = {"images": 100, "patients": 80, "positives": [40], "negatives": [60]}
B = 400

Table = Mapping[tuple[str, str], float]


def global_table(values: Mapping[str, float]) -> Table:
    """Return the cells of one global model; "pooled" is their mean."""
    pooled = float(np.mean(list(values.values())))
    return {("global", site): value for site, value in {**values, "pooled": pooled}.items()}


def personal_table(rows: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the cells of personal models, owner -> site -> value."""
    cells = {(f"personal:{i}", j): value for i, row in rows.items() for j, value in row.items()}
    own = float(np.mean([row[i] for i, row in rows.items()]))
    return {**cells, ("personal:pooled", "pooled"): own}


def run(
    arm: str, table: Table, *, seed: int = 0, noise: float = 0.002, metric: str = "auroc", **more
):
    """Return a run whose replicates are the value plus noise that is the site's in every arm.

    And a little that is the arm's: what its trainings see in these patients, the others do not.
    """
    cells = {}
    for (model, site), value in table.items():
        shared = np.random.default_rng(list(site.encode())).normal(0, 0.05, B)
        own = np.random.default_rng([*arm.encode(), *model.encode()]).normal(0, 1, B) * noise
        cells[model, site] = {metric: np.concatenate([[value], value + shared + own])}
    counts = {site: COUNTS for _, site in table if site != "pooled"}
    return ArmRun(arm, seed, cells, counts=more.pop("counts", counts), **more)


LOCAL = personal_table(
    {
        "nord": {"nord": 0.80, "ost": 0.60, "sued": 0.50},
        "ost": {"nord": 0.60, "ost": 0.70, "sued": 0.60},
        "sued": {"nord": 0.50, "ost": 0.60, "sued": 0.90},
    }
)
FEDAVG = global_table({"nord": 0.84, "ost": 0.84, "sued": 0.84})
POOLED = global_table({"nord": 0.88, "ost": 0.88, "sued": 0.88})
ARMS = {"local": "personal", "fedavg": "global", "pooled": "global"}
RUNS = [run("local", LOCAL), run("fedavg", FEDAVG), run("pooled", POOLED)]


def told(runs=RUNS, arms=ARMS, *, seeds=2, **options):
    """Return the comparison of the three arms, fedavg against local by AUROC.

    Each run stands for so many seeds that came out alike, so that all noise is that of patients.
    """
    runs = [replace(each, seed=each.seed + 100 * n) for n in range(seeds) for each in runs]
    given = {
        "sites": SITES,
        "metrics": [AUROC],
        "primary": Primary(arm="fedavg", against="local", metric="auroc"),
    }
    return compare(runs, arms=arms, **{**given, **options})


def arm(found, name):
    """Return the entry of an arm."""
    return next(each for each in found["arms"] if each["name"] == name)


def test_the_triple_by_hand():
    """Local: mean 0.8 at home and (0.6 + 0.5 + 0.6 + 0.6 + 0.5 + 0.6) / 6 away; fedavg 0.84.

    on_site 0.04 / 0.8; off_site (0.84 - 3.4 / 6) / (3.4 / 6); gap (0.84 - 0.8) / (0.88 - 0.8).
    """
    found = arm(told(), "fedavg")["triple"]
    assert found["on_site"]["value"] == pytest.approx(0.05)
    assert found["off_site"]["value"] == pytest.approx(0.84 / (3.4 / 6) - 1)
    assert found["gap_closed"]["value"] == pytest.approx(0.5)
    # The patients' noise of 0.05 is the same in all arms, so it leaves the gap of 0.08 alone.
    assert found["gap_closed"]["low"] == pytest.approx(0.5, abs=0.06)
    assert arm(told(), "local")["triple"] is None
    assert arm(told(), "pooled")["triple"]["gap_closed"]["value"] == pytest.approx(1)


def test_the_triple_of_flambys_isic_table():
    """Local .645 at home, .359 away, pooled .708, FedAvg .539: -16 %, +50 %, -168 % as published.

    A federation that loses to its own sites says so: the share of the gap is negative.
    """
    rows = {i: {j: 0.645 if i == j else 0.359 for j in SITES} for i in SITES}
    runs = [
        run("local", personal_table(rows)),
        run("fedavg", global_table(dict.fromkeys(SITES, 0.539))),
        run("pooled", global_table(dict.fromkeys(SITES, 0.708))),
    ]
    found = told(runs)
    triple = {name: each["value"] for name, each in arm(found, "fedavg")["triple"].items()}
    assert triple == pytest.approx(
        {"on_site": -0.164, "off_site": 0.501, "gap_closed": -1.68}, abs=0.005
    )
    assert found["headline"][0].startswith("fedavg is worse than local: AUROC \u22120.106")
    assert "worse at 3 (nord, ost, sued)" in found["headline"][1]


def test_the_gap_is_undefined_where_pooling_is_not_clearly_better():
    """With noise, pooled minus local 0.01 has an interval around zero: no share of that."""
    pooled = global_table(dict.fromkeys(SITES, 0.81))
    runs = [run("local", LOCAL, noise=0.05), RUNS[1], run("pooled", pooled, noise=0.05)]
    found = arm(told(runs), "fedavg")["triple"]["gap_closed"]
    assert found["value"] is None
    assert found["reason"] == (
        "undefined: pooled minus local is not clearly positive (interval includes 0)"
    )
    worse = [*RUNS[:2], run("pooled", global_table(dict.fromkeys(SITES, 0.7)))]
    assert arm(told(worse), "fedavg")["triple"]["gap_closed"]["reason"] == found["reason"]
    without = {name: kind for name, kind in ARMS.items() if name != "pooled"}
    found = arm(told(RUNS[:2], without), "fedavg")["triple"]
    assert found["gap_closed"]["reason"] == "undefined: no arm was trained on the pooled data"
    assert found["on_site"]["value"] == pytest.approx(0.05)


def test_columns_are_the_mean_over_sites_the_pooled_sums_and_the_worst_site():
    """A personal arm shows each site's own model; a global arm its one model."""
    found = told()
    local = arm(found, "local")["columns"]["auroc"]
    assert local["mean"]["value"] == pytest.approx(0.8)
    assert local["pooled"]["value"] == pytest.approx(0.8)
    assert (local["worst"]["site"], local["worst"]["value"]) == ("ost", 0.7)
    assert arm(found, "fedavg")["columns"]["auroc"]["mean"]["value"] == pytest.approx(0.84)
    assert arm(found, "fedavg")["global_columns"] is None


def test_a_site_loses_and_is_told_so():
    """fedavg 0.84 against own models 0.8, 0.7 and 0.9: the third should not join for this."""
    found = told()
    verdicts = {each["site"]: each["verdict"] for each in arm(found, "fedavg")["beats_own_model"]}
    assert verdicts == {"nord": "better", "ost": "better", "sued": "worse"}
    assert arm(found, "fedavg")["beats_own_model"][2]["difference"]["value"] == pytest.approx(-0.06)
    assert arm(found, "local")["beats_own_model"] == []
    assert found["headline"][1] == (
        "fedavg against the model a site trains alone, AUROC at 3 sites: "
        "better at 2 (nord, ost), worse at 1 (sued), not shown at none."
    )


def test_differences_are_paired_by_patient():
    """The noise of the patients is the same in both arms and cancels, but for the arms' own.

    0.002 of fedavg's one model and 0.002 / sqrt(3) of the three local ones, times 1.96.
    """
    found = told()["comparisons"][0]
    half = 1.96 * 0.002 * np.sqrt(1 + 1 / 3)
    assert found["difference"]["low"] == pytest.approx(0.04 - half, abs=0.001)
    assert found["difference"]["high"] == pytest.approx(0.04 + half, abs=0.001)
    mean = arm(told(), "fedavg")["columns"]["auroc"]["mean"]
    assert mean["high"] - mean["low"] > 0.05
    assert found["sentence"].startswith(
        "fedavg is better than local: AUROC +0.040 (95% interval +0.03"
    )
    assert "), mean over sites; p = " in found["sentence"]


def test_a_difference_within_the_noise_is_not_shown():
    """0.04 with a standard error of 0.05 * sqrt(2 / 3): neither a win nor a loss."""
    runs = [run("local", LOCAL, noise=0.05), run("fedavg", FEDAVG, noise=0.05), RUNS[2]]
    found = told(runs)
    main = found["comparisons"][0]
    assert not main["supported"]
    assert main["sentence"].startswith("fedavg against local: no difference is shown; AUROC +0.040")
    assert main["p"] == main["p_adjusted"] > 0.05


def test_when_lower_is_better_a_smaller_number_wins():
    """The Brier score of the same tables: 0.84 against 0.80 is a loss, pooled is worst of all."""
    runs = [
        run(name, table, metric="brier")
        for name, table in (("local", LOCAL), ("fedavg", FEDAVG), ("pooled", POOLED))
    ]
    primary = Primary(arm="fedavg", against="local", metric="brier")
    found = told(runs, metrics=[BRIER], primary=primary)
    fedavg = arm(found, "fedavg")
    verdicts = [each["verdict"] for each in fedavg["beats_own_model"]]
    assert verdicts == ["worse", "worse", "better"]
    assert fedavg["triple"]["on_site"]["value"] == pytest.approx(-0.05)
    assert "not clearly positive" in fedavg["triple"]["gap_closed"]["reason"]
    assert fedavg["columns"]["brier"]["worst"]["value"] == pytest.approx(0.84)
    assert arm(found, "local")["columns"]["brier"]["worst"]["site"] == "sued"
    assert found["comparisons"][0]["sentence"].startswith("fedavg is worse than local: Brier score")


def test_the_primary_comes_first_unadjusted_and_the_others_after_holm():
    """The others share the error rate of 5 %; the declared one has its own."""
    runs = [*RUNS, run("fedprox", global_table(dict.fromkeys(SITES, 0.795)), noise=0.004)]
    arms = {"fedprox": "global", **ARMS}
    found = told(runs, arms)
    order = [(each["arm"], each["primary"], each["supported"]) for each in found["comparisons"]]
    assert order == [("fedavg", True, True), ("fedprox", False, False), ("pooled", False, True)]
    assert all(each["against"] == "local" for each in found["comparisons"])
    p = [each["p"] for each in found["comparisons"]]
    assert found["comparisons"][0]["p_adjusted"] == p[0]
    assert [each["p_adjusted"] for each in found["comparisons"][1:]] == holm(p[1:])
    assert " after Holm" in found["comparisons"][1]["sentence"]
    assert (
        "Other arms against local, after Holm: better: pooled; worse: none; not shown: fedprox."
        in found["headline"]
    )


def test_no_interval_with_fewer_than_ten_images_of_a_class():
    """A site with 4 positives: its value stands without an interval, and no verdict is given."""
    few = {**dict.fromkeys(SITES, COUNTS), "ost": {**COUNTS, "positives": [4]}}
    found = told([replace(each, counts=few) for each in RUNS])
    own = arm(found, "fedavg")["beats_own_model"][1]
    assert own["verdict"] == "not shown"
    assert own["difference"]["low"] is None
    assert own["difference"]["reason"] == (
        "no interval: 4 positive test images; needs 10 of each class"
    )
    assert arm(found, "fedavg")["columns"]["auroc"]["mean"]["low"] is not None
    assert any("no interval there" in note and "ost" in note for note in found["notes"])
    fewer = {site: {**COUNTS, "positives": [3]} for site in SITES}
    found = told([replace(each, counts=fewer) for each in RUNS])
    main = found["comparisons"][0]
    assert (main["p"], main["supported"], main["difference"]["low"]) == (None, False, None)
    assert "no interval: 9 positive test images; needs 10 of each class" in main["sentence"]


def test_the_rule_of_ten_counts_patients():
    """Forty positive images of three patients are three; one with both classes counts in both."""
    told_so = {**COUNTS, "positive_patients": [3], "negative_patients": [60]}
    found = told([replace(each, counts=dict.fromkeys(SITES, told_so)) for each in RUNS])
    own = arm(found, "fedavg")["beats_own_model"][0]["difference"]
    assert own["reason"] == "no interval: 3 positive test patients; needs 10 of each class"
    main = found["comparisons"][0]["difference"]
    assert main["reason"] == "no interval: 9 positive test patients; needs 10 of each class"


def test_a_site_where_the_metric_is_undefined_is_left_out_and_named():
    """ost has healthy patients only: no AUROC in any arm; the others are still compared."""
    why = {"auroc": "test set has one class only: 0 positive, 44 negative"}

    def without(each: ArmRun) -> ArmRun:
        cells = {
            (model, site): {"auroc": np.full(B + 1, np.nan)} if site == "ost" else cell
            for (model, site), cell in each.cells.items()
        }
        return replace(each, cells=cells, reasons=dict.fromkeys(each.cells, why))

    found = told([without(each) for each in RUNS])
    mean = arm(found, "local")["columns"]["auroc"]["mean"]
    assert mean["value"] == pytest.approx(0.85)
    assert mean["reason"] == "over 2 of 3 sites: nord, sued"
    assert found["comparisons"][0]["difference"]["value"] == pytest.approx(-0.01)
    assert "mean over 2 of 3 sites: nord, sued" in found["comparisons"][0]["sentence"]
    own = arm(found, "fedavg")["beats_own_model"][1]
    assert own["difference"]["reason"] == f"fedavg: {why['auroc']}"
    cells = found["matrix"]["rows"][0]["cells"]
    assert (cells[1]["value"], cells[1]["reason"]) == (None, why["auroc"])
    assert arm(found, "fedavg")["triple"]["off_site"]["reason"] == "over 4 of 6 pairs"


def test_an_interval_with_undefined_replicates_says_how_many():
    """Above 5 % the rest would be a picked sample."""
    runs = [
        replace(each, cells={k: {"auroc": v["auroc"].copy()} for k, v in each.cells.items()})
        for each in RUNS
    ]
    runs[1].cells["global", "ost"]["auroc"][1:41] = np.nan
    found = arm(told(runs), "fedavg")["columns"]["auroc"]["worst"]
    assert arm(told(runs), "fedavg")["columns"]["auroc"]["mean"]["reason"] == (
        "no interval: undefined in 10% of the replicates"
    )
    assert found["site"] == "nord"


def test_a_resample_that_one_arm_lacks_counts_in_neither():
    """Else the difference would be one between different sites, and jump by 0.4 / 24."""
    sites = [f"s{number:02d}" for number in range(25)]
    levels = {site: 0.9 if site == "s00" else 0.5 for site in sites}
    alone = run("local", personal_table({site: {site: levels[site]} for site in sites}))
    ours = run("fedavg", global_table({site: levels[site] + 0.05 for site in sites}))
    ours.cells["global", "s00"]["auroc"][1::2] = np.nan
    found = told([alone, ours], {"local": "personal", "fedavg": "global"}, sites=sites)
    difference = found["comparisons"][0]["difference"]
    half = 1.96 * 0.002 * np.sqrt(1 + 1 / 25)
    ends = (difference["low"], difference["high"])
    assert ends == pytest.approx((0.05 - half, 0.05 + half), abs=0.0005)


def test_seeds_are_averaged_and_their_noise_is_in_the_interval():
    """Differences 0.00 and 0.08: mean 0.04, SD 0.0566, and t with one degree of freedom is 12.7.

    Patients tell the two trainings of an arm nothing apart, so 0.04 +- 12.7 * 0.0566 / sqrt(2).
    """
    spread = [
        run("fedavg", global_table(dict.fromkeys(SITES, value)), seed=seed, noise=0.0)
        for seed, value in enumerate((0.80, 0.88))
    ]
    both = [replace(run("local", LOCAL, noise=0.0), seed=seed) for seed in (0, 1)]
    found = told([*spread, *both], {"local": "personal", "fedavg": "global"}, seeds=1)
    main = found["comparisons"][0]["difference"]
    assert main["value"] == pytest.approx(0.04)
    assert main["seed_sd"] == pytest.approx(0.08 / np.sqrt(2))
    half = 12.7062 * 0.04
    assert (main["low"], main["high"]) == pytest.approx((0.04 - half, 0.04 + half), rel=1e-3)
    # Two other seeds: the difference of two such means.
    assert main["other_seeds"] == pytest.approx(half * np.sqrt(2), rel=1e-3)
    assert not found["comparisons"][0]["supported"]
    assert any("2 seeds" in note for note in found["notes"])


def test_no_interval_leaves_what_the_metric_can_be_and_two_seeds_are_told_to_say_next_to_nothing():
    """Differences 0.00 and 0.16: 12.7 * 0.08 is past 1, and two AUROCs are never that far apart."""
    spread = [
        run("fedavg", global_table(dict.fromkeys(SITES, value)), seed=seed, noise=0.0)
        for seed, value in enumerate((0.80, 0.96))
    ]
    both = [replace(run("local", LOCAL, noise=0.0), seed=seed) for seed in (0, 1)]
    found = told([*spread, *both], {"local": "personal", "fedavg": "global"}, seeds=1)
    main = found["comparisons"][0]["difference"]
    assert main["value"] == pytest.approx(0.08)
    assert (main["low"], main["high"]) == pytest.approx((0.08 - 12.7062 * 0.08, 1.0), rel=1e-3)
    assert main["other_seeds"] == pytest.approx(1.08)
    mean = arm(found, "fedavg")["columns"]["auroc"]["mean"]
    assert mean["other_seeds"] == pytest.approx(0.88)
    assert "; 2 seeds say next to nothing of it;" in found["comparisons"][0]["sentence"]
    assert "next to nothing" not in told()["comparisons"][0]["sentence"]


def test_where_nothing_was_compared_no_site_is_counted():
    """ "Not shown at 3" of an arm that was never played would be a finding of nothing."""
    found = told([RUNS[0], RUNS[2]], unfinished={"fedavg": "not run yet"})
    assert found["headline"][1] == (
        "fedavg against the model a site trains alone: no comparison; fedavg: not run yet."
    )
    assert {row["verdict"] for row in arm(found, "fedavg")["beats_own_model"]} == {"no comparison"}
    found = told([RUNS[1]], unfinished={"local": "not run yet", "pooled": "not run yet"})
    assert "Other arms against local: no comparison; pooled: not run yet." in found["headline"]
    assert "not shown" not in " ".join(found["headline"])


@pytest.mark.parametrize("seeds", [1, 2])
def test_sites_are_counted_where_both_arms_are_defined(seeds):
    """ost has healthy patients only, so that an AUROC is compared at two of three sites."""
    runs = [
        replace(
            each,
            cells={
                key: {"auroc": np.full(B + 1, np.nan)} if key[1] == "ost" else cell
                for key, cell in each.cells.items()
            },
            reasons={key: {"auroc": "one class only"} for key in each.cells},
        )
        for each in RUNS
    ]
    line = told(runs, seeds=seeds)["headline"][1]
    assert "AUROC at 2 of 3 sites: " in line
    assert line.endswith("; no comparison at ost: fedavg: one class only.")
    assert ("not shown at none" in line) == (seeds == 2)


def test_arms_are_compared_over_the_seeds_that_both_have():
    """local finished seeds 0 and 1, fedavg only 1: seed 0 says nothing about their difference."""
    better = personal_table({i: dict.fromkeys(SITES, 0.9) for i in SITES})
    runs = [run("local", LOCAL), run("local", better, seed=1), run("fedavg", FEDAVG, seed=1)]
    found = told(runs, {"local": "personal", "fedavg": "global"}, seeds=1)
    assert found["comparisons"][0]["difference"]["value"] == pytest.approx(-0.06)
    assert "fedavg finished 1 of 2 seeds: [1]." in found["notes"]
    apart = [run("local", LOCAL), run("fedavg", FEDAVG, seed=1)]
    found = told(apart, {"local": "personal", "fedavg": "global"}, seeds=1)
    assert "fedavg and local have no seed in common" in found["comparisons"][0]["sentence"]


def test_of_one_training_of_each_no_verdict_is_given_anywhere():
    """FedAvg against itself with another seed was "better" or "worse" in 6 of 10 experiments."""
    runs = [*RUNS, run("fedprox", global_table(dict.fromkeys(SITES, 0.7)))]
    found = told(runs, {**ARMS, "fedprox": "global"}, seeds=1)
    main = found["comparisons"][0]
    assert (main["p"], main["p_adjusted"], main["supported"]) == (None, None, False)
    assert main["sentence"].startswith(
        "fedavg against local: one training of each: no verdict beyond it; AUROC +0.040 "
        "(95% interval +0.03"
    )
    assert " over patients, for these trained models only), mean over sites." in main["sentence"]
    verdicts = {row["verdict"] for each in found["arms"] for row in each["beats_own_model"]}
    assert verdicts == {"one training"}
    said = " ".join([*found["headline"], *(each["sentence"] for each in found["comparisons"])])
    for word in ("better", "worse", "not shown", "difference is shown"):
        assert word not in said
    assert "Other arms against local: one training of each: no verdict beyond it." in said
    assert any(note.startswith("One training of each arm:") for note in found["notes"])
    assert found["notes"][-1].endswith("apart: one training of each: no verdict beyond it.")


def test_two_arms_at_chance_are_told_so_beside_the_verdict():
    """0.512 against 0.421 of noise 0.05 a site: worse, and yet neither knows anything."""
    runs = [
        run("local", global_table(dict.fromkeys(SITES, 0.512)), noise=0.05),
        run("fedavg", global_table(dict.fromkeys(SITES, 0.421)), noise=0.05),
    ]
    arms = {"local": "global", "fedavg": "global"}
    sentence = told(runs, arms)["comparisons"][0]["sentence"]
    chance = (
        "Neither of the two is shown to be above chance: AUROC 0.421 and 0.512, where a model "
        "that knows nothing has 0.5."
    )
    assert sentence.endswith(chance)
    assert told(runs, arms, seeds=1)["comparisons"][0]["sentence"].endswith(chance)
    assert told()["comparisons"][0]["chance"] is None
    one_knows = [run("local", global_table(dict.fromkeys(SITES, 0.9))), runs[1]]
    assert told(one_knows, arms)["comparisons"][0]["chance"] is None


def test_chance_is_the_prevalence_for_auprc_and_one_in_k_for_balanced_accuracy():
    three = {"images": 90, "positives": [30, 30, 30], "negatives": [60, 60, 60]}
    for metric, counts, level in (
        ("auprc", COUNTS, 0.4),
        ("balanced_accuracy", COUNTS, 0.5),
        ("balanced_accuracy", three, 1 / 3),
        ("brier", COUNTS, None),
    ):
        known = ArmRun("a", 0, {}, counts=dict.fromkeys(SITES, counts))
        found = METRICS[metric](TASK)
        evidence = Evidence([known], {"a": "global"}, SITES, (), [found], {}, 0.95)
        assert chance_level(evidence, found, SITES) == (level and pytest.approx(level))


def test_a_verdict_near_the_limit_is_called_near():
    """A p of 0.03 or 0.07 would turn with other seeds; one of 0.001 hardly."""
    for gain, near in ((0.0050, False), (0.0108, True), (0.0200, False)):
        table = global_table(dict.fromkeys(SITES, 0.5))
        ours = global_table(dict.fromkeys(SITES, 0.5 + gain))
        runs = [run("local", table, noise=0.0), run("fedavg", ours, noise=0.005)]
        sentence = told(runs, {"local": "global", "fedavg": "global"})["comparisons"][0]["sentence"]
        assert ("other seeds or another machine could turn it" in sentence) == near


def test_an_arm_that_did_not_finish_has_no_numbers_and_its_reason():
    """Also when it is the primary one; the others are told as ever."""
    found = told([RUNS[0], RUNS[2]], unfinished={"fedavg": "stopped in round 3: the loss is nan"})
    main = found["comparisons"][0]
    assert main["difference"]["value"] is None
    assert main["sentence"] == (
        "fedavg against local: no comparison; fedavg: stopped in round 3: the loss is nan."
    )
    fedavg = arm(found, "fedavg")
    assert fedavg["columns"]["auroc"]["mean"]["reason"] == "stopped in round 3: the loss is nan"
    assert fedavg["triple"]["on_site"]["value"] is None
    assert "fedavg has no result: stopped in round 3: the loss is nan." in found["headline"]
    assert found["comparisons"][1]["supported"]
    assert {row["arm"] for row in found["matrix"]["rows"]} == {"local", "pooled"}


def test_a_collapsed_arm_is_told():
    """Nearly equal scores can still have an AUROC, and one class a fine accuracy."""
    runs = [RUNS[0], replace(RUNS[1], share_in_fullest_bin=0.97, one_class=True), RUNS[2]]
    found = told(runs, seeds=1)
    assert arm(found, "fedavg")["collapse"] == (
        "up to 97% of the scores are all but equal (1 of 1 seed); "
        "every image is given the same class (1 of 1 seed)"
    )
    assert any(line.startswith("fedavg collapsed: up to 97%") for line in found["headline"])
    assert arm(found, "pooled")["collapse"] is None


def test_held_out_sites_are_external_and_shaded_in_the_matrix():
    """Personal arms: mean over the sites' models, (0.5 + 0.6 + 0.7) / 3; no training site there."""
    outside = {("personal:nord", "west"): 0.5, ("personal:ost", "west"): 0.6}
    local = {**LOCAL, **outside, ("personal:sued", "west"): 0.7}
    runs = [run("local", local), run("fedavg", {**FEDAVG, ("global", "west"): 0.75}), RUNS[2]]
    found = told(runs, held_out=["west"])
    assert arm(found, "local")["external"]["auroc"]["west"]["value"] == pytest.approx(0.6)
    assert arm(found, "fedavg")["external"]["auroc"]["west"]["value"] == pytest.approx(0.75)
    assert arm(found, "pooled")["external"]["auroc"]["west"]["reason"] == "not evaluated"
    matrix = found["matrix"]
    assert [column["held_out"] for column in matrix["columns"]] == [False, False, False, True]
    assert matrix["columns"][0] == {
        "site": "nord",
        "held_out": False,
        "images": 100,
        "positives": 40,
    }
    rows = [(row["arm"], row["model"]) for row in matrix["rows"]]
    assert rows == [
        *[("local", site) for site in SITES],
        ("fedavg", "global"),
        ("pooled", "global"),
    ]
    values = [[cell["value"] for cell in row["cells"]] for row in matrix["rows"]]
    np.testing.assert_allclose(values[0], [0.8, 0.6, 0.5, 0.5])
    assert any(note.startswith("local: no global model") for note in found["notes"])


def test_an_arm_with_both_kinds_is_compared_by_its_personal_models():
    """A fine-tuned arm: 0.9 at home with its own, 0.84 with the global one, also shown."""
    tuned = personal_table({i: {j: 0.9 if i == j else 0.5 for j in SITES} for i in SITES})
    outside = {("global", "west"): 0.75, ("personal:nord", "west"): 0.5}
    runs = [RUNS[0], run("fedavg", {**FEDAVG, **tuned, **outside}), RUNS[2]]
    found = told(runs, {**ARMS, "fedavg": "both"}, held_out=["west"])
    fedavg = arm(found, "fedavg")
    assert fedavg["columns"]["auroc"]["mean"]["value"] == pytest.approx(0.9)
    assert fedavg["global_columns"]["auroc"]["mean"]["value"] == pytest.approx(0.84)
    assert found["comparisons"][0]["difference"]["value"] == pytest.approx(0.1)
    # A stranger has no model of its own.
    assert fedavg["external"]["auroc"]["west"]["value"] == pytest.approx(0.75)
    assert [row["model"] for row in found["matrix"]["rows"][3:7]] == [*SITES, "global"]
    assert any(note.startswith("fedavg: compared by each site's own") for note in found["notes"])


def test_the_gain_of_the_best_arm_is_told_beside_the_noise():
    """Pooled 0.88 and fedavg 0.84 with noise of 0.05 a site: the order could be chance."""
    runs = [RUNS[0], run("fedavg", FEDAVG, noise=0.05), run("pooled", POOLED, noise=0.05)]
    note = told(runs)["notes"][-1]
    assert note.startswith(
        "The two best means are those of pooled and fedavg, +0.040 (95% interval \u2212"
    )
    assert note.endswith("within the noise.")


def test_a_sentence_and_a_table_write_the_same_number_in_the_same_way():
    """No minus before what rounds to zero: a reader takes the two for two results."""
    found = {"value": 0.0224, "low": -0.0004, "high": 0.045, "seeds": 2, "reason": None}
    assert interval(found, signed=True) == "0.000 to +0.045"
    assert _bounds(found, 0.95) == "+0.022 (95% interval 0.000 to +0.045)"
    share = {"value": 0.08, "low": -0.004, "high": 0.17, "seeds": 2, "reason": None}
    told = "fedavg closes 8% (95% interval 0% to 17%) of the gap between local and pooled."
    assert _gap("fedavg", share, 0.95) == told
    below = {**share, "value": -0.08, "low": -0.2, "high": None, "reason": "few"}
    assert "closes \u22128% (few) of" in _gap("fedavg", below, 0.95)


def test_results_are_plain_json_without_nan():
    """Also of a run without replicates; the page and other tools read the file."""
    bare = [
        replace(each, cells={k: {"auroc": v["auroc"][:1]} for k, v in each.cells.items()})
        for each in RUNS
    ]
    for found in (told(), told(bare), told([]), told(held_out=["west"])):
        json.dumps(found, allow_nan=False)
        assert set(found) == {"arms", "comparisons", "headline", "matrix", "notes"}
    found = told(bare)["comparisons"][0]
    assert found["difference"]["reason"] == "no interval: no replicates were asked for"
    assert not found["supported"]


def test_fewer_than_a_hundred_replicates_bound_nothing():
    cut = [
        replace(each, cells={k: {"auroc": v["auroc"][:100]} for k, v in each.cells.items()})
        for each in RUNS
    ]
    found = told(cut)["comparisons"][0]
    assert found["difference"]["reason"] == "no interval: 99 replicates; needs 100"
    assert not found["supported"]


def test_of_several_classes_the_rarest_over_all_sites_counts():
    """Each site lacks a class, but together they have twelve of each."""
    counts = {
        site: {"images": 100, "patients": 80, "positives": few, "negatives": [90, 90, 90]}
        for site, few in zip(SITES, ([0, 6, 6], [6, 0, 6], [6, 6, 0]), strict=True)
    }
    found = told([replace(each, counts=counts) for each in RUNS])
    assert found["comparisons"][0]["difference"]["low"] is not None
    own = arm(found, "fedavg")["beats_own_model"][0]["difference"]
    assert own["reason"] == "no interval: 0 positive test images; needs 10 of each class"


def test_the_spread_over_sites_is_told_beside_the_mean():
    """Own test sets 0.8, 0.7 and 0.9; sites of 100, 100 and 200 images: 0.825 when weighted."""
    counts = {**dict.fromkeys(SITES, COUNTS), "sued": {**COUNTS, "images": 200}}
    found = told([replace(each, counts=counts) for each in RUNS])
    level = arm(found, "local")["columns"]["auroc"]
    assert level["weighted"]["value"] == pytest.approx(0.825)
    assert (level["worst"]["site"], level["best"]["site"]) == ("ost", "sued")
    assert level["site_sd"] == pytest.approx(0.1)


def test_own_models_that_were_tested_at_home_only_are_told():
    """With many sites the matrix would be as large as its square; its empty cells are explained."""
    home = {place: value for place, value in LOCAL.items() if place[0].endswith(place[1])}
    alone = told([run("local", home), *RUNS[1:]])
    first = alone["matrix"]["rows"][0]
    assert (first["arm"], first["model"]) == ("local", "own")
    assert [cell["value"] for cell in first["cells"]] == pytest.approx([0.8, 0.7, 0.9])
    told_why = arm(alone, "fedavg")["triple"]["off_site"]["reason"]
    assert told_why == "local: each site's own model was tested at home only"
    note = "local: with 3 sites, each site's own model was tested at home only"
    assert any(each.startswith(note) for each in alone["notes"])
    assert not any(each.startswith(note) for each in told()["notes"])


def test_what_cells_of_patients_may_have_moved_is_said_of_the_pooled_value():
    """Beside the number; the sites' own values are exact."""
    cell = {"auroc": np.full(401, 0.8)}
    places = {("global", "nord"): cell, ("global", "pooled"): cell}
    run = ArmRun("fedavg", 0, places, bounds={"global": {"auroc": 0.0123}})
    found = compare(
        [run, replace(run, arm="fedprox", bounds={})],
        arms={"fedavg": "global", "fedprox": "global"},
        sites=["nord"],
        metrics=[METRICS["auroc"](TASK)],
        primary=Primary(arm="fedavg", against="fedprox", metric="auroc"),
    )["arms"][0]["columns"]["auroc"]
    assert found["pooled"]["reason"].startswith("within 0.012 of that of all scores")
    assert "within" not in (found["mean"]["reason"] or "")
