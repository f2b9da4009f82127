"""YAML in, checked values out; a mistake is told with its place and the nearest that fits."""

from pathlib import Path

import pytest

from fedrad.config import Experiment, from_text, load_experiment, load_federation, load_site
from fedrad.config.names import file_name, name_problem, site_in
from fedrad.errors import ConfigError

TEXT = """
name: tiny
task: {name: binary, labels: [lesion], input: [1, 32, 32]}
data: {name: phantom}
model: cnn
local: {epochs: 1, batch: 8}
rounds: 2
seeds: [0, 1]
arms:
  local: {algorithm: local}
  fedavg: {algorithm: fedavg}
  fedprox: {algorithm: {name: fedprox, mu: 0.1}, local: {steps: 5}}
primary: {arm: fedavg}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new)


def test_the_canonical_text_is_read_back_to_the_same_experiment() -> None:
    """Sites build their half from this text: it must hold all of it."""
    experiment = from_text(TEXT)
    assert from_text(experiment.text()) == experiment
    assert from_text(experiment.text()).text() == experiment.text()


def test_the_canonical_text_does_not_depend_on_order_or_spelling() -> None:
    again = "\n".join(reversed(TEXT.strip().split("\narms:")[0].splitlines()))
    arms = "\narms:" + TEXT.split("\narms:")[1]
    assert from_text(again + arms).digest() == from_text(TEXT).digest()


def test_an_arm_is_the_base_with_what_it_changes() -> None:
    arm = from_text(TEXT).arm("fedprox")
    assert arm.algorithm == {"name": "fedprox", "mu": 0.1}
    assert (arm.local.steps, arm.local.epochs, arm.local.batch) == (5, None, 8)


def test_arms_and_seeds_are_no_part_of_an_arm() -> None:
    """Adding an arm or a seed to an experiment leaves finished arms valid."""
    more = from_text(
        changed(
            "  local: {algorithm: local}", "  local: {algorithm: local}\n  x: {algorithm: local}"
        )
    )
    assert more.arm("fedavg").text() == from_text(TEXT).arm("fedavg").text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 2", "ronds: 2", r"ronds: unknown key; known are .*\(did you mean 'rounds'\?\)"),
        ("batch: 8", "bacth: 8", r"local\.bacth: unknown key; .*\(did you mean 'batch'\?\)"),
        ("batch: 8", "batch: 0", r"local\.batch: must be greater than 0, found 0"),
        ("epochs: 1, ", "", r"local: set one of epochs and steps"),
        ("rounds: 2", "rounds: 2\nrounds: 3", r"tiny\.yaml:\d+: 'rounds' stands twice"),
        ("seeds: [0, 1]", "seeds: [1, 1]", r"seeds: seed 1 stands twice"),
        ("name: binary", "name: binay", r"task\.name: must be 'binary', 'multiclass'"),
        ("[lesion]", "[a, b]", r"task: labels: a binary task has one finding, found 2"),
        (
            "primary: {arm: fedavg}",
            "primary: {arm: fedagv}",
            r"primary\.arm: 'fedagv' is not one of",
        ),
        (
            "  fedavg: {algorithm",
            "  fedavg: {algoritm",
            r"arms\.fedavg\.algoritm: .*did you mean 'algorithm'",
        ),
        (
            "data: {name: phantom}\n",
            "data: {name: phantom}\nsites: [nord.yaml]\n",
            r"set one of data \(an adapter\) and sites",
        ),
        ("name: tiny\n", "name: ../tiny\n", r"name: needs letters, digits, .* the first a letter"),
        ("model: cnn", "model: [", r"tiny\.yaml:\d+: "),
        ("rounds: 2\n", "", r"rounds: is missing"),
        (
            "rounds: 2\n",
            "rounds: 2\nmetrics: [auroc, auroc]\n",
            r"metrics: metric auroc stands twice",
        ),
        ("primary: {arm: fedavg}", "", r"primary: declare one comparison before the results"),
        ("rounds: 2\n", "rounds: 2\nmetrics: []\n", r"metrics: needs one metric or more"),
        (
            "rounds: 2\n",
            "rounds: 2\nheld_out_sites: [nord, nord]\n",
            r"held_out_sites: site 'nord' stands twice",
        ),
        (
            "rounds: 2\n",
            "rounds: 2\nheld_out_sites: [../nord]\n",
            r"held_out_sites\.0: a site cannot have this name: it begins with '\.'",
        ),
        (
            "data: {name: phantom}",
            "sites: [nord.yaml]\npartition: {name: iid, sites: 2}",
            r"partition: deals out one source \(data\); sites have their own",
        ),
        (
            "  fedavg: {algorithm: fedavg}",
            "  fedavg: {algorithm: fedavg, local: 5}",
            r"arms\.fedavg\.local: needs keys and values, .* found int",
        ),
        ("  local: {", "  sites: {", r"an arm cannot be named 'sites'; the run's folder has one"),
        ("  local: {", "  Results.json: {", r"an arm cannot be named 'Results\.json'"),
        (
            "rounds: 2\n",
            "rounds: 2\nsites_per_round: 2\nquorum: 3\n",
            r"quorum: 3 of the 2 sites_per_round cannot answer",
        ),
        ("rounds: 2", "rounds: 2\ndeadline: .inf", r"deadline: must be a finite number"),
        ("batch: 8", "batch: 1000000000", r"local\.batch: must be less than or equal to"),
        (
            "rounds: 2",
            "rounds: 2\nwrap: [finetune, finetune]",
            r"wrap: wrapper finetune stands twice",
        ),
        ("rounds: 2", "2: rounds", r"tiny\.yaml: 2: a key is a text"),
        ("rounds: 2", "rounds: 2024-99-99", r"tiny\.yaml: no YAML; a number or a date"),
        ("model: cnn", f"model: {'x' * 5000}\nronds: 1", r"ronds: unknown key"),
    ],
)
def test_a_mistake_is_told_with_place_and_fit(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(written(tmp_path, changed(old, new)))


def test_a_missing_file_and_a_list_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^none\.yaml: cannot be read"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="needs a mapping"):
        load_experiment(written(tmp_path, "- a\n- b\n"))


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    """A YAML file from elsewhere is data: no tag may call anything."""
    evil = changed("rounds: 2", "rounds: !!python/object/apply:os.system ['true']")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_experiment(written(tmp_path, evil))


def test_overrides_reach_inside_and_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, TEXT)
    experiment = load_experiment(path, ["rounds=5", "local.batch=16", "seeds=[7]"])
    assert (experiment.rounds, experiment.local.batch, experiment.seeds) == (5, 16, (7,))
    with pytest.raises(ConfigError, match="needs key=value"):
        load_experiment(path, ["rounds"])
    with pytest.raises(ConfigError, match="ronds: unknown key"):
        load_experiment(path, ["ronds=5"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=[", r"^--set rounds:1: "),
        ("rounds={a: 1, a: 2}", r"^--set rounds:1: 'a' stands twice"),
        (".=1", "needs key=value"),
        ("local..batch=1", "needs key=value"),
        ("rounds=" + "[" * 20_000, r"^--set rounds: values are nested too deeply"),
        ("seeds=0", r"seeds: needs a list, such as \[0\], found 0$"),
        ("seeds=[]", r"seeds: needs one seed or more, such as \[0\]$"),
        ("seeds=[a]", r"seeds\.0: needs a whole number, found 'a'$"),
        ("rounds=0", r"rounds: must be greater than 0, found 0$"),
        ("rounds=2.5", r"rounds: needs a whole number, found 2\.5$"),
        ("metrics=auroc", r"metrics: needs a list, such as \[auroc\], found 'auroc'$"),
        ("arms=[]", r"arms: needs keys and values, such as \{key: value\}, found \[\]$"),
        ("rounds.more=1", r"rounds: needs a whole number, found \{'more': 1\}"),
    ],
)
def test_an_override_that_is_no_yaml_is_told(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(written(tmp_path, TEXT), [override])


def doubled(times: int) -> str:
    """Each line refers twice to the one before: 2 ** times values in as many lines."""
    lines = ["a0: &a0 [1]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, times))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: " + b"[" * 20_000, r"^tiny\.yaml: values are nested too deeply$"),
        (b"a: " + b"[" * 40 + b"]" * 40, r"^tiny\.yaml: values are nested too deeply$"),
        (b"a: &a [*a]", r"^tiny\.yaml: values are nested too deeply$"),
        (doubled(29).encode(), r"^tiny\.yaml: holds more than 100,000 values$"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00",
            r"^tiny\.yaml: cannot be read \(it is no UTF-8 text, line 1\); save it as UTF-8$",
        ),
        (b"PK\x03\x04\x00\x00", r"^tiny\.yaml: no YAML$"),
        (b"a: {[1]: 2, [1]: 3}", r"stands twice$"),
        (b"a: {[1]: 2}", r"^tiny\.yaml:1: found unhashable key$"),
        (b"", r"needs a mapping .* found NoneType"),
    ],
)
def test_a_file_that_is_no_experiment_is_told_in_a_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """Such a text may come from a coordinator: it must neither crash a site nor fill its memory."""
    path = tmp_path / "tiny.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as told:
        load_experiment(path)
    assert str(tmp_path) not in str(told.value) and len(str(told.value)) < 200


def test_a_folder_in_the_place_of_a_file_is_told_without_its_path(tmp_path: Path) -> None:
    """A folder's name can be a patient's, and the message may travel."""
    (tmp_path / "tiny.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"^tiny\.yaml: cannot be read \(Is a directory\)"):
        load_experiment(tmp_path / "tiny.yaml")


def test_a_huge_value_is_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load_experiment(written(tmp_path, changed("rounds: 2", f"rounds: {'x' * 50_000}")))
    assert len(str(told.value)) < 300


def test_the_name_defaults_to_the_files(tmp_path: Path) -> None:
    assert load_experiment(written(tmp_path, changed("name: tiny\n", ""))).name == "tiny"


def test_a_site_file_is_checked_and_may_not_be_called_pooled(tmp_path: Path) -> None:
    good = tmp_path / "nord.yaml"
    good.write_text("name: nord\ndata: {name: phantom}\n", encoding="utf-8")
    assert load_site(good).name == "nord"
    good.write_text("name: pooled\ndata: {name: phantom}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="no site may be named 'pooled'"):
        load_site(good)


@pytest.mark.parametrize(
    "name",
    ["nord", "Klinik Süd (2)", "Çeşme-1", "東京_3", "क्लिनिक", "St. Anna", "St. Mary's",
     "King\u2019s", "Barts & Co.", "Mitte+Ost", "010", "no", "1e3", "console"],
)  # fmt: skip
def test_a_site_bears_a_name_of_any_language(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"), ("  ", "empty"), ("..", "begins with"), (".x", "begins with"),
        ("a/b", "solidus"), ("a\\b", "reverse solidus"), ("a|b", "vertical line"),
        ("a,b", "comma"), ("a\nb", "control"), ("a\x00", "control"), ("a:b", "colon"),
        ("CON", "Windows"), ("nul.x", "Windows"), ("com1", "Windows"), ("a<b", "less-than"),
        ("a\u202eb", "right-to-left"), ("a=b", "equals"), ("a%b", "percent"), ("a*b", "asterisk"),
        ('a"b', "quotation"), ("a$b", "dollar"), ("a`b", "grave"), ("~a", "tilde"),
        ("a ", "ends with a space"), ("x" * 101, "longer than 100"), ("東" * 90, "240 bytes"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_folder_or_breaks_a_key_is_refused(name: str, why: str) -> None:
    """Names become folders (`/`, `..`), keys of cells (`|`) and lists in messages (`,`)."""
    problem = name_problem(name)
    assert problem is not None and why in problem


@pytest.mark.parametrize("name", ["nord", "Klinik Süd (2)", "St. Anna", "東京_3", "a-1.5"])
def test_names_that_were_allowed_before_keep_their_folders(name: str) -> None:
    """A kit that exists is found again."""
    assert file_name(name) == name


def test_folders_of_different_sites_differ_and_tell_the_site() -> None:
    """No mark is left that a shell or a unit file reads, and none leads outside."""
    names = ["St. Mary's", "St. Mary\u2019s", "St. Marys", "St. Mary.", "St. Mary", "A & B", "A+B"]
    folders = [file_name(name) for name in names]
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert [site_in(folder) for folder in folders] == names
    for folder in folders:
        assert not set(folder) & set("'\u2019&+/\\$`\"*?<>|;:%") and not folder.endswith(".")


def test_one_name_in_two_unicode_forms_is_one_site(tmp_path: Path) -> None:
    """macOS writes an umlaut as a letter and a mark after it."""
    changed_ = TEXT + "held_out_sites: [Su\u0308d]\n"
    assert load_experiment(written(tmp_path, changed_)).held_out_sites == ("S\u00fcd",)


@pytest.mark.parametrize(
    "word", ["010", "8", "no", "yes", "2024-01-02", "1.5", "12:30", "0x1F", "0b11", "1_000", "~"]
)
@pytest.mark.parametrize("key", ["held_out_sites: [{}]", "name: {}", "labels"])
def test_a_name_that_yaml_takes_for_something_else_is_refused_with_the_cure(
    tmp_path: Path, key: str, word: str
) -> None:
    """YAML 1.1 reads 010 as 8, no as false and 12:30 as 750; in quotes each is what it says."""

    def text(written_: str) -> str:
        if key == "labels":
            return changed("labels: [lesion]", f"labels: [{written_}]")
        if key.startswith("name"):
            return changed("name: tiny", f"name: {written_}")
        return TEXT + key.format(written_) + "\n"

    with pytest.raises(ConfigError, match=r"put names \(of sites, labels\) in quotes"):
        load_experiment(written(tmp_path, text(word)))
    if ":" not in word and "~" not in word:
        load_experiment(written(tmp_path, text(f'"{word}"')))


@pytest.mark.parametrize("word", ["010", "no", "2024-01-02"])
def test_site_and_federation_files_say_so_too(tmp_path: Path, word: str) -> None:
    path = tmp_path / "site.yaml"
    for load, text in (
        (load_site, "name: {}\ndata: phantom\n"),
        (load_federation, "name: demo\ncoordinator: {{host: localhost}}\nsites: {{{}: {{}}}}\n"),
    ):
        path.write_text(text.format(word), encoding="utf-8")
        with pytest.raises(ConfigError, match=r"put names .* in quotes"):
            load(path)
        path.write_text(text.format(f'"{word}"'), encoding="utf-8")
        load(path)


def test_an_experiment_may_be_saved_as_utf_16(tmp_path: Path) -> None:
    """As Windows' editor does for "Unicode"."""
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TEXT.encode("utf-16"))
    assert load_experiment(path) == from_text(TEXT)


def test_an_experiment_cannot_be_changed() -> None:
    experiment: Experiment = from_text(TEXT)
    with pytest.raises(ValueError, match="frozen"):
        experiment.rounds = 3
