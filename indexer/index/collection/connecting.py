"""How every client of Milvus is made: address, credentials, certificates."""

from typing import Any

from indexer.index.collection.generation import GRPC_OPTIONS
from indexer.index.settings import IndexSettings


def connection(settings: IndexSettings) -> dict[str, Any]:
    """Keywords for a client of pymilvus. Certificates and names are always checked."""
    return {
        "uri": settings.milvus_uri,
        "token": settings.milvus_token.get_secret_value(),
        "timeout": settings.milvus_timeout_s,
        "grpc_options": GRPC_OPTIONS,
        **_certificates(settings),
    }


def rest_certificates(settings: IndexSettings) -> dict[str, Any]:
    """Keywords for pymilvus' functions that ask the REST interface, through requests."""
    found: dict[str, Any] = {}
    if settings.milvus_ca_file is not None:
        found["verify"] = str(settings.milvus_ca_file)
    if settings.milvus_client_cert_file is not None:
        found["cert"] = (
            str(settings.milvus_client_cert_file),
            str(settings.milvus_client_key_file),
        )
    return found


def _certificates(settings: IndexSettings) -> dict[str, str]:
    found: dict[str, str] = {}
    if settings.milvus_server_name is not None:
        found["server_name"] = settings.milvus_server_name
    if settings.milvus_ca_file is None:
        return found
    authorities = str(settings.milvus_ca_file)
    if settings.milvus_client_cert_file is None:
        return found | {"server_pem_path": authorities}
    # Beside a server_pem_path pymilvus would not look at the others.
    return found | {
        "ca_pem_path": authorities,
        "client_pem_path": str(settings.milvus_client_cert_file),
        "client_key_path": str(settings.milvus_client_key_file),
    }
