"""Command line of the gateway: reads the settings, serves until SIGTERM."""

import logging
import sys

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from gateway.app import create_app
from gateway.prompt import BadTemplate
from gateway.settings import GatewaySettings
from indexer.index.errors import LibraryUnavailable
from indexer.index.settings import explain

BAD_CONFIGURATION = 2


def main(arguments: list[str]) -> int:
    """Serve; a wrong setting is one line on stderr and exit code 2."""
    try:
        settings = CliApp.run(GatewaySettings, cli_args=arguments)
        app = create_app(settings)
    except ValidationError as exc:
        return _fail(explain(exc))
    except (SettingsError, BadTemplate, LibraryUnavailable) as exc:
        return _fail(str(exc))
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    for chatty in ("httpx2", "sentence_transformers"):  # a line for each poll of vLLM
        logging.getLogger(chatty).setLevel(logging.WARNING)
    uvicorn.run(
        app,
        host=settings.listen_host,
        port=settings.listen_port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
