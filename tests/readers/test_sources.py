"""Input is found where the project file says, looked at without being read, and fetched only when it changed."""

from __future__ import annotations

import gzip
import io
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import responses

from bioforge.core.errors import InputError
from bioforge.readers.csv import csv_reader
from bioforge.readers.download import Fetched, Validators, fetch, shown
from bioforge.readers.sources import Signature, Source, find, is_url

CSV = b"artist_name\nBj\xc3\xb6rk\n"
URL = "https://museum.example/data/artists.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "artists.csv").write_bytes(CSV)
    return tmp_path


def content(source: Source) -> bytes:
    with source.open() as stream:
        return stream.read()


def refusal(path: str, root: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        [content(source) for source in find(path, root)]
    return caught.value


# ------------------------------------------------------------------------------------------------------------ files


def test_a_file_is_found_beside_the_project_file(folder):
    (source,) = find("artists.csv", folder)
    assert (source.name, source.suffix, content(source)) == ("artists.csv", "csv", CSV)
    (absolute,) = find(str(folder / "artists.csv"), Path("/"))
    assert content(absolute) == CSV


def test_a_glob_is_its_files_in_sorted_order(folder):
    for name in ("b/2.csv", "b/10.csv", "a/1.csv", "b/c/3.csv", "a/1.txt"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(CSV)
    (folder / "b" / "folder.csv").mkdir()
    assert [source.name for source in find("*/*.csv", folder)] == ["a/1.csv", "b/10.csv", "b/2.csv"]
    assert [source.name for source in find("**/3.csv", folder)] == ["b/c/3.csv"]


def test_a_file_whose_name_looks_like_a_glob_is_itself(folder):
    (folder / "artists[1].csv").write_bytes(b"x")
    assert [source.name for source in find("artists[1].csv", folder)] == ["artists[1].csv"]


def test_a_folder_whose_name_looks_like_a_glob_is_no_pattern(tmp_path):
    root = tmp_path / "year [2024]"
    root.mkdir()
    (root / "a.csv").write_bytes(CSV)
    assert [source.name for source in find("*.csv", root)] == ["a.csv"]


def test_packed_files_are_unpacked_and_keep_their_suffix(folder):
    (folder / "artists.CSV.gz").write_bytes(gzip.compress(CSV))
    (source,) = find("artists.CSV.gz", folder)
    assert (source.suffix, content(source)) == ("csv", CSV)


def test_standard_input_is_a_source_without_a_signature(monkeypatch, tmp_path):
    stdin = io.TextIOWrapper(io.BytesIO(CSV))
    monkeypatch.setattr(sys, "stdin", stdin)
    (source,) = find("-", tmp_path)
    assert source.signature() is None
    assert content(source) == CSV
    assert not stdin.buffer.closed
    assert refusal("-", tmp_path).message == "input 'standard input' is empty"


def test_a_pipe_is_read_once_and_never_taken_for_unchanged(tmp_path):
    os.mkfifo(tmp_path / "artists.csv")
    writer = threading.Thread(target=lambda: (tmp_path / "artists.csv").write_bytes(CSV))
    writer.start()
    (source,) = find("artists.csv", tmp_path)
    assert source.signature() is None
    assert content(source) == CSV
    writer.join()


def test_a_source_left_early_leaves_nothing_open(folder):
    (folder / "artists.csv").write_bytes(CSV * 100)
    (source,) = find("artists.csv", folder)
    with source.open() as stream:
        rows = csv_reader(stream, source.name, {})
        next(rows)
    del rows


# --------------------------------------------------------------------------------------------------- what is refused


def test_a_missing_file_is_named_with_the_one_that_was_meant(folder):
    error = refusal("artist.csv", folder)
    assert error.message == f"input 'artist.csv' does not exist in {folder}"
    assert error.hint == "did you mean 'artists.csv'?"
    assert refusal("data/artists.csv", folder).hint == "there is no folder 'data'"


def test_a_glob_without_a_match_is_refused(folder):
    error = refusal("*.tsv", folder)
    assert error.message == f"no file matches the input '*.tsv' in {folder}"
    assert error.hint
    assert refusal("data/*.csv", folder).hint == "there is no folder 'data'"


def test_a_folder_an_empty_file_and_an_empty_path_are_refused(folder):
    (folder / "data").mkdir()
    (folder / "empty.csv").touch()
    assert refusal("data/", folder).hint == 'for all CSV files in it: path = "data/*.csv"'
    assert refusal("empty.csv", folder).message == "input 'empty.csv' is empty"
    assert refusal("*.csv", folder).message == "input 'empty.csv' is empty"
    assert refusal(" ", folder).message == "[input] path is empty"
    assert "artists.csv/x" in refusal("artists.csv/x", folder).message
    assert "cannot read input" in refusal("x" * 5_000, folder).message
    assert "cannot read input" in refusal("a\0b", folder).message


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Permissions do not hold root back."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_refused(folder):
    (folder / "artists.csv").chmod(0)
    with as_somebody_else():
        error = refusal("artists.csv", folder)
    assert error.message == "cannot read input 'artists.csv': Permission denied"
    assert error.hint == "check its permissions (ls -l)"


# ------------------------------------------------------------------------------------------------------- signatures


def test_a_signature_changes_with_the_file_and_not_with_the_look(folder):
    (source,) = find("artists.csv", folder)
    first = source.signature()
    assert first == source.signature()
    (folder / "artists.csv").write_bytes(CSV + b"x\n")
    assert first != source.signature()
    before = source.signature()
    (folder / "new").write_bytes(CSV + b"y\n")
    os.utime(folder / "new", ns=(0, before.mtime_ns))
    os.replace(folder / "new", folder / "artists.csv")
    assert before != source.signature()


@pytest.mark.parametrize("suffix", ["-wal", ".wal"])
def test_what_a_database_keeps_beside_its_file_belongs_to_its_signature(folder, suffix):
    (source,) = find("artists.csv", folder)
    before = source.signature()
    beside = folder / f"artists.csv{suffix}"
    beside.write_bytes(b"")
    assert source.signature() == before, "an empty one comes and goes with who reads"
    beside.write_bytes(b"x")
    with_log = source.signature()
    assert with_log != before
    assert with_log.as_text().startswith(before.as_text() + ";")
    assert not with_log.trusted
    os.utime(folder / "artists.csv", ns=(0, 1_000))
    os.utime(beside, ns=(0, 1_000))
    assert source.signature().trusted
    os.utime(beside, ns=(0, 2_000))
    assert source.signature() != with_log


def test_a_file_younger_than_a_tick_of_the_clock_is_not_trusted(folder):
    (source,) = find("artists.csv", folder)
    os.utime(folder / "artists.csv", ns=(0, 1_000))
    assert source.signature().trusted
    os.utime(folder / "artists.csv")
    assert not source.signature().trusted
    os.utime(folder / "artists.csv", ns=(0, 2**62))
    assert not source.signature().trusted
    assert Signature(1, 0, 1, looked_ns=100_000_000).trusted
    assert not Signature(1, 1, 1, looked_ns=100_000_000).trusted


# ------------------------------------------------------------------------------------------------------ from the web


@pytest.fixture
def web() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def fetch_refusal(cache: Path, url: str = URL, **arguments: object) -> InputError:
    with pytest.raises(InputError) as caught:
        fetch(url, cache, **arguments)
    assert not [path for path in cache.glob("*") if path.suffix == ".part"]
    return caught.value


def test_addresses_are_told_from_files(tmp_path):
    assert is_url(URL)
    assert is_url("HTTP://museum.example")
    assert not is_url("http.csv")
    with pytest.raises(ValueError, match="downloaded first"):
        find(URL, tmp_path)


def test_a_fetched_file_is_kept_and_asked_for_again_only_by_its_tag(web, tmp_path):
    cache = tmp_path / "state.inputs"
    headers = {"ETag": '"1"', "Last-Modified": "Sat, 21 Nov 2026 08:00:00 GMT"}
    web.get(URL, body=CSV, headers=headers)
    first = fetch(URL, cache)
    assert first.validators == Validators('"1"', headers["Last-Modified"])
    assert not first.unchanged
    assert (first.source.name, first.source.suffix, content(first.source)) == (URL, "csv", CSV)

    asked = responses.matchers.header_matcher({"If-None-Match": '"1"', "If-Modified-Since": headers["Last-Modified"]})
    web.get(URL, status=304, match=[asked])
    again = fetch(URL, cache, first.validators)
    assert again == Fetched(URL, first.path, first.validators, unchanged=True)
    assert content(again.source) == CSV

    web.remove("GET", URL)
    web.get(URL, body=CSV * 2, headers={"ETag": '"2"'})
    changed = fetch(URL, cache, first.validators)
    assert (changed.validators, changed.unchanged, content(changed.source)) == (Validators('"2"'), False, CSV * 2)
    assert len(list(cache.iterdir())) == 1


def test_nothing_is_assumed_when_the_kept_file_is_gone(web, tmp_path):
    web.get(URL, status=304)
    web.get(URL, body=CSV, headers={"ETag": '"1"'})
    fetched = fetch(URL, tmp_path / "cache", Validators('"1"'))
    assert not fetched.unchanged
    assert content(fetched.source) == CSV
    assert all("If-None-Match" not in call.request.headers for call in web.calls)


def test_a_server_that_says_unchanged_to_everything_is_refused(web, tmp_path):
    web.get(URL, status=304)
    assert fetch_refusal(tmp_path).message.startswith(f"{URL} answered 304")


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (500, "answered 500 Internal Server Error", "run again later"),
        (404, "answered 404 Not Found", "check the address"),
        (403, "answered 403 Forbidden", ".netrc"),
        (429, "answered 429 Too Many Requests", "run again later"),
        (204, "answered 204 No Content", "check the address"),
    ],
)
def test_a_status_is_reported_with_what_to_do(web, tmp_path, status, message, hint):
    web.get(URL, status=status)
    error = fetch_refusal(tmp_path)
    assert message in error.message
    assert hint in error.hint


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (requests.ConnectTimeout(), "did not answer within 60 s"),
        (requests.ReadTimeout(), "did not answer within 60 s"),
        (requests.exceptions.SSLError(), "has a certificate that this machine does not trust"),
        (requests.TooManyRedirects(), "redirects in a loop"),
        (requests.exceptions.InvalidURL(), "cannot be fetched: InvalidURL"),
        (requests.exceptions.ChunkedEncodingError(), "arrived incomplete"),
    ],
)
def test_what_goes_wrong_on_the_way_is_one_sentence(web, tmp_path, raised, message):
    web.get(URL, body=raised)
    assert message in fetch_refusal(tmp_path).message


