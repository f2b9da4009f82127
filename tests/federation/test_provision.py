"""Startup kits: every secret in one place, and a second run that changes nothing."""

import re
import ssl
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from fedrad.config import FederationFile, load_federation, load_site_file
from fedrad.config.checking import checked
from fedrad.deployment.coordinator.service import CoordinatorKit
from fedrad.deployment.kits.certificates import names_of, read_certificate
from fedrad.deployment.kits.keys import make_node_key, public_key_of, read_public_key, write_secret
from fedrad.deployment.kits.provision import provision, revoke, rotate_key
from fedrad.errors import ConfigError, RunError

TEXT = """
name: demo
coordinator: {host: fl.example.org, also: [10.0.0.7, "::1"]}
sites:
  nord: {data_from: nord-data.yaml}
  sued:
"""
DATA = "name: anyone\ndata: {name: phantom, hospitals: {nord: {patients: 12}}}\n"


def asked(folder: Path, text: str = TEXT) -> Path:
    (folder / "nord-data.yaml").write_text(DATA, encoding="utf-8")
    path = folder / "federation.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    provision(load_federation(asked(tmp_path)), tmp_path / "kits")
    return tmp_path / "kits"


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_second_run_changes_nothing(kits: Path) -> None:
    """A hospital has filled in its site file; a key that changes would lock it out."""
    before = contents(kits)
    done = provision(load_federation(kits.parent / "federation.yaml"), kits)
    assert done.made == [] and contents(kits) == before


def test_a_second_run_makes_only_what_is_missing(kits: Path) -> None:
    before = contents(kits)
    (kits / "nord" / "README.txt").unlink()
    done = provision(load_federation(kits.parent / "federation.yaml"), kits)
    assert done.made == ["nord/README.txt"]
    assert {name: text for name, (text, _) in contents(kits).items()} == {
        name: text for name, (text, _) in before.items()
    }


def test_a_site_joins_later_and_the_others_keep_their_kits(kits: Path) -> None:
    before = contents(kits)
    more = load_federation(asked(kits.parent, TEXT + "  west:\n"))
    made = provision(more, kits).made
    assert {name.split("/")[0] for name in made} == {"west", "west.tar.gz", "coordinator"}
    assert before.items() <= contents(kits).items()


def test_private_keys_are_for_their_owner_alone_and_in_no_other_bundle(kits: Path) -> None:
    """Each private key's bytes stand in its own folder and its own archive, nowhere else."""
    keys = sorted(kits.rglob("*.key"))
    assert [key.relative_to(kits).as_posix() for key in keys] == [
        "ca/ca.key", "coordinator/server.key", "nord/node.key", "sued/node.key",
    ]  # fmt: skip
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        secret = key.read_bytes()
        others = [p for p in kits.rglob("*") if p.is_file() and p != key]
        assert not any(secret in other.read_bytes() for other in others)
        for archive in kits.glob("*.tar.gz"):
            with tarfile.open(archive) as opened:
                inside = [opened.extractfile(m).read() for m in opened.getmembers()]  # type: ignore[union-attr]
            owner = archive.name == f"{key.parent.name}.tar.gz"
            assert (secret in inside) == owner


def test_an_archive_is_the_whole_kit_and_its_key_unpacks_as_0600(
    kits: Path, tmp_path: Path
) -> None:
    assert stat.S_IMODE((kits / "nord.tar.gz").stat().st_mode) == 0o600
    subprocess.run(["tar", "-xzf", kits / "nord.tar.gz", "-C", tmp_path], check=True)
    there = tmp_path / "nord"
    assert {p.name for p in there.iterdir()} == {p.name for p in (kits / "nord").iterdir()}
    assert stat.S_IMODE((there / "node.key").stat().st_mode) == 0o600


