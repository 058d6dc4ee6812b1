"""Files with certificates and keys, looked at before anything is served or asked with them."""

import ssl
from pathlib import Path


def checked_authorities(path: Path) -> Path:
    """`path`, which holds certificates of authorities, as PEM. Raises ValueError."""
    try:
        ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as exc:
        raise ValueError(f"no certificates can be read from {path}: {_reason(exc)}") from exc
    return path


def checked_pair(certificate: Path | None, key: Path | None) -> Path | None:
    """`key`, which is the private key of `certificate`, without a password. Raises ValueError.

    Both are PEM; authorities between may follow the certificate in its file.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("a certificate and its key are set together, or neither is")
    try:
        # Asked for a password, OpenSSL would wait for a person to type it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as exc:
        raise ValueError(
            f"{key} is not the key, without a password, of {certificate}: {_reason(exc)}"
        ) from exc
    return key


def _no_password() -> str:
    raise ValueError("it has a password")


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "strerror", None) or exc)
