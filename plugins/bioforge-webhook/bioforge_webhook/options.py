"""The options of `[[output]] writer = "webhook"`, checked before anything is sent."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from bioforge.plugin import Options, SecretEnv

_SECRET_PREFIX = "whsec_"
_SECRET_HINT = (
    "expected whsec_ and 24 to 64 bytes in base64; create one with `python -c 'import base64, secrets; "
    'print("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())\'`'
)
_SECRET_PARAMETERS = frozenset(
    (
        "access_token",
        "api_key",
        "apikey",
        "api-key",
        "auth",
        "code",
        "key",
        "password",
        "secret",
        "sig",
        "signature",
        "token",
    )
)
_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|password|api-?key|credential", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED_HEADERS = frozenset(
    ("connection", "content-length", "content-type", "host", "idempotency-key", "transfer-encoding", "content-encoding")
)


def signing_keys(secrets: SecretStr) -> list[bytes]:
    """Decode one or more `whsec_…` secrets, separated by spaces. All of them sign, so that a secret can be rotated.

    Raises ValueError without the secret in its text.
    """
    keys = []
    for secret in secrets.get_secret_value().split():
        if not secret.startswith(_SECRET_PREFIX):
            raise ValueError(f"the secret does not start with whsec_: {_SECRET_HINT}")
        encoded = secret.removeprefix(_SECRET_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except binascii.Error:
            raise ValueError(f"the text after whsec_ is not base64: {_SECRET_HINT}") from None
        if not 24 <= len(key) <= 64:
            raise ValueError(f"the secret has {len(key)} bytes: {_SECRET_HINT}")
        keys.append(key)
    if not keys:
        raise ValueError(f"the secret is empty: {_SECRET_HINT}")
    return keys


def _check_secret(secrets: SecretStr) -> SecretStr:
    signing_keys(secrets)
    return secrets


def _check_url(url: str) -> str:
    """Raises ValueError for an invalid url, without the url in its text: it may be a secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
        (parts.hostname or "").encode("idna")  # raises for an empty or too long label
    except ValueError:
        raise ValueError("expected a url like 'https://example.org/hooks/bios'") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError("expected a url like 'https://example.org/hooks/bios'")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            'the url contains credentials: move them to headers_env = { Authorization = "NAME_OF_A_VARIABLE" }'
        )
    if parts.fragment:
        raise ValueError("the url has a fragment (#…), which is never sent: remove it")
    return url


def _check_public_url(url: str) -> str:
    for name, _ in parse_qsl(urlsplit(_check_url(url)).query, keep_blank_values=True):
        if name.lower() in _SECRET_PARAMETERS:
            raise ValueError(
                f"the url contains a secret ({name}=…): put the whole url into an environment variable"
                " and its name into url_env"
            )
    return url


def _check_secret_url(url: SecretStr) -> SecretStr:
    _check_url(url.get_secret_value())
    return url


def _check_header_name(name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a valid header name")
    if name.lower() in _RESERVED_HEADERS or name.lower().startswith("webhook-"):
        raise ValueError(f"the writer sets {name}: remove it")


def _header_value(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ValueError(f"the value of {name} contains characters that are not allowed in a header")
    return value


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        _check_header_name(name)
        if _SECRET_HEADER.search(name):
            raise ValueError(
                f"{name} is a secret: put its value into an environment variable and the variable's name"
                f' into headers_env = {{ {name} = "NAME" }}'
            )
        _header_value(name, value)
    return headers


def _check_secret_headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        _check_header_name(name)
        _header_value(name, value.get_secret_value())
    return headers


def _seconds(value: object) -> object:
    """Accept whole numbers of seconds too."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, BeforeValidator(_seconds)]


def _with_words(value: str) -> list[str]:
    """Return the value and its long words: `Bearer abc…` and `abc…`."""
    return [value, *(word for word in value.split() if len(word) >= 8)]


class WebhookOptions(Options):
    """Options of the writer, described in README.md; times in seconds. Set exactly one of `url` and `url_env`."""

    url: Annotated[str, AfterValidator(_check_public_url)] | None = Field(
        None, description="a url like 'https://example.org/hooks/bios'"
    )
    url_env: Annotated[SecretEnv, AfterValidator(_check_secret_url)] | None = Field(
        None, description="the name of an environment variable with the url"
    )
    secret_env: Annotated[SecretEnv, AfterValidator(_check_secret)] | None = Field(
        None, description="the name of an environment variable with the secret"
    )
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(
        {}, description='a table of headers, like { X-Source = "bios" }'
    )
    headers_env: Annotated[dict[str, SecretEnv], AfterValidator(_check_secret_headers)] = Field(
        {}, description='a table of headers and environment variables, like { Authorization = "WEBHOOK_AUTHORIZATION" }'
    )
    receiver: str | None = Field(None, min_length=1, description="a name for the receiver, like 'crm'")
    batch: int = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000")
    failed: bool = Field(False, description="true or false: whether records with an error are posted too")
    concurrency: int = Field(4, ge=1, le=32, description="a whole number from 1 to 32")
    timeout: Seconds = Field(20.0, gt=0, le=600, description="seconds, up to 600")
    max_attempts: int = Field(5, ge=1, le=20, description="a whole number from 1 to 20")
    first_delay: Seconds = Field(1.0, ge=0, le=3600, description="seconds, up to 3600")
    max_delay: Seconds = Field(60.0, ge=0, le=3600, description="seconds, up to 3600")
    stop_after: int = Field(5, ge=1, description="a whole number from 1")

    @model_validator(mode="after")
    def _check_one_url(self) -> WebhookOptions:
        if (self.url is None) == (self.url_env is None):
            raise ValueError('expected one of url and url_env, like url = "https://example.org/hooks/bios"')
        return self

    @property
    def address(self) -> str:
        """The url to post to. It may contain a secret; show `host` instead."""
        return self.url if self.url is not None else self._secret(self.url_env)

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    @property
    def identity(self) -> str:
        """The receiver's name in delivery ids."""
        return self.address if self.receiver is None else f"receiver:{self.receiver}"

    @property
    def keys(self) -> list[bytes]:
        return [] if self.secret_env is None else signing_keys(self.secret_env)

    @property
    def all_headers(self) -> dict[str, str]:
        return {**self.headers, **{name: value.get_secret_value() for name, value in self.headers_env.items()}}

    @property
    def secrets(self) -> list[str]:
        """Texts to remove from every message and file."""
        found = [word for value in self.headers_env.values() for word in _with_words(value.get_secret_value())]
        if self.secret_env is not None:
            found += self.secret_env.get_secret_value().split()
        if self.url_env is not None:  # error pages often repeat the path
            parts = urlsplit(self.address)
            found += [self.address, *(part for part in (parts.path, parts.query) if len(part) > 1)]
        return found

    @staticmethod
    def _secret(given: SecretStr | None) -> str:
        return "" if given is None else given.get_secret_value()