def test_the_coordinators_certificate_holds_for_its_names_and_chains_to_the_authority(
    kits: Path,
) -> None:
    """OpenSSL is the judge: it checks what a site's gRPC will check."""
    names = names_of(read_certificate(kits / "coordinator" / "server.pem"))
    assert names == ("fl.example.org", "10.0.0.7", "::1")
    for name in names:
        assert handshake(kits, name) is None
    assert "mismatch" in str(handshake(kits, "other.example.org"))


def handshake(kits: Path, name: str) -> str | None:
    """Return why a TLS handshake in memory fails, or None."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(kits / "coordinator" / "server.pem", kits / "coordinator" / "server.key")
    client = ssl.create_default_context(cafile=str(kits / "nord" / "ca.crt"))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(up, down, server_side=True)
    here = client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return None


def test_the_site_key_is_what_flower_reads_and_registers(kits: Path) -> None:
    """Flower's own checks of a private and a public key, at the places where it makes them."""
    from argparse import Namespace

    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    place = Namespace(
        auth_supernode_private_key=str(kits / "nord" / "node.key"), auth_supernode_public_key=None
    )
    pair = _try_setup_client_authentication(place)
    assert pair is not None and pair[1].curve.name == "secp384r1"
    assert try_load_public_key(kits / "coordinator" / "sites" / "nord.pub")
    assert public_key_of(kits / "nord" / "node.key") == read_public_key(
        kits / "coordinator" / "sites" / "nord.pub"
    )


def test_a_kits_site_file_fits_its_schema_once_it_has_data(kits: Path) -> None:
    site = load_site_file(kits / "nord" / "site.yaml")
    assert (site.name, site.coordinator.host, site.coordinator.port) == (
        "nord",
        "fl.example.org",
        9092,
    )
    assert site.data == {"name": "phantom", "hospitals": {"nord": {"patients": 12}}}
    assert "share" in site.allow.actions and site.min_patients == 10
    with pytest.raises(ConfigError, match=r"site\.yaml: data: is missing"):
        load_site_file(kits / "sued" / "site.yaml")


