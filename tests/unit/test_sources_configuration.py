"""What a configuration file may say, and how a mistake in it is told."""

from pathlib import Path

import pytest

from indexer.errors import ConfigurationUnusable
from indexer.gate import GoldenQuery
from indexer.sources import (
    Configuration,
    Listing,
    Source,
    WebRules,
    load_configuration,
    sources_of,
)


def load(folder: Path, text: str) -> Configuration:
    file = folder / "sources.toml"
    file.write_text(text)
    return load_configuration(file, "default-tenant")


def test_an_entry_needs_a_location_alone(tmp_path: Path) -> None:
    assert load(tmp_path, '[[source]]\nlocation = "docs"') == Configuration(
        sources=[Source(location=f"{tmp_path}/docs", tenant="default-tenant")]
    )


def test_everything_can_be_said(tmp_path: Path) -> None:
    text = """
        [web]
        timeout_s = 5
        user_agent = "reader/1"

        [[source]]
        location = "https://docs.example.org/sitemap"
        kind = "sitemap"
        tenant = "public"
        attributes = { product = "router", since = 2024-01-31, tags = ["a"] }
        include = ["guide/"]
        exclude = ["*.pdf"]
        web = { max_bytes = 1000, timeout_s = 7, other_hosts = ["cdn.example.org"] }

        [[source]]
        location = "s3://bucket/records.jsonl"
        text_field = "body"
        title_field = "name"
        id_field = "key"
        attribute_fields = ["year"]
        text_format = ".md"
        max_bytes = 1000
        storage_options = { anon = true, client_kwargs = { region_name = "eu" } }

        [golden]
        min_found = 0.5
        queries = [{ query = "q", expect = "e", tenant = "public" }]
    """

    configuration = load(tmp_path, text)

    assert configuration.sources == [
        Source(
            location="https://docs.example.org/sitemap",
            kind="sitemap",
            tenant="public",
            attributes={"product": "router", "since": "2024-01-31", "tags": ["a"]},
            include=["guide/"],
            exclude=["*.pdf"],
            web=WebRules(
                max_bytes=1000,
                timeout_s=7,
                other_hosts=("cdn.example.org",),
                user_agent="reader/1",
            ),
        ),
        Source(
            location="s3://bucket/records.jsonl",
            tenant="default-tenant",
            text_field="body",
            title_field="name",
            id_field="key",
            attribute_fields=["year"],
            text_format=".md",
            max_bytes=1000,
            storage_options={"anon": True, "client_kwargs": {"region_name": "eu"}},
            web=WebRules(timeout_s=5, user_agent="reader/1"),
        ),
    ]
    assert configuration.golden.min_found == 0.5
    assert configuration.golden.queries == [GoldenQuery(query="q", expect="e", tenant="public")]


@pytest.mark.parametrize(
    ("location", "absolute"),
    [
        ("docs", "{}/docs"),
        ("docs/**/*.md", "{}/docs/**/*.md"),
        ("../docs", "{}/../docs"),
        ("/srv/docs", "/srv/docs"),
        ("~/docs", "/home/someone/docs"),
        ("$HOME/docs", "{}/$HOME/docs"),
        ("file:///srv/docs", "file:///srv/docs"),
        ("https://example.org/a?b=c", "https://example.org/a?b=c"),
        ("zip://*.md::archive.zip", "zip://*.md::file://{}/archive.zip"),
        ("zip://*.md::s3://bucket/archive.zip", "zip://*.md::s3://bucket/archive.zip"),
    ],
)
def test_locations_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, absolute: str
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir("/")

    [source] = load(tmp_path, f'[[source]]\nlocation = "{location}"').sources

    assert source.location == absolute.format(tmp_path)


