"""Certificates are read where something is encrypted, and nowhere else: that takes longer than many a call."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from projects import ProjectFolder

from bioforge.backends.connection import certificates, tls_verification
from bioforge.backends.openai.client import OpenAISender
from bioforge.core.errors import UsageError
from bioforge.core.interfaces import BackendContext


@pytest.fixture
def no_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of certificates that has none: to read it is an error."""
    path = tmp_path / "certificates.pem"
    path.write_text("none\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return str(path)


@pytest.mark.parametrize("backend", ["async", "threads"])
def test_a_server_without_encryption_needs_none(project: ProjectFolder, no_certificates: str, backend: str) -> None:
    project.run("run", "--backend", backend, env={"SSL_CERT_FILE": no_certificates}).ok()
    assert project.charged() == 4


def test_its_batches_need_none(project: ProjectFolder, no_certificates: str) -> None:
    assert project.run("batch", "list", env={"SSL_CERT_FILE": no_certificates}).ok().out == ""


def test_an_encrypted_one_needs_them(no_certificates: str) -> None:
    context = BackendContext(base_url="https://provider.example/v1", api_key="key")
    with pytest.raises(UsageError, match="SSL_CERT_FILE"):
        OpenAISender(context, 1, lambda *_: None)


@pytest.mark.parametrize(
    ("base_url", "proxy"),
    [
        ("https://provider.example/v1", ""),
        ("HTTPS://provider.example/v1", ""),
        ("http://provider.example/v1", "https://proxy.example"),
    ],
)
def test_they_are_read_for_every_encrypted_way(base_url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert tls_verification(base_url) is certificates()


def test_what_wants_encryption_after_all_is_refused() -> None:
    context = tls_verification("http://127.0.0.1/v1")
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname, context.get_ca_certs()) == (ssl.CERT_REQUIRED, True, [])