def test_the_readme_names_the_one_firewall_line(kits: Path) -> None:
    text = (kits / "nord" / "README.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"allow TCP .* to fl\.example\.org port 9092", text)) == 1


def test_rotating_gives_a_new_key_and_keeps_the_site_file(kits: Path) -> None:
    old = read_public_key(kits / "coordinator" / "sites" / "nord.pub")
    (kits / "nord" / "site.yaml").write_text("filled: in\n", encoding="utf-8")
    sued = contents(kits / "sued")
    rotate_key(load_federation(kits.parent / "federation.yaml"), kits, "nord")
    new = read_public_key(kits / "coordinator" / "sites" / "nord.pub")
    assert new != old and new == public_key_of(kits / "nord" / "node.key")
    (retired,) = (kits / "coordinator" / "revoked").iterdir()
    assert read_public_key(retired) == old
    assert (kits / "nord" / "site.yaml").read_text(encoding="utf-8") == "filled: in\n"
    assert contents(kits / "sued") == sued


def test_a_revoked_site_stays_out_until_its_key_is_rotated(kits: Path) -> None:
    federation = load_federation(kits.parent / "federation.yaml")
    revoke(federation, kits, "nord")
    assert not (kits / "nord" / "node.key").exists() and not (kits / "nord.tar.gz").exists()
    assert not (kits / "coordinator" / "sites" / "nord.pub").exists()
    assert provision(federation, kits).notes == [
        "nord is revoked and gets no kit; --rotate nord lets it in"
    ]
    assert not (kits / "coordinator" / "sites" / "nord.pub").exists()
    rotate_key(federation, kits, "nord")
    assert (kits / "coordinator" / "sites" / "nord.pub").exists()
    with pytest.raises(ConfigError, match=r"'nrod' is not one of .*did you mean 'nord'"):
        revoke(federation, kits, "nrod")


def test_a_key_made_at_the_hospital_never_comes_near_the_kits(tmp_path: Path) -> None:
    at_home = tmp_path / "hospital"
    make_node_key(at_home / "node.key", at_home / "node.pub", comment="sued")
    public = (at_home / "node.pub").read_bytes()
    (tmp_path / "sued.pub").write_bytes(public)
    text = TEXT.replace("sued:", "sued: {public_key: sued.pub}")
    kits = tmp_path / "kits"
    federation = load_federation(asked(tmp_path, text))
    provision(federation, kits)
    assert not (kits / "sued" / "node.key").exists()
    registered = read_public_key(kits / "coordinator" / "sites" / "sued.pub")
    assert registered == read_public_key(at_home / "node.pub")
    with pytest.raises(ConfigError, match="is still the registered one"):
        rotate_key(federation, kits, "sued")


def test_a_private_key_is_never_overwritten(tmp_path: Path) -> None:
    write_secret(tmp_path / "node.key", b"first")
    with pytest.raises(RunError, match="never overwritten"):
        write_secret(tmp_path / "node.key", b"second")
    assert (tmp_path / "node.key").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["node.key"]


def test_a_new_name_of_the_coordinator_is_not_passed_over(kits: Path) -> None:
    """Sites would refuse a certificate that does not hold for the name that they connect to."""
    moved = load_federation(asked(kits.parent, TEXT.replace("fl.example.org", "new.example.org")))
    with pytest.raises(ConfigError, match=r"does not hold for new\.example\.org; --rotate coord"):
        provision(moved, kits)
    rotate_key(moved, kits, "coordinator")
    assert handshake(kits, "new.example.org") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  sued:\n", "  sued:\n  nord:\n", r"'nord' stands twice"),
        ("  sued:\n", "  Nord:\n", r"the name 'nord' stands twice \(case does not count\)"),
        ("sued:", "coordinator:", r"no site may be named one of ca, coordinator, pooled"),
        ("sued:", "sued: {publickey: x}", r"sites\.sued\.publickey: .*did you mean 'public_key'"),
        ("host: fl.example.org, ", "", r"coordinator\.host: is missing"),
        ('"::1"]', '"::1"], fleet_port: 9093', r"the ports must differ"),
        ("  sued:", "  ../sued:", r"it begins with '.'"),
    ],
)
def test_a_slip_in_the_federations_file_is_told(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=message):
        load_federation(asked(tmp_path, TEXT.replace(old, new)))


def test_the_demo_federation_is_ready_to_start(tmp_path: Path) -> None:
    """The file that the README's command names: each demo hospital has its generated data."""
    demo = load_federation(Path(__file__).parents[2] / "sites" / "federation.yaml")
    provision(demo, tmp_path)
    for name in ("nord", "sued", "west"):
        assert load_site_file(tmp_path / name / "site.yaml").data["name"] == "phantom"  # type: ignore[index]


def test_a_kit_names_the_port_of_streams_and_says_what_it_is_for(kits: Path) -> None:
    """One more outbound line, for experiments that cut the network and for no others."""
    fill = "data: {name: phantom, hospitals: {sued: {patients: 12}}}\n"
    with (kits / "sued" / "site.yaml").open("a", encoding="utf-8") as file:
        file.write(fill)
    for name in ("nord", "sued"):
        site = load_site_file(kits / name / "site.yaml")
        assert site.coordinator.stream_port == 9095
        assert not {"splitfed", "splitnn"} & set(site.allow.algorithms)
    readme = (kits / "nord" / "README.txt").read_text(encoding="utf-8")
    assert "fl.example.org port 9095   (open there only while such a run is on)" in readme
    assert load_federation(kits / "coordinator" / "federation.yaml").coordinator.stream_port == 9095


def test_a_federation_without_split_learning_has_no_such_port(tmp_path: Path) -> None:
    text = TEXT.replace('"::1"]', '"::1"], stream_port: null')
    provision(load_federation(asked(tmp_path, text)), tmp_path / "kits")
    for path in (tmp_path / "kits").rglob("*"):
        if path.is_file() and path.suffix in (".txt", ".yaml") and path.name != "federation.yaml":
            assert "stream" not in path.read_text(encoding="utf-8")