def test_a_file_given_by_a_relative_path_is_found_and_so_is_what_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "sources.toml").write_text('[[source]]\nlocation = "*.md"')
    monkeypatch.chdir(tmp_path)

    [document] = Listing(load_configuration(Path("sources.toml"), "t").sources)

    assert document.uri == f"file://{tmp_path}/a.md"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there is no [[source]] in it"),
        ("[source]\nlocation = 'a'", "source is not written as [[source]]"),
        ("source = ['a']", "source is not written as [[source]]"),
        ("[[sources]]\nlocation = 'a'", "sources is no field, did you mean source?"),
        ("[web]\ntimeout = 3", "web.timeout is no field, did you mean web.timeout_s?"),
        ("[web]\ntimeout_s = 0", "web.timeout_s: expected `float` > 0.0"),
        ("web = 3", "web: expected `object`, got `int`"),
        (
            "[golden]\nquerys = []",
            "golden.querys is no field, did you mean golden.queries?",
        ),
        (
            "[[golden.queries]]\nquery = 'q'",
            "golden.queries[0]: object missing required field `expect`",
        ),
        (
            "[[source]]\nlocation = 'a'\n[[source]]\nlocation = 'b'\ninclde = []",
            "source 2 (b): inclde is no field, did you mean include?",
        ),
        ("[[source]]\nxyzzy = 1", "source 1 (without location): xyzzy is no field"),
        (
            "[[source]]\ntenant = 't'",
            "source 1 (without location): object missing required field `location`",
        ),
        ("[[source]]\nlocation = 3", "source 1 (3): location: expected `str`, got `int`"),
        ("[[source]]\nlocation = ''", "source 1 (''): location: expected `str` matching regex"),
        ("[[source]]\nlocation = 'a'\nkind = 'x'", "source 1 (a): kind: invalid enum value 'x'"),
        (
            "[[source]]\nlocation = 'a'\ntenant = ''",
            "source 1 (a): tenant: expected `str` of length >= 1",
        ),
        (
            "[[source]]\nlocation = 'a'\ninclude = 'x'",
            "source 1 (a): include: expected `array`, got `str`",
        ),
        (
            "[[source]]\nlocation = 'a'\nexclude = ['ok', '!']",
            "source 1 (a): exclude: '!' is no pattern",
        ),
        (
            "[[source]]\nlocation = 'a'\nattributes = { b = { c = 1 } }",
            "source 1 (a): attributes: b is no text, number, truth value, date or list of these",
        ),
        (
            "[[source]]\nlocation = 'a'\nweb = { max_byte = 1 }",
            "source 1 (a): web.max_byte is no field, did you mean web.max_bytes?",
        ),
        (
            "[[source]]\nlocation = 'a'\nweb = { proxy = 'http://p:1' }",
            "source 1 (a): web.proxy: it needs allow_private = true",
        ),
        (
            "[[source]]\nlocation = 'https://'",
            "source 1 (https://): location: it names no host",
        ),
        (
            "[[source]]\nlocation = 'https://u:secret@h/'",
            "source 1 (https://…@h/): location: it holds a password",
        ),
        (
            "[[source]]\nlocation = 'zip://a::ftp://u:secret@h/b.zip'",
            "source 1 (zip://a::ftp://…@h/b.zip): location: it holds a password",
        ),
        (
            "[[source]]\nlocation = 'http://u@h/'",
            "source 1 (http://…@h/): location: it holds a user name",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line_with_file_entry_and_field(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigurationUnusable) as refused:
        load(tmp_path, text)

    assert str(refused.value).startswith(f"{tmp_path}/sources.toml: {told}")
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_toml_is_told_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationUnusable, match=r"is no TOML: .*line 2"):
        load(tmp_path, "[[source]]\nlocation = \n")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationUnusable, match=r"x\.toml cannot be read: No such file"):
        load_configuration(tmp_path / "x.toml", "t")


def test_the_command_line_names_locations_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert sources_of(["docs", "https://example.org/"], "t") == [
        Source(location=f"{tmp_path}/docs", tenant="t"),
        Source(location="https://example.org/", tenant="t"),
    ]


@pytest.mark.parametrize("location", ["", "a\nb", "http:///x", "https://u:secret@h/", "~nobody0/x"])
def test_a_location_on_the_command_line_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(ConfigurationUnusable) as refused:
        sources_of([location], "t")

    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_file_name_that_is_no_utf_8_may_stand_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "caf\udce9.md"
    file.touch()

    [document] = Listing(sources_of([str(file)], "t"))

    assert document.uri.endswith("caf%E9.md")
