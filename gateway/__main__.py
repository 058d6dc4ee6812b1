"""Command line of the gateway: reads the settings, serves until SIGTERM."""

import sys
from collections.abc import Callable
from functools import partial

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from gateway import workers
from gateway.access import commands
from gateway.access.keys import KeysUnusable
from gateway.draining import Draining
from gateway.exchanges import Exchanges
from gateway.processes import NoSharedFolder, log_to_stderr
from gateway.prompt import BadTemplate
from gateway.server import Server, ServerConfig
from gateway.settings import GatewaySettings
from indexer.index.errors import LibraryUnavailable
from indexer.index.settings import explain

BAD_CONFIGURATION = 2


def main(arguments: list[str]) -> int:
    """Serve, or do something with keys; a wrong setting is one line on stderr and exit code 2."""
    if arguments[:1] == ["keys"]:
        return commands.main(arguments[1:])
    try:
        settings = CliApp.run(GatewaySettings, cli_args=arguments)
        serve = _several(settings) if settings.workers > 1 else _one(settings)
    except ValidationError as exc:
        return _fail(explain(exc))
    except (SettingsError, KeysUnusable, BadTemplate, LibraryUnavailable, NoSharedFolder) as exc:
        return _fail(str(exc))
    log_to_stderr(settings)
    return serve()


def _one(settings: GatewaySettings) -> Callable[[], int]:
    """What serves in this process. Raises what create_app does."""
    from gateway.app import create_app

    exchanges = Exchanges(settings.heartbeat_s)
    app = create_app(settings, exchanges=exchanges)
    draining = Draining(settings, exchanges)
    server = Server(ServerConfig(settings, app), draining)

    def serve() -> int:
        server.run()
        return draining.exit_code

    return serve


def _several(settings: GatewaySettings) -> Callable[[], int]:
    """What serves in several processes. Raises what create_app does."""
    workers.check(settings)
    return partial(workers.serve, settings)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return BAD_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
