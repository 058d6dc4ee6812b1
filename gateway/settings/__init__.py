"""Settings of the gateway. The one place in it that knows the environment or flags."""

import os
from pathlib import Path

from pydantic_settings import SettingsConfigDict

from gateway.settings.access import AccessSettings
from gateway.settings.answers import AnswerSettings
from gateway.settings.bounds import BoundsSettings
from gateway.settings.limits import LimitsSettings
from gateway.settings.retrieval import RetrievalSettings
from gateway.settings.serving import ServingSettings
from gateway.settings.upstream import UpstreamSettings


# The last one comes first in --help.
class GatewaySettings(
    AnswerSettings,
    RetrievalSettings,
    UpstreamSettings,
    BoundsSettings,
    LimitsSettings,
    AccessSettings,
    ServingSettings,
):
    """Answer chat requests from the documents in the index, with a vLLM server behind.

    `python -m gateway keys` makes, lists and revokes the keys of those who may ask.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m gateway")


def share_metrics(folder: Path) -> None:
    """Have the processes that are started from now on count in files in `folder`."""
    # prometheus_client looks for it when it is imported, and nowhere else.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
