"""The doctor: what would go wrong is told before anyone calls anyone, with who can mend it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fedrad.config import FederationFile, Task, load_experiment, load_site_file
from fedrad.config.checking import checked
from fedrad.data.adapters.phantom import Hospital, phantom
from fedrad.data.checks.layout import surprises
from fedrad.deployment.kits import certificates
from fedrad.deployment.kits.provision import provision, rotate_key
from fedrad.deployment.preflight import CheckResult, network, run_checks
from fedrad.deployment.preflight.network import check_network

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.yaml"
DATA = "data: {name: phantom, hospitals: {nord: {patients: 40}}}\n"


def federation(port: int, host: str = "localhost") -> FederationFile:
    raw = {
        "name": "demo",
        "coordinator": {"host": host, "fleet_port": port},
        "sites": {"nord": {}},
    }
    return checked(FederationFile, raw, where="federation.yaml")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@pytest.fixture
def kits(tmp_path: Path, port: int) -> Path:
    provision(federation(port), tmp_path)
    fill(tmp_path)
    return tmp_path


def fill(kits: Path) -> None:
    path = kits / "nord" / "site.yaml"
    text = path.read_text(encoding="utf-8").replace("experiments: []", "experiments: any")
    path.write_text(text + DATA, encoding="utf-8")


@contextlib.contextmanager
def listening(port: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server on the very port of the kits, for as long as it is needed."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind(("127.0.0.1", port))
        server.listen()

        def work() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def tls(kits: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    folder = kits / "coordinator"
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.set_alpn_protocols(["h2"])

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return serve


def found(kits: Path, what: str) -> CheckResult:
    site = load_site_file(kits / "nord" / "site.yaml")
    findings = {one.what: one for one in check_network(site)}
    return findings[what]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def open_kits(tmp_path: Path, free_port: int) -> Path:
    provision(federation(free_port), tmp_path)
    fill(tmp_path)
    return tmp_path


def test_a_good_way_is_green_from_the_name_to_the_clock(open_kits: Path, free_port: int) -> None:
    with listening(free_port, tls(open_kits)):
        site = load_site_file(open_kits / "nord" / "site.yaml")
        findings = {one.what: one for one in check_network(site)}
    for what in ("DNS", "TCP", "TLS", "clock"):
        assert findings[what].colour == "green", findings[what]
    assert "gRPC" not in findings
    # What is measured, and what is not, is said.
    assert "an error that stays inside is not seen so" in findings["clock"].found


def test_the_port_of_streams_is_looked_at_where_the_kit_names_it(
    open_kits: Path, free_port: int
) -> None:
    """It is open only while a split run plays: closed is no fault, and little is known by it."""
    path = open_kits / "nord" / "site.yaml"
    text = path.read_text(encoding="utf-8").replace(
        "stream_port: 9095", f"stream_port: {free_port}"
    )
    path.write_text(text, encoding="utf-8")
    site = load_site_file(path)
    closed = network._streams(site, free_port)
    assert closed.colour == "green" and "closed now" in closed.found
    assert "and no more" in closed.found
    with listening(free_port, tls(open_kits)):
        opened = found(open_kits, "streams")
    assert opened.colour == "green" and "a run with split learning is on" in opened.found
    path.write_text(text.replace(f", stream_port: {free_port}", ""), encoding="utf-8")
    with listening(free_port, tls(open_kits)), pytest.raises(KeyError):
        found(open_kits, "streams")


def test_a_stream_port_with_another_authority_behind_it_is_red(
    open_kits: Path, free_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = open_kits / "nord" / "site.yaml"
    text = path.read_text(encoding="utf-8").replace(
        "stream_port: 9095", f"stream_port: {free_port}"
    )
    path.write_text(text, encoding="utf-8")
    box = tmp_path_factory.mktemp("box")
    provision(federation(free_port).model_copy(update={"name": "Watchful-Proxy"}), box)
    with listening(free_port, tls(box)):
        told = found(open_kits, "streams")
    assert told.colour == "red" and "is intercepted" in told.found


def test_split_learning_that_is_allowed_but_has_no_port_is_amber(kits: Path) -> None:
    """Allowed in one line and impossible by another: a hospital would wait in vain."""
    path = kits / "nord" / "site.yaml"
    text = path.read_text(encoding="utf-8").replace(", stream_port: 9095", "")
    path.write_text(text.replace("[fedavg,", "[splitnn, fedavg,"), encoding="utf-8")
    finding = whole(kits)["streams"]
    assert finding.colour == "amber" and "names no stream_port" in finding.found


def test_an_intercepting_proxy_is_named_by_its_issuer(
    open_kits: Path, free_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A box that ends TLS shows a certificate of its own maker, whatever the name on it."""
    box = tmp_path_factory.mktemp("box")
    provision(federation(free_port).model_copy(update={"name": "Watchful-Proxy"}), box)
    with listening(free_port, tls(box)):
        told = found(open_kits, "TLS")
    assert told.colour == "red" and "is intercepted" in told.found
    assert "'fedrad, Watchful-Proxy federation'" in told.found
    assert "exempt localhost port" in told.cure


