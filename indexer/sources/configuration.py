"""What the sources are: a TOML file, or what stood on the command line. Opens no source.

::

    [web]                        # rules for every http(s) source; all of them have defaults
    max_bytes = 5_000_000

    [[source]]
    location = "docs"            # relative to this file
    exclude = ["drafts/"]
    attributes = { product = "router" }

    [[source]]
    location = "https://docs.example.org/sitemap.xml"
    tenant = "public"

    [attributes]                 # what filters may use; a document that has another type is skipped
    year = "integer"             # or "string", "number", "boolean"

    [[golden.queries]]           # what a new generation must find before readers see it
    query = "How do I reset the router?"
    expect = "reset.md"
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from indexer.errors import ConfigurationUnusable
from indexer.gate import GoldenQueries
from indexer.index.attributes import declared_types
from indexer.index.records import AttributeType
from indexer.sources.attributes import json_attributes
from indexer.sources.patterns import Patterns

_MIB = 1 << 20
_Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]+$")]
_Field = Annotated[str, Meta(min_length=1)]
_Size = Annotated[int, Meta(ge=1)]
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class WebRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a web source may do. Equal rules share one client in each process."""

    allow_private: bool = False
    """Whether addresses that are not public may be asked: intranets, this machine."""
    other_hosts: tuple[_Line, ...] = ()
    """Hosts beside its own that a sitemap may name."""
    max_bytes: _Size = 20 * _MIB
    """Largest page, after decompression."""
    timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    """Seconds that one page may take in all, redirects and retries included."""
    max_urls: _Size = 50_000
    """Most pages of one sitemap, with the sitemaps that it names; more make the source fail."""
    respect_robots: bool = True
    """Whether robots.txt decides what is read and how fast."""
    user_agent: Annotated[str, Meta(pattern=r"^[\x20-\x7e]*$")] = ""
    """`Groundserve-indexer/VERSION` where empty."""
    proxy: Annotated[str, Meta(pattern=r"^(https?://[^\x00-\x20]+)?$")] = ""
    """The only proxy that is used. It needs `allow_private`: what is behind it cannot be seen."""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the configuration."""

    location: _Line
    """Folder, glob, file, http(s) URL, or a URL that fsspec knows: `s3://bucket/prefix`."""
    kind: Literal["auto", "sitemap"] = "auto"
    """A URL that ends in .xml or .xml.gz is a sitemap without saying so."""
    tenant: Annotated[str, Meta(min_length=1, max_length=128)] = "default"
    attributes: dict[str, Any] = {}
    """A flat table of JSON values that every document of the source has."""
    include: list[_Line] = []
    """Patterns as in .gitignore, on the path below the location or on the path of a URL."""
    exclude: list[_Line] = []
    max_bytes: _Size = 256 * _MIB
    """Largest file, and largest line of a file of records; for web pages see `web`."""
    text_field: _Field = "text"
    """Field of a record in a JSON Lines file that holds its text."""
    title_field: _Field = "title"
    id_field: str = ""
    """Field that identifies a record; "id" or "_id" where empty."""
    attribute_fields: list[_Field] = []
    """Fields of a record that become attributes."""
    text_format: Literal[".txt", ".md"] = ".txt"
    """What the text of a record is."""
    storage_options: dict[str, Any] = {}
    """Handed to fsspec: credentials, endpoints."""
    web: WebRules = WebRules()

    def patterns(self, glob: str = "") -> Patterns:
        """Its include and exclude patterns, with those of its location. Raises ValueError."""
        return Patterns(self.include, self.exclude, glob)


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What the file and the command line say together."""

    sources: list[Source]
    golden: GoldenQueries = GoldenQueries()
    attributes: dict[str, AttributeType] = {}
    """Those that filters may use, by name and in the order of names."""