def test_what_was_kept_survives_a_download_that_breaks_off(web, tmp_path):
    web.get(URL, body=CSV)
    kept = fetch(URL, tmp_path)
    web.remove("GET", URL)
    web.get(URL, body=CSV[:5], headers={"Content-Length": str(len(CSV))}, auto_calculate_content_length=False)
    error = fetch_refusal(tmp_path)
    assert "arrived incomplete" in error.message
    assert content(kept.source) == CSV


def test_an_empty_answer_and_a_web_page_are_no_data(web, tmp_path):
    web.get(URL, body=b"")
    assert fetch_refusal(tmp_path).message == f"{URL} is empty"
    web.remove("GET", URL)
    web.get(URL, body=b"\n<!DOCTYPE html>", content_type="text/html; charset=utf-8")
    assert "Raw link" in fetch_refusal(tmp_path).hint
    web.remove("GET", URL)
    web.get(URL, body=CSV, content_type="text/html")
    assert content(fetch(URL, tmp_path).source) == CSV


def test_secrets_in_an_address_are_used_and_never_shown(web, tmp_path):
    url = "https://user:word@museum.example:8443/a/artists.jsonl.gz?token=secret"
    assert shown(url) == "https://museum.example:8443/a/artists.jsonl.gz"
    web.get("https://user:word@museum.example:8443/a/artists.jsonl.gz", body=gzip.compress(CSV))
    fetched = fetch(url, tmp_path)
    assert "token=secret" in web.calls[0].request.url
    assert fetched.source.suffix == "jsonl"
    assert content(fetched.source) == CSV
    assert "secret" not in fetched.path.name
    assert Source(url, fetched.path).suffix == "jsonl"


