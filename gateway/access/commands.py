"""The commands that make, list and revoke keys. They load nothing of what answers requests."""

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from gateway.access.callers import Limits
from gateway.access.key_file import KeyFile
from gateway.access.keys import Key, KeysUnusable, digest, new_token
from gateway.settings.access import (
    KeySettings,
    ListKeysSettings,
    MakeKeySettings,
    RevokeKeySettings,
)
from gateway.settings.lists import listed
from indexer.index.settings import ENV_PREFIX

USAGE = """usage: python -m gateway keys COMMAND [options]

commands:
  make --name NAME  make a key and print it, which nobody can do again
  list              print what is known of each key, which is nothing secret
  revoke KEY        remove a key, named by its name or its id

The keys are in the file that --api-keys-file or GROUNDSERVE_API_KEYS_FILE names, without what
would let anybody in. Gateways that run follow it within two seconds.
`python -m gateway keys COMMAND --help` lists the options.
exit codes: 0 done, 2 wrong options, or a file that cannot be used"""

_DONE, _FAILED = 0, 2
_DAY_S = 86_400
_COLUMNS = (
    *(
        "ID",
        "NAME",
        "TENANT",
        "KNOWLEDGE BASES",
        "MODELS",
        "WRITES",
        "LIMITS",
        "CREATED",
        "EXPIRES",
    ),
)

S = TypeVar("S", bound=KeySettings)


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every failure is one line on stderr."""
    match arguments:
        case ["-h" | "--help"]:
            print(USAGE)
            return _DONE
        case [name, *options] if name in _COMMANDS:
            try:
                return _COMMANDS[name](options)
            except ValidationError as exc:
                return _fail(_explain(exc))
            except (SettingsError, KeysUnusable) as exc:
                return _fail(str(exc))
    return _fail(f"name one of the commands {', '.join(_COMMANDS)}, or --help")


def _make(options: list[str]) -> int:
    settings = _read(MakeKeySettings, options)
    token = new_token()
    key = _key(settings, token)
    with KeyFile(settings.api_keys_file).changing(may_be_new=True) as keys:
        if any(key.name == other.name for other in keys):
            raise KeysUnusable(
                f"there is a key {key.name} already: revoke it first, or take another name"
            )
        keys.append(key)
    print(token)
    return _DONE


def _list(options: list[str]) -> int:
    settings = _read(ListKeysSettings, options)
    rows = [_COLUMNS, *map(_row, KeyFile(settings.api_keys_file).read())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    return _DONE


def _revoke(options: list[str]) -> int:
    settings = _read(RevokeKeySettings, options)
    with KeyFile(settings.api_keys_file).changing() as keys:
        # A name may look like an id; what it is called counts first.
        named = [key for key in keys if key.name == settings.key]
        found = named or [key for key in keys if key.id == settings.key]
        if not found:
            raise KeysUnusable("no key has this name or id: `python -m gateway keys list` has them")
        keys.remove(found[0])
    print(f"{found[0].name} ({found[0].id}) is revoked")
    return _DONE


def _read(kind: type[S], options: list[str]) -> S:
    return CliApp.run(kind, cli_args=options, cli_exit_on_error=False)


def _key(settings: MakeKeySettings, token: str) -> Key:
    """What is kept of `token`."""
    now = int(time.time())
    days = settings.expires_after_days
    return Key(
        name=settings.name,
        tenant=settings.tenant,
        knowledge_bases=_listed(settings.knowledge_bases),
        models=_listed(settings.models),
        may_write=not settings.read_only,
        limits=Limits(**{name: getattr(settings, name) for name in Limits.__struct_fields__}),
        sha256=digest(token.encode()).hex(),
        created_at=now,
        expires_at=None if days is None else now + days * _DAY_S,
    )


def _listed(said: str | None) -> tuple[str, ...] | None:
    return None if said is None else tuple(listed(said))


def _row(key: Key) -> tuple[str, ...]:
    limits = {name: getattr(key.limits, name) for name in Limits.__struct_fields__}
    return (
        key.id,
        key.name,
        key.tenant,
        _names(key.knowledge_bases),
        _names(key.models),
        "yes" if key.may_write else "no",
        " ".join(f"{name}={most}" for name, most in limits.items() if most is not None) or "-",
        _day(key.created_at),
        "-" if key.expires_at is None else _day(key.expires_at),
    )


def _names(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ",".join(names) or "none"


def _day(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).date().isoformat()


def _explain(error: ValidationError) -> str:
    """One line that names each refused option; values are not repeated."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False):
        name = str(problem["loc"][0]) if problem["loc"] else "options"
        flag = f"--{name.replace('_', '-')}"
        variable = f" or {ENV_PREFIX}{name.upper()}" if name == "api_keys_file" else ""
        lines.append(f"{flag}{variable}: {problem['msg']}")
    return "; ".join(lines)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return _FAILED


_COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "make": _make,
    "list": _list,
    "revoke": _revoke,
}
