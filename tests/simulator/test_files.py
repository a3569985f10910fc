"""Files over the socket: uploads to disk, descriptions, lists, downloads and their end."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator

import openai
import pytest
import requests

from bioforge.simulator.files import DEFAULT_KEEP_SECONDS, MAX_BATCH_FILE, MAX_FILE, Files
from bioforge.simulator.folder import Folder

LINES = b'{"custom_id": "r-0"}\n'
KEY = {"Authorization": "Bearer key"}


def upload(client, name="input.jsonl", content=LINES, **arguments):
    return client.files.create(**{"file": (name, content), "purpose": "batch", **arguments})


def test_what_was_uploaded_can_be_looked_at_and_read_again(client):
    file = upload(client)
    assert (file.object, file.purpose, file.filename, file.bytes) == ("file", "batch", "input.jsonl", len(LINES))
    assert file.id.startswith("file-")
    assert file.status == "processed"
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == LINES


def test_files_for_batches_are_kept_for_thirty_days_and_others_for_good(client):
    file = upload(client)
    assert file.expires_at - file.created_at == DEFAULT_KEEP_SECONDS
    assert upload(client, purpose="user_data").expires_at is None


def test_an_expiry_can_be_asked_for(client):
    file = upload(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at - file.created_at == 3600


@pytest.mark.parametrize(
    ("policy", "param"),
    [
        ({"anchor": "created_at", "seconds": 3599}, "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": 2_592_001}, "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": "soon"}, "expires_after.seconds"),
        ({"anchor": "created_at"}, "expires_after.seconds"),
        ({"anchor": "last_used_at", "seconds": 3600}, "expires_after.anchor"),
        ({"seconds": 3600}, "expires_after.anchor"),
    ],
)
def test_an_expiry_that_cannot_be_had_is_refused(client, policy, param):
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, expires_after=policy)
    assert caught.value.param == param
    assert client.files.list().data == []


def test_a_file_for_batches_must_be_called_jsonl(client):
    with pytest.raises(openai.BadRequestError, match=r"Must be \.jsonl"):
        upload(client, name="input.csv")


def test_an_unknown_purpose_is_refused_with_those_there_are(client):
    with pytest.raises(openai.BadRequestError, match="'batch_output' is not one of 'assistants', 'batch'"):
        upload(client, purpose="batch_output")


@pytest.mark.parametrize(
    ("form", "param"),
    [({"purpose": (None, "batch")}, "file"), ({"file": ("a.jsonl", LINES)}, "purpose")],
)
def test_a_form_without_one_of_its_parts_is_refused(server, form, param):
    answer = requests.post(f"{server.base_url}/files", files=form, headers=KEY)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_parts_may_come_in_any_order(server):
    form = [("file", ("a.jsonl", LINES)), ("purpose", (None, "batch"))]
    answer = requests.post(f"{server.base_url}/files", files=form, headers=KEY)
    assert (answer.status_code, answer.json()["bytes"]) == (200, len(LINES))


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "multipart/form-data; boundary=x"])
def test_what_is_no_form_is_refused(server, kind):
    headers = {**KEY, "Content-Type": kind}
    answer = requests.post(f"{server.base_url}/files", data=b"not a form", headers=headers)
    assert answer.status_code == 400
    assert "Could not parse multipart form" in answer.json()["error"]["message"]


def test_a_key_is_needed(server):
    assert requests.get(f"{server.base_url}/files").status_code == 401
    assert requests.post(f"{server.base_url}/files", files={"file": LINES}).status_code == 401


def test_uploads_are_counted_and_so_are_their_requests(server, client):
    upload(client)
    upload(client, purpose="user_data")
    assert server.ledger.batches.uploads == 2
    assert server.ledger.counts.statuses == {200: 2}


def test_a_file_may_be_larger_than_other_bodies(client):
    content = b"x" * (11 * 1024 * 1024) + b"\n"
    file = upload(client, content=content)
    assert file.bytes == len(content)
    assert client.files.content(file.id).read() == content


def form_of(size: int) -> tuple[dict[str, str], int, Iterator[bytes]]:
    """Headers, length and pieces of a form with a batch file of this size."""
    head = (
        b'--line\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--line\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
    )
    tail = b"\r\n--line--\r\n"
    piece = b"y" * (1 << 20)

    def pieces() -> Iterator[bytes]:
        yield head
        for _ in range(size // len(piece)):
            yield piece
        yield b"y" * (size % len(piece))
        yield tail

    return {**KEY, "Content-Type": "multipart/form-data; boundary=line"}, len(head) + size + len(tail), pieces()


def post_form(server, size):
    headers, length, pieces = form_of(size)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("POST", "/v1/files", pieces, {**headers, "Content-Length": str(length)})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_batch_file_may_have_two_hundred_mebibytes_and_no_byte_more(start, tmp_path):
    server = start(data=tmp_path)
    status, body = post_form(server, MAX_BATCH_FILE)
    assert status == 200
    assert str(MAX_BATCH_FILE) in body.decode()
    status, body = post_form(server, MAX_BATCH_FILE + 1)
    assert status == 400
    assert b"File is too large" in body
    assert not any((tmp_path / "incoming").iterdir())


def test_a_body_that_announces_too_much_is_not_read(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest("POST", "/v1/files")
    for name, value in {**KEY, "Content-Type": "multipart/form-data; boundary=line"}.items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(MAX_FILE + 1_000_000))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_an_upload_that_breaks_off_leaves_nothing(start, connect, tmp_path):
    server = start(data=tmp_path)
    headers, length, pieces = form_of(1_000_000)
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        lines = [f"{name}: {value}" for name, value in {**headers, "Content-Length": str(length)}.items()]
        half.sendall("\r\n".join(["POST /v1/files HTTP/1.1", "Host: localhost", *lines, "", ""]).encode())
        half.sendall(next(pieces) + b"y" * 500_000)
        for _ in range(1000):
            if any((tmp_path / "incoming").iterdir()):
                break
            requests.get(f"{server.url}/simulator/health")
        else:
            pytest.fail("nothing of the upload arrived")
    for _ in range(1000):
        if server.ledger.counts.requests:
            break
        requests.get(f"{server.url}/simulator/health")
    assert server.ledger.counts.statuses == {0: 1}
    assert not any((tmp_path / "incoming").iterdir())
    assert connect(server).files.list().data == []


def test_files_are_listed_newest_first_or_oldest_first(client):
    made = [upload(client, name=f"{number}.jsonl").id for number in range(5)]
    assert [file.id for file in client.files.list()] == made[::-1]
    assert [file.id for file in client.files.list(order="asc")] == made


def test_a_list_can_be_read_in_pages(client):
    made = [upload(client, name=f"{number}.jsonl").id for number in range(5)]
    first = client.files.list(limit=2, order="asc")
    assert [file.id for file in first.data] == made[:2]
    assert first.has_more
    assert (first.first_id, first.last_id) == (made[0], made[1])
    last = client.files.list(limit=2, order="asc", after=made[3])
    assert [file.id for file in last.data] == made[4:]
    assert not last.has_more
    assert [file.id for file in client.files.list(limit=2, order="asc")] == made, "the SDK turns the pages itself"


def test_a_list_can_be_of_one_purpose(client):
    wanted = upload(client, purpose="user_data")
    upload(client)
    assert [file.id for file in client.files.list(purpose="user_data")] == [wanted.id]
    nothing = client.files.list(purpose="evals")
    assert (nothing.data, nothing.first_id, nothing.last_id, nothing.has_more) == ([], None, None, False)


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"limit": 0}, 400, "limit"),
        ({"limit": 10_001}, 400, "limit"),
        ({"limit": "many"}, 400, "limit"),
        ({"order": "up"}, 400, "order"),
        ({"after": "file-0"}, 404, "after"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(raw, query, status, param):
    text = "&".join(f"{name}={value}" for name, value in query.items())
    found, _, body = raw("GET", f"/v1/files?{text}")
    assert (found, body["error"]["param"]) == (status, param)


def test_a_deleted_file_is_gone(start, connect, tmp_path):
    client = connect(start(data=tmp_path))
    file = upload(client)
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    for look in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}"):
            look(file.id)
    assert os.listdir(tmp_path / "files") == []


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("PUT", "/v1/files", 405, "GET, POST"),
        ("POST", "/v1/files/file-0", 405, "GET, DELETE"),
        ("POST", "/v1/files/file-0/content", 405, "GET"),
        ("GET", "/v1/files/file-0/contents", 404, None),
    ],
)
def test_other_methods_and_paths_are_refused(raw, method, path, status, allowed):
    found, headers, _ = raw(method, path)
    assert (found, headers.get("allow")) == (status, allowed)


def test_a_download_announces_its_length(server, client):
    file = upload(client)
    answer = requests.get(f"{server.base_url}/files/{file.id}/content", headers=KEY)
    assert answer.headers["content-length"] == str(len(LINES))
    assert answer.headers["content-type"] == "application/octet-stream"


def test_a_download_can_be_streamed_to_a_file(client, tmp_path):
    content = os.urandom(3_000_000)
    file = upload(client, content=content)
    with client.files.with_streaming_response.content(file.id) as response:
        response.stream_to_file(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_a_client_that_leaves_a_download_disturbs_nobody(server, client):
    file = upload(client, content=b"z" * 20_000_000)
    with client.files.with_streaming_response.content(file.id) as response:
        next(response.iter_bytes(1000))
    assert client.files.retrieve(file.id).bytes == 20_000_000
    assert server.ledger.counts.statuses == {200: 3}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_an_expired_file_is_gone_with_its_content(tmp_path):
    clock = Clock()
    folder = Folder(tmp_path)
    files = Files(folder, clock)
    incoming = folder.incoming()
    incoming.write_bytes(LINES)
    file = files.add(incoming, "batch", "a.jsonl", keep=3600)
    clock.now += 3599
    assert files.find(file.id) is file
    clock.now += 1
    assert files.find(file.id) is None
    assert files.all() == []
    assert os.listdir(tmp_path / "files") == []
    folder.close()


def test_files_outlive_their_server_in_a_folder(start, connect, tmp_path):
    first = start(data=tmp_path)
    file = upload(connect(first))
    first.stop()
    (tmp_path / "incoming" / "left").write_bytes(b"of an upload that was cut off")
    client = connect(start(data=tmp_path))
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == LINES
    second = upload(client)
    assert [found.id for found in client.files.list()] == [second.id, file.id]
    assert os.listdir(tmp_path / "incoming") == []


def test_two_servers_do_not_share_a_folder(start, tmp_path):
    start(data=tmp_path)
    with pytest.raises(OSError, match="in use by another simulator"):
        start(data=tmp_path)


def test_a_folder_that_cannot_be_one_fails_the_start(start, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        start(data=tmp_path / "file")


def test_without_a_folder_nothing_stays(start, connect, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    server = start()
    assert os.listdir(tmp_path) == [], "no folder before one is needed"
    upload(connect(server))
    assert len(os.listdir(tmp_path)) == 1
    server.stop()
    assert os.listdir(tmp_path) == []
