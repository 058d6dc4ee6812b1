"""`/v1/files` over HTTP: uploads of every shape, and downloads that no browser shows."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai.types import FileDeleted, FileObject

from gateway.errors import InvalidRequest
from gateway.stores.uploaded import FILENAME_MAX_CHARS, PURPOSES, checked_filename
from indexer.index.errors import LibraryUnavailable
from indexer.index.library import Library, new_id
from tests.unit.stores_fakes import TENANT, Stores, error_of, stored, stores_in, strict

PATH = "/v1/files"
LIMIT = 5_000_000
PURPOSE = {"purpose": "assistants"}


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    # A body of JSON may be shorter than an upload.
    with stores_in(tmp_path, max_upload_bytes=LIMIT, max_body_bytes=2_000) as stores:
        yield stores


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """For uploads that are refused: starting a gateway takes longer than they do."""
    with stores_in(tmp_path_factory.mktemp("library"), max_upload_bytes=LIMIT) as stores:
        yield stores
        assert stores.library.files(TENANT) == []


def upload(stores: Stores, name: str, content: bytes, **fields: str) -> Any:
    files = {"file": (name, content)}
    return stores.client.post(PATH, data=PURPOSE | fields, files=files)


def test_an_uploaded_file_is_what_was_said_of_it(stores: Stores, tmp_path: Path) -> None:
    before = int(time.time())
    file = strict(FileObject, upload(stores, "guide.md", b"# Llamas"))

    assert (file.filename, file.bytes, file.purpose) == ("guide.md", 8, "assistants")
    assert before <= file.created_at <= time.time()
    assert (file.status, file.expires_at) == ("processed", None)
    assert strict(FileObject, stores.client.get(f"{PATH}/{file.id}")) == file
    with stores_in(tmp_path) as other:  # a second worker, or the same one after a restart
        assert other.sdk.files.content(file.id).content == b"# Llamas"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_purpose_of_the_sdk_is_taken(stores: Stores, purpose: str) -> None:
    assert upload(stores, "a.md", b"x", purpose=purpose).json()["purpose"] == purpose


def test_a_file_that_expires_is_gone_by_then(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = stores.sdk.files.create(
        file=("a.md", b"x"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    store = stores.store()
    assert file.expires_at is not None
    assert abs(file.expires_at - file.created_at - 3600) <= 1

    later = time.time() + 3602
    monkeypatch.setattr("gateway.stores.uploaded.time.time", lambda: later)
    assert stores.sdk.files.list().data == []
    for path in ("", "/content"):
        error_of(stores.client.get(f"{PATH}/{file.id}{path}"), 404)
    attached = stores.client.post(f"/v1/vector_stores/{store}/files", json={"file_id": file.id})
    error_of(attached, 404)


def test_an_upload_may_be_longer_than_other_requests_and_has_a_limit_of_its_own(
    stores: Stores,
) -> None:
    content = bytes(range(256)) * 16_000  # on the disk on its way
    file = upload(stores, "a.bin", content).json()

    assert file["bytes"] == len(content)
    assert stores.client.get(f"{PATH}/{file['id']}/content").content == content
    response = upload(stores, "b.bin", bytes(LIMIT))
    assert error_of(response, 413)["code"] == "request_too_large"
    body: Any = iter([bytes(LIMIT), b"x"])  # its length is not announced
    response = stores.client.post(
        PATH, content=body, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.status_code in (400, 413)
    assert [each.id for each in stores.library.files(TENANT)] == [file["id"]]


def test_a_download_is_never_shown_as_a_page(stores: Stores) -> None:
    content = b"<script>alert(1)</script>"
    file = upload(stores, 'p"age, €;x.html', content).json()
    response = stores.client.get(f"{PATH}/{file['id']}/content")

    assert response.content == content
    assert response.headers["content-length"] == str(len(content))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox"
    assert response.headers["content-disposition"] == (
        "attachment; filename*=UTF-8''p%22age%2C%20%E2%82%AC%3Bx.html"
    )


def test_a_deleted_file_is_gone(stores: Stores) -> None:
    file = stores.file()

    gone = strict(FileDeleted, stores.client.delete(f"{PATH}/{file}"))
    assert (gone.id, gone.deleted, gone.object) == (file, True, "file")
    for response in (
        stores.client.delete(f"{PATH}/{file}"),
        stores.client.get(f"{PATH}/{file}"),
        stores.client.get(f"{PATH}/{file}/content"),
    ):
        assert file in error_of(response, 404)["message"]


def test_files_are_listed_newest_first_page_by_page(stores: Stores) -> None:
    made = [stores.file(f"{at}.md") for at in range(5)]
    other = upload(stores, "b.md", b"x", purpose="batch").json()["id"]
    expected = sorted([*made, other], reverse=True)  # ids begin with the time

    assert [file.id for file in stores.sdk.files.list()] == expected
    assert [file.id for file in stores.sdk.files.list(limit=2)] == expected
    assert [file.id for file in stores.sdk.files.list(limit=4, order="asc")] == expected[::-1]
    assert [file.id for file in stores.sdk.files.list(purpose="batch")] == [other]
    for told in stores.client.get(PATH).json()["data"]:
        FileObject.model_validate(told, strict=True)
    for query, param in [({"limit": "10001"}, "limit"), ({"after": "x"}, "after")]:
        assert error_of(stores.client.get(PATH, params=query), 400)["param"] == param


def test_who_deletes_the_files_that_are_listed_sees_all_of_them(stores: Stores) -> None:
    for at in range(5):
        stores.file(f"{at}.md")
    for file in stores.sdk.files.list(limit=2):
        stores.sdk.files.delete(file.id)

    assert stores.library.files(TENANT) == []


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\docs\\guide.md", "guide.md"),
        ("/", None),
        ("..", None),
        ("a/..", None),
        ("  ", None),
        ("a\x00b.md", None),
        ("a\r\nset-cookie: x", None),
        ("a\u202egnp.exe", None),
        ("a\tb.md", None),
        ("größe 日本.md", "größe 日本.md"),
        ("x" * FILENAME_MAX_CHARS, "x" * FILENAME_MAX_CHARS),
        ("x" * (FILENAME_MAX_CHARS + 1), None),
        ("file-" + "0" * 32, "file-" + "0" * 32),
    ],
)
def test_a_file_is_called_by_the_last_part_of_a_printable_name(said: str, kept: str | None) -> None:
    if kept is None:
        with pytest.raises(InvalidRequest) as failure:
            checked_filename(said)
        assert failure.value.param == "file"
    else:
        assert checked_filename(said) == kept


def test_the_name_that_a_client_gives_is_cleaned_before_it_is_kept(stores: Stores) -> None:
    file = strict(FileObject, upload(stores, "../../größe.md", b"x"))

    assert file.filename == stored(stores.library, file.id).filename == "größe.md"
    assert error_of(upload(stores, "a/..", b"x"), 400)["param"] == "file"
    raw = (
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a\x00b.md"\r\n\r\nx\r\n'
        b"--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    error_of(stores.client.post(PATH, content=raw, headers=headers), 400)


SECONDS = "expires_after[seconds]"
ANCHOR = "expires_after[anchor]"


@pytest.mark.parametrize(
    ("param", "fields", "files"),
    [
        ("file", PURPOSE, {"other": ("a", b"")}),
        ("purpose", {}, {"file": ("a.md", b"x")}),
        ("purpose", {"purpose": "fun"}, {"file": ("a.md", b"x")}),
        ("purpose", {"purpose": ""}, {"file": ("a.md", b"x")}),
        ("file", PURPOSE, {"file": ("a.md", b"")}),
        ("filename", PURPOSE | {"filename": "x"}, {"file": ("a.md", b"x")}),
        (ANCHOR, PURPOSE | {SECONDS: "3600"}, {"file": ("a.md", b"x")}),
        (ANCHOR, PURPOSE | {ANCHOR: "now", SECONDS: "3600"}, {"file": ("a.md", b"x")}),
        (SECONDS, PURPOSE | {ANCHOR: "created_at"}, {"file": ("a.md", b"x")}),
        (SECONDS, PURPOSE | {ANCHOR: "created_at", SECONDS: "3599"}, {"file": ("a.md", b"x")}),
        (SECONDS, PURPOSE | {ANCHOR: "created_at", SECONDS: "1e4"}, {"file": ("a.md", b"x")}),
        (SECONDS, PURPOSE | {ANCHOR: "created_at", SECONDS: "9" * 99}, {"file": ("a.md", b"x")}),
    ],
)
def test_what_is_wrong_with_an_upload_is_named_and_nothing_is_kept(
    untouched: Stores, param: str, fields: dict[str, str], files: Any
) -> None:
    if "other" in files:
        response = untouched.client.post(PATH, data=fields, files={"file": (None, b"x")})
    else:
        response = untouched.client.post(PATH, data=fields, files=files)

    assert error_of(response, 400)["param"] == param


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=x", b"no form"),
        ("application/x-www-form-urlencoded", b"purpose=assistants"),
        (None, b"x"),
    ],
)
def test_a_body_that_is_no_form_is_refused(
    untouched: Stores, kind: str | None, body: bytes
) -> None:
    headers = {} if kind is None else {"content-type": kind}

    error_of(untouched.client.post(PATH, content=body, headers=headers), 400)


@pytest.mark.parametrize("file", ["file-1", "%2e%2e%2f", "x" * 3000, "file-" + "g" * 32, "a%00"])
def test_an_id_that_no_file_can_have_is_not_found(untouched: Stores, file: str) -> None:
    assert untouched.client.delete(f"{PATH}/{file}").status_code == 404
    for path in ("", "/content"):
        assert untouched.client.get(f"{PATH}/{file}{path}").status_code == 404


def test_the_files_of_another_tenant_do_not_exist(tmp_path: Path) -> None:
    with stores_in(tmp_path, tenant="other") as other:
        file = other.sdk.files.create(file=("a.md", b"x"), purpose="assistants").id
    with stores_in(tmp_path) as stores:
        assert stores.sdk.files.list().data == []
        for path in ("", "/content"):
            error_of(stores.client.get(f"{PATH}/{file}{path}"), 404)
        error_of(stores.client.delete(f"{PATH}/{file}"), 404)
    with stores_in(tmp_path, tenant="other") as other:
        assert other.sdk.files.retrieve(file).id == file


def test_a_gateway_without_a_library_takes_no_files() -> None:
    with stores_in(None) as stores:
        assert stores.sdk.files.list().data == []
        for response in (
            upload(stores, "a.md", b"x"),
            stores.client.delete(f"{PATH}/{new_id('file')}"),
        ):
            assert "GROUNDSERVE_LIBRARY_URL" in error_of(response, 403)["message"]
        for path in ("", "/content"):
            error_of(stores.client.get(f"{PATH}/{new_id('file')}{path}"), 404)


def test_a_storage_that_is_away_is_told_as_such(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise LibraryUnavailable("the storage is away")

    file = stores.file()
    monkeypatch.setattr(Library, "open_file", away)
    response = stores.client.get(f"{PATH}/{file}/content")

    assert error_of(response, 503)["code"] == "library_unavailable"
    assert "retry-after" in response.headers