def test_a_kit_of_an_earlier_provisioning_is_told_from_an_interception(
    open_kits: Path, free_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    again = tmp_path_factory.mktemp("again")
    provision(federation(free_port), again)
    with listening(free_port, tls(again)):
        assert "two provisionings" in found(open_kits, "TLS").cure


@pytest.mark.parametrize(
    ("early", "days", "told"),
    [
        (timedelta(days=9), -1, "the coordinator's certificate ended on"),
        (timedelta(hours=-1), 825, "the clock is slow"),
    ],
)
def test_an_expired_certificate_and_a_slow_clock_are_told(
    open_kits: Path,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
    early: timedelta,
    days: int,
    told: str,
) -> None:
    """A certificate that starts in an hour is what a clock an hour slow sees."""
    monkeypatch.setattr(certificates, "_CLOCKS_DIFFER", early)
    monkeypatch.setattr(certificates, "_SERVER_DAYS", days)
    rotate_key(federation(free_port), open_kits, "coordinator")
    with listening(free_port, tls(open_kits)):
        finding = found(open_kits, "TLS")
    assert finding.colour == "red" and told in finding.found


def test_a_certificate_that_ends_soon_is_amber(
    open_kits: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "_SERVER_DAYS", 10)
    rotate_key(federation(free_port), open_kits, "coordinator")
    with listening(free_port, tls(open_kits)):
        finding = found(open_kits, "TLS")
    assert finding.colour == "amber" and "--rotate coordinator" in finding.cure


def test_a_certificate_for_another_name_lists_the_names_it_holds_for(
    open_kits: Path, free_port: int
) -> None:
    path = open_kits / "nord" / "site.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("localhost", "127.0.0.1"))
    with listening(free_port, tls(open_kits)):
        finding = found(open_kits, "TLS")
    assert finding.found == "the coordinator's certificate holds for localhost, not for 127.0.0.1"


def test_a_port_that_speaks_no_tls_is_told(open_kits: Path, free_port: int) -> None:
    with listening(free_port, lambda connection: connection.sendall(b"SSH-2.0-box\r\n")):
        finding = found(open_kits, "TLS")
    assert finding.colour == "red" and "does not speak TLS" in finding.found


def test_a_coordinator_that_is_down_is_no_fault_of_the_firewall(kits: Path) -> None:
    """The port is bound but nobody listens: the connection is refused, not dropped."""
    finding = found(kits, "TCP")
    assert finding.colour == "red" and "refuses port" in finding.found
    assert "is the coordinator running" in finding.cure


def test_a_name_that_is_not_known_is_told(tmp_path: Path) -> None:
    # RFC 6761: a name under .invalid is never resolved.
    provision(federation(9092, "coordinator.invalid"), tmp_path)
    fill(tmp_path)
    finding = found(tmp_path, "DNS")
    assert finding.colour == "red" and "coordinator.invalid is not known here" in finding.found


def test_a_proxy_in_the_environment_is_told(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    assert "https_proxy is set" in found(kits, "proxy").found
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(KeyError):
        found(kits, "proxy")


def whole(kits: Path) -> dict[str, CheckResult]:
    findings = run_checks(kits / "nord" / "site.yaml", load_experiment(QUICKSTART))
    return {one.what: one for one in findings}


def test_a_kit_that_was_filled_in_is_green_but_for_the_way(kits: Path) -> None:
    findings = whole(kits)
    reds = {what for what, one in findings.items() if one.colour == "red"}
    assert reds == {"TCP"}
    assert findings["data"].found.endswith("rows of 40 patients, all readable")
    assert "0 lines" in findings["audit log"].found


def test_a_key_that_others_can_read_is_red(kits: Path) -> None:
    (kits / "nord" / "node.key").chmod(0o640)
    finding = whole(kits)["keys"]
    assert finding.colour == "red" and "mode 0640" in finding.found
    assert "PRIVATE KEY" not in finding.found + finding.cure


def test_halves_of_two_keys_are_red(kits: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    provision(federation(9092), other)
    (kits / "nord" / "node.pub").write_bytes((other / "nord" / "node.pub").read_bytes())
    assert "is not the public half" in whole(kits)["keys"].found


def test_a_missing_key_and_a_missing_authority_are_red(kits: Path) -> None:
    (kits / "nord" / "node.key").unlink()
    (kits / "nord" / "ca.crt").unlink()
    findings = whole(kits)
    assert "node.key: cannot be read" in findings["keys"].found
    assert "ca.crt: cannot be read" in findings["authority"].found


def test_a_log_that_was_tampered_with_is_red(kits: Path) -> None:
    state = kits / "nord" / "state"
    state.mkdir()
    (state / "audit.head.json").write_text('{"number": 3, "hash": "00"}', encoding="utf-8")
    assert "ends with line 0, 3 were written" in whole(kits)["audit log"].found


def test_a_device_that_is_not_there_is_red(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = kits / "nord" / "site.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("device: cpu", "device: cuda"))
    assert whole(kits)["device"].colour == "red"


def test_another_flower_is_red(kits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedrad.deployment.preflight import machine

    monkeypatch.setattr(machine, "version", lambda name: "1.40.0")
    assert "flwr>=1.39,<1.40" in whole(kits)["versions"].cure


@pytest.mark.parametrize(
    ("old", "new", "what", "colour", "told"),
    [
        ("max_norm: 100", "max_nrom: 100", "site file", "red", "did you mean 'max_norm'"),
        ("models: [cnn", "models: [cmn", "policy", "red", "did you mean 'cnn'"),
        ("experiments: any", "experiments: []", "policy", "amber", "nothing will run: experiments"),
        ("min_patients: 10", "min_patients: 30", "splits", "amber", "val 6 patients"),
        (DATA, "", "site file", "red", "data: is missing"),
        ("phantom", "images", "data", "red", "data_root: is missing"),
        ("patients: 40", "patients: 40, prevalence: 0.0", "labels", "red", "0 with"),
        ("patients: 40", "patients: 40, prevalence: 0.1", "labels", "amber", "without"),
    ],
)
def test_a_slip_in_the_site_file_is_found(
    kits: Path, old: str, new: str, what: str, colour: str, told: str
) -> None:
    path = kits / "nord" / "site.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    finding = whole(kits)[what]
    assert (finding.colour, told in finding.found) == (colour, True), finding


def test_without_a_task_the_data_are_not_read_and_it_says_so(kits: Path) -> None:
    findings = {one.what: one for one in run_checks(kits / "nord" / "site.yaml")}
    assert findings["data"].colour == "amber" and "not read" in findings["data"].found


FILMS = phantom(
    Task(name="binary", labels=("lesion",), input=(1, 48, 48)),
    hospitals={"nord": Hospital(patients=60, images_per_patient=1)},
).x


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("blank", lambda film: np.full_like(film, 7)),
        ("inverted", lambda film: 255 - film),
        ("upside down", lambda film: film[:, ::-1]),
        ("turned by 90 degrees", lambda film: np.rot90(film, 1, (1, 2))),
        ("turned by 270 degrees", lambda film: np.rot90(film, 3, (1, 2))),
    ],
)
def test_an_image_unlike_the_others_is_found_by_its_row(
    what: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    films = np.array(FILMS)
    films[17] = change(films[17])
    found = surprises(films)
    if what == "upside down":
        # On a film as symmetric as a chest, upside down and turned by 180 degrees are one.
        assert found.keys() <= {what, "turned by 180 degrees"}
    else:
        assert list(found) == [what]
    assert [row for rows in found.values() for row in rows] == [17]


def test_ordinary_films_are_left_alone() -> None:
    assert surprises(np.array(FILMS)) == {}


def test_images_without_a_common_layout_say_nothing_about_orientation() -> None:
    """Noise has no upright: no image is called turned."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 1, 32, 32), np.uint8)
    assert surprises(noise) == {}
