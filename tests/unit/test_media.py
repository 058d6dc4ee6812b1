"""URLs that vLLM may load: whatever parser reads one, it sees an allowed host, or it is refused."""

from typing import Any
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st
from urllib3.util import parse_url

from gateway.errors import InvalidRequest
from gateway.media import Media, is_allowed, parsed_hosts

HOSTS = parsed_hosts("images.example, [2001:DB8::1], bücher.example, other.example:8443")
ALLOWED = {"images.example", "2001:db8::1", "xn--bcher-kva.example", "other.example"}
ALLOWED |= {"bücher.example"}  # so yarl shows it

GLUE = [
    "",
    "@",
    ":",
    "/",
    "\\",
    "?",
    "#",
    ".",
    " ",
    "\t",
    "\n",
    "\r",
    "\x00",
    "%",
    "%00",
    "%2e",
    "%40",
]
PARTS = [
    *("http://", "https://", "HTTPS://", "http:/", "http:", "//", "file://", "ftp://", "data:"),
    *("images.example", "IMAGES.example.", "images.example.evil.example", "evil.example"),
    *("127.0.0.1", "2130706433", "0x7f.1", "[::1]", "[2001:db8::1]", "[::ffff:127.0.0.1]"),
    *("localhost", "169.254.169.254", "user", "user:pw", "80", "443", "8443", "22", "a.png"),
    *("bücher.example", "xn--bcher-kva.example", "ⓘmages.example", "images。example", "\u200b"),
]
URLS = st.lists(st.sampled_from(PARTS + GLUE), max_size=9).map("".join)


def hosts_seen(url: str) -> set[str]:
    """The host in `url`, as each of three parsers sees it; vLLM uses the first."""
    found: set[str | None] = {parse_url(url).host, urlsplit(url).hostname, yarl.URL(url).host}
    return {str(host).strip("[]").lower().removesuffix(".") for host in found}


@settings(max_examples=600)
@given(st.sampled_from(["", "http://", "https://"]), URLS)
@example("https://", "images.example")
@example("https://", "images.example\\@evil.example/")
@example("https://", "evil.example\\@images.example/")
@example("https://", "user@images.example")
@example("https://", "images.example:443/a.png?b#c")
@example("http://", "[2001:db8::1]/a")
def test_every_parser_sees_an_allowed_host_in_what_is_taken(scheme: str, rest: str) -> None:
    url = scheme + rest
    if is_allowed(url, HOSTS) and not url.startswith("data:"):
        assert hosts_seen(url) <= ALLOWED
        assert urlsplit(url).scheme in ("http", "https")
        assert urlsplit(url).port in (None, 80, 443, 8443)
        assert urlsplit(url).username is None


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example",
        "https://images.example/a/b.png?c=d&e#f",
        "http://images.example:80/",
        "https://IMAGES.Example./a.png",
        "https://xn--bcher-kva.example/a",
        "https://[2001:db8:0:0::1]/a",
        "https://[2001:DB8::1]:443/a",
        "https://other.example:8443/a",
        "data:image/png;base64,AAAA",
        "DATA:image/png;base64,AAAA",
    ],
)
def test_hosts_that_are_named_are_taken_however_they_are_written(url: str) -> None:
    assert is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images.example/a",
        "//images.example/a",
        "HTTPS://images.example/a\n",
        " https://images.example/a",
        "https://images.example /a",
        "https://images.example/a b",
        "https://images.example/ä",
        "https://images.example\\a",
        "https://images.example@evil.example/",
        "https://me:pw@images.example/",
        "https://images.example:22/",
        "https://images.example:8443/",
        "https://images.example:/a",
        "https://images.example:99999/",
        "https://other.example/a",
        "https://sub.images.example/",
        "https://images.example../",
        "https://images.example%2eevil.example/",
        "https://images。example/",
        "https://bücher.example/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://[::1]/",
        "https://[2001:db8::1%25eth0]/",
        "https://[images.example]/",
        "file:///etc/passwd",
        "file://images.example/etc/passwd",
        "ftp://images.example/a",
        "httpx://images.example/a",
        "javascript:alert(1)",
    ],
)
def test_all_others_are_refused(url: str) -> None:
    assert not is_allowed(url, HOSTS)


EVIL = "http://169.254.169.254/latest/meta-data"
LINKED = {"type": "url", "url": EVIL}


def of(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (of({"type": "image_url", "image_url": {"url": EVIL}}), "content[0].image_url.url"),
        (of({"image_url": EVIL}), "content[0].image_url"),
        (
            of({"type": "text", "text": "a"}, {"audio_url": {"url": EVIL}}),
            "content[1].audio_url.url",
        ),
        (of({"type": "video_url", "video_url": {"url": EVIL}}), "content[0].video_url.url"),
        (of({"type": "image_url", "image_url": [EVIL]}), "content[0].image_url"),
        (of({"type": "image_url", "image_url": {"url": [EVIL]}}), "content[0].image_url.url"),
        ({"content": {"type": "image_url", "image_url": EVIL}}, "content.image_url"),
        (of({"type": "input_image", "image_url": EVIL}), "content[0].image_url"),
        (of({"type": "input_file", "file_url": EVIL}), "content[0].file_url"),
        (of({"type": "file", "file": {"file_url": EVIL}}), "content[0].file.file_url"),
        (of({"type": "image", "source": LINKED}), "content[0].source.url"),
        (of({"content": [{"source": LINKED}]}), "content[0].content[0].source.url"),
        ({"output": [{"type": "input_image", "image_url": EVIL}]}, "output[0].image_url"),
        ({"output": {"type": "computer_screenshot", "image_url": EVIL}}, "output.image_url"),
        ({"type": "input_image", "image_url": EVIL}, "image_url"),
        (of({"type": "image_embeds", "image_embeds": "AAAA"}), "content[0].image_embeds"),
        (of({"type": "prompt_embeds", "data": "AAAA"}), "content[0].prompt_embeds"),
        (of({"image_url": None, "uuid": "theirs"}), "content[0].uuid"),
        (of({"content": [{"image_url": None, "uuid": None}]}), "content[0].content[0].uuid"),
    ],
)
def test_the_part_that_is_not_loaded_is_named(message: dict[str, Any], param: str) -> None:
    media = Media(HOSTS, frozenset({"image_embeds", "prompt_embeds"}))
    with pytest.raises(InvalidRequest) as refused:
        media.check([{"role": "user", "content": "a"}, message], "messages")

    assert refused.value.param == f"messages[1].{param}"


def test_what_only_looks_like_media_is_left_alone() -> None:
    media = Media(HOSTS, frozenset())
    left = [
        {"role": "user", "content": EVIL},
        of({"type": "text", "text": EVIL}),
        of({"type": "text", "text": '"uuid"'}),
        of({"type": "tool_use", "input": {"image_url": EVIL, "source": LINKED}}),
        {"tool_calls": [{"function": {"arguments": {"image_url": EVIL}}}]},
        {"content": [{"image_url": None}, {"source": {"type": "base64"}}, None, 1]},
        of({"type": "image_url", "image_url": {"url": "https://images.example/a"}}),
    ]

    media.check(left, "messages")


@pytest.mark.parametrize(
    "said", ["https://a", "a/b", "a b", "user@a", "a:0", "a:70000", "[a]", "[::1", "a..b", "*" * 70]
)
def test_a_setting_that_names_no_hosts_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="no list of hosts"):
        parsed_hosts(f"good.example, {said}")