def load_configuration(path: Path, default_tenant: str) -> Configuration:
    """The sources, the golden queries and the attributes that the TOML file at `path` lists.

    Paths in it are relative to its folder; "~" is the home folder, and nothing else is expanded.
    Raises ConfigurationUnusable with one line that names file, entry and field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as exc:
        raise ConfigurationUnusable(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise ConfigurationUnusable(f"{path} is no TOML: {exc}") from exc
    try:
        _refuse_unknown(tables, ("source", "web", "golden", "attributes"))
        golden = _converted(tables.get("golden", {}), GoldenQueries, "golden.")
        attributes = _attributes(tables.get("attributes", {}))
        entries, web = _entries(tables)
    except ValueError as exc:
        raise ConfigurationUnusable(f"{path}: {exc}") from exc
    sources = [
        _source(entry, web, default_tenant, path, number)
        for number, entry in enumerate(entries, start=1)
    ]
    return Configuration(sources=sources, golden=golden, attributes=attributes)


def sources_of(arguments: Sequence[str], tenant: str) -> list[Source]:
    """One source for each location on the command line. Raises ConfigurationUnusable."""
    sources = []
    for location in arguments:
        try:
            source = _converted({"location": location, "tenant": tenant}, Source)
            sources.append(_checked(source, Path.cwd()))
        except ValueError as exc:
            raise ConfigurationUnusable(f"{_shown(location)}: {exc}") from exc
    return sources


def scheme_of(location: str) -> str:
    """What stands before "://" or "::", in lower case; empty for a path."""
    found = re.match(r"([a-z][a-z0-9+.-]+)(://|::)", location, re.IGNORECASE)
    return found[1].lower() if found else ""


def _entries(tables: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The source tables, and the table of rules for all of them."""
    web = tables.get("web", {})
    _converted(web, WebRules, "web.")
    entries = tables.get("source", [])
    if not (isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)):
        raise ValueError("source is not written as [[source]]")
    if not entries:
        raise ValueError("there is no [[source]] in it")
    return entries, web


def _attributes(table: Any) -> dict[str, AttributeType]:
    try:
        return declared_types(table)
    except ValueError as exc:
        raise ValueError(f"attributes: {exc}") from exc


def _source(entry: dict[str, Any], web: Any, tenant: str, path: Path, number: int) -> Source:
    try:
        _refuse_unknown(entry, Source.__struct_fields__)
        own_web = entry.get("web", {})
        _converted(own_web, WebRules, "web.")
        whole = {"tenant": tenant} | entry | {"web": web | own_web}
        return _checked(_converted(whole, Source), path.absolute().parent)
    except ValueError as exc:
        name = _shown(entry.get("location", "without location"))
        raise ConfigurationUnusable(f"{path}: source {number} ({name}): {exc}") from exc


def _shown(location: Any) -> str:
    """A location as a message may have it: without what may be a password."""
    text = re.sub(r"://[^/]*@", "://…@", str(location))
    return text if text.isprintable() and text else repr(text)


def _refuse_unknown(table: dict[str, Any], known: Iterable[str], prefix: str = "") -> None:
    names = list(known)
    for name in table:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f", did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"{prefix}{name} is no field{hint}")


def _converted(table: Any, kind: type[_Struct], prefix: str = "") -> _Struct:
    if isinstance(table, dict):
        _refuse_unknown(table, kind.__struct_fields__, prefix)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as exc:
        problem, _, where = str(exc).partition(" - at `$")
        field = where.rstrip("`").lstrip(".") or prefix.rstrip(".")
        told = f"{problem[:1].lower()}{problem[1:]}"
        raise ValueError(f"{prefix if where else ''}{field}: {told}" if field else told) from exc


def _checked(source: Source, base: Path) -> Source:
    """`source` with an absolute location. Raises ValueError, naming the field."""
    try:
        attributes = json_attributes(source.attributes)
    except ValueError as exc:
        raise ValueError(f"attributes: {exc}") from exc
    for field, patterns in (("include", source.include), ("exclude", source.exclude)):
        try:
            Patterns(patterns, ())
        except ValueError as exc:
            raise ValueError(f"{field}: {exc}") from exc
    if source.web.proxy and not source.web.allow_private:
        raise ValueError("web.proxy: it needs allow_private = true")
    try:
        location = _absolute(source.location, base)
    except ValueError as exc:
        raise ValueError(f"location: {exc}") from exc
    return msgspec.structs.replace(source, location=location, attributes=attributes)


def _absolute(location: str, base: Path) -> str:
    scheme = scheme_of(location)
    if not scheme:
        try:
            return str(base / Path(location).expanduser())
        except RuntimeError as exc:
            raise ValueError("it names the home folder of nobody") from exc
    if scheme == "file":
        return location
    for url in location.split("::"):
        parts = urlsplit(url)
        if parts.password is not None:
            raise ValueError("it holds a password, which belongs into storage_options")
        if parts.username is not None and scheme in ("http", "https"):
            raise ValueError("it holds a user name")
    if scheme in ("http", "https") and not urlsplit(location).hostname:
        raise ValueError("it names no host")
    head, chained, inner = location.rpartition("::")
    if chained and not scheme_of(inner):
        return f"{head}::{Path(base, inner).absolute().as_uri()}"
    return location