def test_a_port_for_streams_can_be_added_later(tmp_path: Path) -> None:
    """The coordinator's kit takes it with --rotate; hospitals are told by name what to add."""
    text = TEXT.replace('"::1"]', '"::1"], stream_port: null')
    plain, out = load_federation(asked(tmp_path, text)), tmp_path / "kits"
    provision(plain, out)
    more = plain.with_stream_port(9100)
    told = provision(more, out).notes
    assert any("keeps stream_port None; --rotate coordinator" in note for note in told)
    assert any(note.startswith("nord/site.yaml is the hospital's own") for note in told)
    assert rotate_key(more, out, "coordinator").notes == told[1:]
    assert load_federation(out / "coordinator" / "federation.yaml").coordinator.stream_port == 9100


def test_a_port_of_another_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--stream-port: the ports must differ"):
        load_federation(asked(tmp_path)).with_stream_port(9092)


@pytest.mark.parametrize(
    "host", ["::1", "[::1]", "0:0:0:0:0:0:0:1", "2001:DB8::0:7", "127.0.0.1", "fl.example.org"]
)
def test_any_way_of_writing_an_address_makes_a_kit_that_loads(tmp_path: Path, host: str) -> None:
    """YAML takes `{host: ::1}` for something else; a certificate knows one form of an address."""
    raw = {"name": "six", "coordinator": {"host": host, "also": ["[::1]"]}, "sites": {"nord": {}}}
    federation = checked(FederationFile, raw, where="federation.yaml")
    provision(federation, tmp_path)
    wanted = {"[::1]": "::1", "0:0:0:0:0:0:0:1": "::1", "2001:DB8::0:7": "2001:db8::7"}
    text = (tmp_path / "nord" / "site.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(text)["coordinator"]["host"]
    assert found == wanted.get(host, host)
    certificate = read_certificate(tmp_path / "coordinator" / "server.pem")
    assert set(names_of(certificate)) == {found, "::1"}
    # A second time nothing is missing.
    assert not provision(federation, tmp_path).made


def test_a_hospitals_own_name_goes_through_a_kit_and_back(tmp_path: Path) -> None:
    """An apostrophe opens a text in shells, unit files and YAML; 010 is 8 in YAML."""
    text = TEXT + '  "St. Mary\'s & Söhne":\n  "010":\n  "no":\n'
    out = tmp_path / "kits"
    provision(load_federation(asked(tmp_path, text)), out)
    folder = out / "St. Mary=27s =26 Söhne"
    for place, name in ((folder, "St. Mary's & Söhne"), (out / "010", "010"), (out / "no", "no")):
        file = place / "site.yaml"
        file.write_text(file.read_text(encoding="utf-8") + "data: phantom\n", encoding="utf-8")
        assert load_site_file(file).name == name
    assert "St. Mary's & Söhne" in CoordinatorKit.load(out / "coordinator").public_keys()
    unit = (folder / "fedrad-site.service").read_text(encoding="utf-8")
    assert f'site start "/etc/fedrad/{folder.name}/site.yaml"' in unit
    assert (out / f"{folder.name}.tar.gz").is_file()
    federation = load_federation(out.parent / "federation.yaml")
    assert revoke(federation, out, "St. Mary's & Söhne").notes
    told = provision(federation, out).notes
    assert any("--rotate 'St. Mary'\"'\"'s & Söhne' lets it in" in note for note in told)
    assert "St. Mary's & Söhne" not in CoordinatorKit.load(out / "coordinator").public_keys()


def test_a_federation_of_a_long_name_gets_its_authority(tmp_path: Path) -> None:
    """X.509 takes 64 bytes of a common name."""
    named = asked(tmp_path, TEXT.replace("name: demo", f"name: {'ü' * 60}"))
    provision(load_federation(named), tmp_path / "kits")
    assert (tmp_path / "kits/ca/ca.crt").is_file()