def test_two_addresses_are_kept_apart(web, tmp_path):
    web.get(URL, body=CSV)
    assert fetch(f"{URL}?year=1", tmp_path).path != fetch(f"{URL}?year=2", tmp_path).path


def test_an_address_that_is_none_is_refused(tmp_path):
    assert "is not a URL" in fetch_refusal(tmp_path, "http://museum.example:abc/x").message
    assert "is not a URL" in fetch_refusal(tmp_path, "http://[/x").message


def test_a_folder_that_cannot_keep_the_file_is_refused(web, tmp_path):
    web.get(URL, body=CSV)
    (tmp_path / "file").touch()
    assert "cannot keep" in fetch_refusal(tmp_path / "file").message


# ---------------------------------------------------------------------------------------------- over a real connection


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that reads one request, sends these bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/artists.csv"
        thread.join()


def test_a_real_connection_that_closes_early_is_noticed(tmp_path):
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + CSV) as url:
        assert "arrived incomplete" in fetch_refusal(tmp_path, url).message
    with answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nartis\r\n") as url:
        assert "arrived incomplete" in fetch_refusal(tmp_path, url).message


def test_a_packed_answer_is_unpacked_and_counted_as_it_was_sent(tmp_path):
    packed = gzip.compress(CSV * 1_000)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    with answering(head + packed) as url:
        assert content(fetch(url, tmp_path).source) == CSV * 1_000


def test_a_host_that_is_silent_or_refuses_is_named_with_the_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.csv"
        assert fetch_refusal(tmp_path, url, timeout=0.1).message == f"{url} did not answer within 0.1 s"
    assert fetch_refusal(tmp_path, url).message == f"{url} cannot be reached: Connection refused"


def test_a_host_that_does_not_exist_is_named_without_the_query(tmp_path):
    error = fetch_refusal(tmp_path, "http://museum.invalid/a.csv?token=secret")
    assert error.message.startswith("http://museum.invalid/a.csv cannot be reached: ")
    assert "secret" not in error.message
