"""A certificate for 127.0.0.1, signed by an authority that every test makes for itself."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.packaging.tls import Tls

_PEM = serialization.Encoding.PEM


def self_made(folder: Path) -> Tls:
    """Key and chain; who trusts the chain's file trusts the authority in it."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    above = _certificate("auricle test authority", authority, authority, ca=True)
    below = _certificate("auricle test", key, authority, ca=False)
    chain = b"".join(one.public_bytes(_PEM) for one in (below, above))
    (folder / "certificate.pem").write_bytes(chain)
    content = key.private_bytes(
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(content)
    return Tls(certificate=folder / "certificate.pem", key=folder / "key.pem")


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    authority: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named("auricle test authority"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(authority, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
