"""Command line of the gateway: reads the settings, serves until SIGTERM."""

import sys
from collections.abc import Callable
from functools import partial

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from gateway import workers
from gateway.processes import log_to_stderr
from gateway.prompt import BadTemplate
from gateway.settings import GatewaySettings
from indexer.index.errors import LibraryUnavailable
from indexer.index.settings import explain

BAD_CONFIGURATION = 2


def main(arguments: list[str]) -> int:
    """Serve; a wrong setting is one line on stderr and exit code 2."""
    try:
        settings = CliApp.run(GatewaySettings, cli_args=arguments)
        serve = _several(settings) if settings.workers > 1 else _one(settings)
    except ValidationError as exc:
        return _fail(explain(exc))
    except (SettingsError, BadTemplate, LibraryUnavailable) as exc:
        return _fail(str(exc))
    log_to_stderr(settings)
    return serve()


def _one(settings: GatewaySettings) -> Callable[[], int]:
    """What serves in this process. Raises BadTemplate, LibraryUnavailable."""
    from gateway.app import create_app

    app = create_app(settings)

    def serve() -> int:
        uvicorn.run(
            app,
            host=settings.listen_host,
            port=settings.listen_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=settings.drain_timeout_s,
        )
        return 0

    return serve


def _several(settings: GatewaySettings) -> Callable[[], int]:
    """What serves in several processes. Raises BadTemplate, LibraryUnavailable."""
    workers.check(settings)
    return partial(workers.serve, settings)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
