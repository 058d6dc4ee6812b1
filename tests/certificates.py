"""Authorities that sign certificates for a test, as files."""

import ipaddress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_numbers = count(1)


class Authority:
    """One, with files in `folder`; each has a name of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"authority {next(_numbers)}")
        certificate = self._signed(self._name, self._key.public_key(), is_authority=True)
        self.file = self._written(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, *hosts: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Files with a certificate for names or addresses, and with its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(_name("a test"), key.public_key(), hosts)
        encryption = (
            serialization.NoEncryption()
            if password is None
            else serialization.BestAvailableEncryption(password)
        )
        return (
            self._written(certificate.public_bytes(serialization.Encoding.PEM)),
            self._written(
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
                )
            ),
        )

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        hosts: tuple[str, ...] = (),
        *,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName([*map(_host, hosts)])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _written(self, content: bytes) -> Path:
        path = self._folder / f"{next(_numbers)}.pem"
        path.write_bytes(content)
        return path


def _name(said: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, said)])


def _host(said: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(said))
    except ValueError:
        return x509.DNSName(said)
