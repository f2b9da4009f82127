"""Keys of the sites: written once, for their owner's eyes only, and never shown.

They are ECDSA on P-384 in OpenSSH's format, which is what Flower's node authentication reads.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedrad.core.files import write_atomic
from fedrad.errors import ConfigError, RunError

__all__ = [
    "closed",
    "key_fingerprint",
    "make_node_key",
    "public_key_of",
    "read_public_key",
    "reason_of",
    "write_secret",
]

_CURE = "make one with fedrad site keygen"


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; one that exists stays.

    Raises:
        RunError: it exists already, or cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(place, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, never replaces a key that is there.
        os.link(beside, path)
    except FileExistsError:
        raise RunError(f"{path.name} exists already; a private key is never overwritten") from None
    except OSError as error:
        raise RunError(f"{path.name} could not be written ({error.strerror})") from error
    finally:
        beside.unlink(missing_ok=True)


def make_node_key(private: Path, public: Path, *, comment: str) -> None:
    """Make a site's key: the private half 0600, the public half to hand out.

    A private key that is there already is kept, and its public half written again if it is gone.

    Raises:
        RunError: a file cannot be written.
        ConfigError: the private key that is there is none.
    """
    if not private.exists():
        key = ec.generate_private_key(ec.SECP384R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        write_secret(private, pem)
    if not public.exists():
        write_atomic(public, public_key_of(private) + f" {comment}\n".encode())


def public_key_of(private: Path) -> bytes:
    """Return the public half of a site's private key, in OpenSSH's format without a comment.

    Raises:
        ConfigError: the file cannot be read or holds no ECDSA key on P-384.
    """
    try:
        key = load_ssh_private_key(private.read_bytes(), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{private.name}: {reason_of(error)}; make one with site keygen"
        ) from None
    if not (isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1"):
        raise ConfigError(f"{private.name}: is no ECDSA key on P-384; {_CURE}")
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def read_public_key(public: Path) -> bytes:
    """Return a site's public key, in OpenSSH's format without its comment.

    Raises:
        ConfigError: the file cannot be read or holds no ECDSA key on P-384.
    """
    try:
        key = load_ssh_public_key(public.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{public.name}: {reason_of(error)}; {_CURE}") from None
    if not (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"):
        raise ConfigError(f"{public.name}: is no ECDSA key on P-384; {_CURE}")
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


def closed(path: Path) -> str | None:
    """Return why a file of a kit cannot be read by this user, if it is there and cannot be."""
    if not path.exists() or os.access(path, os.R_OK):
        return None
    return (
        f"{path.name} belongs to user {path.stat().st_uid}, and this is user {os.geteuid()}, who "
        "may not read it; start as the one who owns the kit (docker: FEDRAD_UID and FEDRAD_GID "
        "in .env), or chown the kit"
    )


def key_fingerprint(public: bytes) -> str:
    """Return 12 hexadecimal digits that name a public key.

    >>> key_fingerprint(b"ecdsa-sha2-nistp384 AAAA")
    'c766424a5bb8'
    """
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public)
    return digest.finalize().hex()[:12]


def reason_of(error: Exception) -> str:
    """Return why a key or certificate could not be read, without its path."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    return "is damaged or of another kind"
