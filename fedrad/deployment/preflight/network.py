"""The way to the coordinator: name, port, TLS, clock. Nothing leaves but a TCP and TLS probe."""

import ctypes
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import NameOID

from fedrad.config import SiteFile
from fedrad.deployment.kits.certificates import names_of, read_certificate, signed_by
from fedrad.deployment.preflight.check_result import CheckResult, amber, green, red
from fedrad.errors import ConfigError

__all__ = ["check_network"]

_WAIT_S = 10.0
_SOON = timedelta(days=30)
_ORGANISER = "the federation's organiser"
_NETWORK = "the hospital's network team"


def check_network(site: SiteFile) -> Iterator[CheckResult]:
    """Yield what is found on the way to the coordinator; stops where the way ends."""
    host, port = site.coordinator.host, site.coordinator.port
    yield from _proxies(host)
    yield from _kernel_clock()
    found = _resolve(host, port)
    yield found
    if found.colour == "red":
        return
    found = _connect(host, port)
    yield found
    if found.colour != "red":
        yield from _tls(site)
    if site.coordinator.stream_port is not None:
        yield _streams(site, site.coordinator.stream_port)


def _streams(site: SiteFile, port: int) -> CheckResult:
    """Look at the port of split learning, which is open only while such a run is run."""
    found = _connect(site.coordinator.host, port)
    if found.colour == "green":
        other = site.coordinator.model_copy(update={"port": port})
        found = next(_tls(site.model_copy(update={"coordinator": other})), found)
        told = f"port {port}: a run with split learning is on; {found.found}"
        return replace(found, what="streams", found=told)
    if "refuses" in found.found:
        return green(
            "streams",
            f"port {port} is closed now, as it is unless a run with split learning is on; that it "
            "is refused shows that the way is not blocked in silence, and no more",
        )
    return amber(
        "streams",
        f"{found.found}; open or not, the coordinator would answer",
        f"{_NETWORK}: allow outbound TCP to port {port} too; for split learning only, all else "
        "works without it",
    )


def _proxies(host: str) -> Iterator[CheckResult]:
    names = ("grpc_proxy", "https_proxy", "http_proxy")
    exempt = os.environ.get("no_proxy", "") + "," + os.environ.get("NO_PROXY", "")
    set_ = [name for name in names if os.environ.get(name) or os.environ.get(name.upper())]
    if set_ and host not in exempt.split(","):
        yield amber(
            "proxy",
            f"{', '.join(set_)} is set: gRPC would go through that proxy, this probe does not",
            f"set no_proxy={host}, or let {_NETWORK} allow CONNECT to it",
        )


def _resolve(host: str, port: int) -> CheckResult:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return red(
            "DNS",
            f"{host} is not known here ({error.strerror})",
            f"{_NETWORK}: the name has to be resolvable on this machine; or /etc/hosts",
        )
    addresses = sorted({str(one[4][0]) for one in found})
    return green("DNS", f"{host} is {', '.join(addresses)}")


def _connect(host: str, port: int) -> CheckResult:
    start = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=_WAIT_S):
            took = (time.monotonic() - start) * 1000
            return green("TCP", f"{host} port {port} answers after {took:.0f} ms")
    except ConnectionRefusedError:
        return red(
            "TCP",
            f"{host} refuses port {port}",
            f"{_ORGANISER}: is the coordinator running? Sites wait for it and try again",
        )
    except OSError as error:
        told = "no answer" if isinstance(error, TimeoutError) else str(error.strerror)
        return red(
            "TCP",
            f"{host} port {port}: {told} within {_WAIT_S:g} s",
            f"{_NETWORK}: allow outbound TCP from this machine to {host} port {port}",
        )


def _tls(site: SiteFile) -> Iterator[CheckResult]:
    try:
        trusted = ssl.create_default_context(cafile=str(site.certificates.ca))
    except (OSError, ssl.SSLError):
        return  # the keys' own check has told that ca.crt is missing or damaged
    try:
        shown, version, protocol = _shown(site, trusted)
    except ssl.SSLCertVerificationError as error:
        yield _not_trusted(site, error)
        return
    except (ssl.SSLError, OSError) as error:
        yield red(
            "TLS",
            f"port {site.coordinator.port} does not speak TLS ({type(error).__name__})",
            f"{_ORGANISER}: is another service on that port? or {_NETWORK}: a filter",
        )
        return
    ends = shown.not_valid_after_utc
    if ends - datetime.now(UTC) < _SOON:
        cure = f"{_ORGANISER}: fedrad provision --rotate coordinator"
        yield amber("TLS", f"{version}; the certificate ends on {ends:%Y-%m-%d}", cure)
    else:
        yield green("TLS", f"{version}, this federation's certificate, until {ends:%Y-%m-%d}")
    if protocol != "h2":
        yield amber(
            "gRPC",
            "the coordinator's port did not choose HTTP/2, which gRPC needs",
            f"{_ORGANISER}: is the coordinator behind something that ends TLS?",
        )
    yield _certificate_clock(shown)


