"""Asks the model hub whether a model may be downloaded, before anything heavy is done for it.

The rules of huggingface_hub hold: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE.
"""

import os
import urllib.error
import urllib.request
from pathlib import Path

from stack.errors import Unsuitable

_TIMEOUT_S = 20.0


def endpoint() -> str:
    """Base URL of the hub."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def _home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()


def token() -> str | None:
    """The token of this user, from the environment or from the file that `hf auth login` writes."""
    if given := os.environ.get("HF_TOKEN", "").strip():
        return given
    file = Path(os.environ.get("HF_TOKEN_PATH") or _home() / "token").expanduser()
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def cache_folder(model: str) -> Path:
    """Where the hub's own cache keeps `model`."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or _home() / "hub").expanduser()
    return cache / f"models--{model.replace('/', '--')}"


def is_cached(model: str) -> bool:
    """Whether `model` was downloaded completely: configuration, weights, and no half of a file."""
    folder = cache_folder(model)
    return (
        any(folder.glob("snapshots/*/config.json"))
        and any(folder.glob("snapshots/*/*.safetensors"))
        and not any(folder.glob("blobs/*.incomplete"))
    )


def check_access(model: str) -> None:
    """Raises Unsuitable, with what to do, when the hub would not hand out `model` to this user."""
    if is_cached(model):
        return
    base, secret = endpoint(), token()
    try:
        url = f"{base}/{model}/resolve/main/config.json"
        request = urllib.request.Request(url, method="HEAD")
        if secret is not None:
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # nosec B310  # the user's own setting
            return
    except urllib.error.HTTPError as exc:
        exc.close()
        raise Unsuitable(_refusal(model, base, exc.code, secret is not None)) from exc
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or exc
        raise Unsuitable(
            f"the model hub {base} cannot be reached ({reason}): check network and proxy, set "
            "HF_ENDPOINT to a mirror, or use --profile local, which needs no hub"
        ) from exc


def _refusal(model: str, base: str, status: int, has_token: bool) -> str:
    page = f"{base}/{model}"
    if status == 401 and not has_token:
        return (
            f"{model} needs a licence and a token: accept the licence on {page}, make a token on "
            f"{base}/settings/tokens, then run again with HF_TOKEN set to it, "
            "or use --profile local"
        )
    if status == 401:
        return (
            f"the hub refused your token for {model}: make a new one with read access on "
            f"{base}/settings/tokens and set HF_TOKEN to it, or use --profile local"
        )
    if status == 403:
        return (
            f"your token is not allowed to read {model}: accept its licence on {page} with the "
            "account of that token, wait until access is granted, then run again, or use "
            "--profile local"
        )
    return f"the hub answered {status} for {page}: look at that page, or try later"
