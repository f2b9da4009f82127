"""Certificates of a federation: its private authority's, and the coordinator's, which it signs."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrad.core.files import write_atomic
from fedrad.deployment.kits.keys import reason_of, write_secret
from fedrad.errors import ConfigError

__all__ = ["issue_server", "make_authority", "names_of", "read_certificate", "signed_by"]

_AUTHORITY_DAYS = 3650
_SERVER_DAYS = 825
_CLOCKS_DIFFER = timedelta(minutes=5)
"""What Flower's node authentication tolerates too."""


def make_authority(key: Path, certificate: Path, *, name: str) -> None:
    """Make the federation's private authority; one that is there stays.

    Raises:
        RunError: a file cannot be written.
    """
    if certificate.exists():
        return
    private = _authority_key(key) if key.exists() else ec.generate_private_key(ec.SECP384R1())
    if not key.exists():
        write_secret(key, _pem(private))
    own = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "fedrad"),
            # X.509 takes 64 bytes; the name is for people, the key is what counts.
            x509.NameAttribute(
                NameOID.COMMON_NAME, f"{name} federation".encode()[:64].decode(errors="ignore")
            ),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    signed = (
        _certificate(own, own, private.public_key(), _AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(private, hashes.SHA384())
    )
    write_atomic(certificate, signed.public_bytes(Encoding.PEM))


def issue_server(
    authority_key: Path, authority: Path, key: Path, certificate: Path, names: Sequence[str]
) -> None:
    """Write the coordinator's key and a certificate that holds for its names and addresses.

    Raises:
        ConfigError: the authority's key is not there, or is not that of its certificate.
        RunError: a file cannot be written, or the coordinator's key exists already.
    """
    signer, parent = _authority_key(authority_key), read_certificate(authority)
    if signer.public_key() != parent.public_key():
        raise ConfigError(f"{authority_key.name} is not the key of {authority.name}")
    private = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    signed = (
        _certificate(subject, parent.subject, private.public_key(), _SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(list(map(_general_name, names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(authority_id, critical=False)
        .add_extension(identifier, critical=False)
        .sign(signer, hashes.SHA384())
    )
    write_secret(key, _pem(private))
    write_atomic(certificate, signed.public_bytes(Encoding.PEM))


def read_certificate(path: Path) -> x509.Certificate:
    """Return a certificate.

    Raises:
        ConfigError: the file cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.name}: {reason_of(error)}") from None


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the names and addresses that a certificate holds for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _authority_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path.name}: {reason_of(error)}; what the authority is to sign needs its key"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path.name}: is no ECDSA key")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