def _shown(site: SiteFile, context: ssl.SSLContext) -> tuple[x509.Certificate, str, str | None]:
    """Return the certificate that is shown, the version of TLS, and the chosen protocol."""
    context.set_alpn_protocols(["h2"])
    host, port = site.coordinator.host, site.coordinator.port
    with (
        socket.create_connection((host, port), timeout=_WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        raw = secured.getpeercert(binary_form=True)
        assert raw is not None, "a TLS server shows a certificate"
        chosen = secured.selected_alpn_protocol()
        return x509.load_der_x509_certificate(raw), str(secured.version()), chosen


def _not_trusted(site: SiteFile, error: ssl.SSLCertVerificationError) -> CheckResult:
    """Say what is wrong with the certificate that was shown, and by whom it was made."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        shown, _, _ = _shown(site, blind)
        own = read_certificate(site.certificates.ca)
    except (ConfigError, OSError, ValueError):
        return red("TLS", f"the certificate was refused ({error.verify_message})", _ORGANISER)
    now = datetime.now(UTC)
    if not signed_by(shown, own):
        return _stranger(shown, own, site)
    if now < shown.not_valid_before_utc or now < own.not_valid_before_utc:
        starts = max(shown.not_valid_before_utc, own.not_valid_before_utc)
        return red(
            "TLS",
            f"by this machine's clock ({now:%Y-%m-%d %H:%M} UTC) the coordinator's certificate "
            f"is not valid before {starts:%Y-%m-%d %H:%M} UTC: the clock is slow",
            "the machine's owner: set the clock by a time server (timedatectl set-ntp true)",
        )
    if now > shown.not_valid_after_utc:
        return red(
            "TLS",
            f"the coordinator's certificate ended on {shown.not_valid_after_utc:%Y-%m-%d %H:%M} "
            f"UTC; this machine's clock says {now:%Y-%m-%d %H:%M} UTC",
            f"{_ORGANISER}: fedrad provision --rotate coordinator; unless this clock is wrong",
        )
    if site.coordinator.host not in names_of(shown):
        return red(
            "TLS",
            f"the coordinator's certificate holds for {', '.join(names_of(shown))}, "
            f"not for {site.coordinator.host}",
            f"{_ORGANISER}: add the name under `also`, fedrad provision --rotate coordinator",
        )
    return red("TLS", f"the certificate was refused ({error.verify_message})", _ORGANISER)


def _stranger(shown: x509.Certificate, own: x509.Certificate, site: SiteFile) -> CheckResult:
    if shown.issuer == own.subject:
        return red(
            "TLS",
            "the coordinator's certificate is of another authority with this federation's name",
            f"{_ORGANISER}: kit and coordinator come from two provisionings; send a new kit",
        )
    return red(
        "TLS",
        f"the connection is intercepted: the certificate was made by {_by_name(shown.issuer)}, "
        "not by this federation",
        f"{_NETWORK}: exempt {site.coordinator.host} port {site.coordinator.port} from TLS "
        "inspection; fedrad does not connect through it",
    )


def _by_name(name: x509.Name) -> str:
    kinds = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
    found = [str(one.value) for kind in kinds for one in name.get_attributes_for_oid(kind)]
    return f"'{', '.join(found)}'" if found else "somebody without a name"


def _certificate_clock(shown: x509.Certificate) -> CheckResult:
    starts, ends = shown.not_valid_before_utc, shown.not_valid_after_utc
    return green(
        "clock",
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC lies within the coordinator's certificate "
        f"({starts:%Y-%m-%d %H:%M} to {ends:%Y-%m-%d}); an error that stays inside is not seen so",
    )


class _Timex(ctypes.Structure):
    """Linux's struct timex, as far as it is read (adjtimex(2)); the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("room", ctypes.c_char * 256),
    )


_UNSYNCHRONISED = 0x40
_CURE_CLOCK = (
    "the machine's owner: set it by a time server (timedatectl set-ntp true); the coordinator "
    "refuses a clock that is 5 s ahead of its own, or 5 min behind"
)


def _kernel_clock() -> Iterator[CheckResult]:
    """Yield whether the kernel says that a time server keeps the clock; asks nobody else."""
    timex = _Timex()
    try:
        answered = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        answered = -1
    if answered < 0:
        yield amber("time server", "this system does not say whether one sets it", _CURE_CLOCK)
    elif timex.status & _UNSYNCHRONISED:
        yield amber("time server", "the kernel says that none sets this clock", _CURE_CLOCK)
    else:
        error = timex.maxerror / 1e6
        yield green(
            "time server", f"the kernel says that one sets this clock, within {error:.2g} s"
        )
