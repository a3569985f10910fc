"""The way to a provider: certificates and proxy, made by one rule for every client and checked before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bioforge.core.errors import UsageError
from bioforge.core.interfaces import BackendContext

if TYPE_CHECKING:
    import ssl

CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
"""Variables that name trusted certificates; the first that is set counts."""

_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def is_loopback(base_url: str) -> bool:
    """Return True if the host is this machine: `localhost` or a loopback address, not a name that looks like one."""
    from ipaddress import ip_address
    from urllib.parse import urlsplit

    host = (urlsplit(base_url).hostname or "").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def tls_verification(base_url: str) -> ssl.SSLContext:
    """Return the TLS context for this address. Raises `UsageError` that names the variable of unreadable certificates.

    Without https in the address and the proxies, no certificates are loaded, which takes longer than many local calls;
    a later https connection is then refused.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    encrypted = any(urlsplit(way).scheme == "https" for way in (base_url, *getproxies().values()))
    return certificates() if encrypted else no_certificates()


def no_certificates() -> ssl.SSLContext:
    """Return a context that trusts no server."""
    import ssl

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def certificates() -> ssl.SSLContext:
    """Return the context with the certificates that the environment or this machine names, read once."""
    for name in CERTIFICATE_VARIABLES:
        if path := os.environ.get(name):
            return _certificates(name, path)
    return _certificates("", "")


@lru_cache(maxsize=4)
def _certificates(name: str, path: str) -> ssl.SSLContext:
    import ssl

    import httpx2

    if not name:
        return httpx2.create_ssl_context()
    try:
        folder = os.path.isdir(path)
        return ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{name} is {path}, which has no certificates that can be read: {reason}",
            f"set {name} to a PEM file of trusted certificates, or unset it",
        ) from error


def proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for this address, the same for all clients; None for loopback.

    aiohttp could find it too, but asks a thread for each request, which costs more than the request.
    """
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    address = urlsplit(base_url)
    proxies = getproxies()
    if is_loopback(base_url) or proxy_bypass(address.netloc) or _in_network(address.hostname, proxies.get("no", "")):
        return None
    found = proxies.get(address.scheme) or proxies.get("all")
    return f"http://{found}" if found and "://" not in found else found


def _in_network(host: str | None, excluded: str) -> bool:
    """Return True if the host is an address in one of the networks of NO_PROXY, such as 10.0.0.0/8."""
    from ipaddress import ip_address, ip_network

    for entry in excluded.split(","):
        try:
            if "/" in entry and ip_address(host or "") in ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False


def client_options(base_url: str, *, redirects: bool = False) -> dict[str, Any]:
    """Return the arguments of an httpx2 client for certificates, proxy and redirects.

    With `redirects`, a file may be kept on another host: that is reached by the environment's rules, and encrypted.
    """
    if redirects and not is_loopback(base_url):
        return {"verify": certificates(), "follow_redirects": True}
    verify = certificates() if redirects else tls_verification(base_url)
    return {"verify": verify, "follow_redirects": redirects, "proxy": proxy(base_url), "trust_env": False}


def check_connection(
    context: BackendContext, headers: Callable[[BackendContext], Mapping[str, str]], *, socks: bool = True
) -> None:
    """Raise `UsageError` if no call may leave: key, encryption, headers, certificates, proxy or host. Sends nothing.

    `headers` returns those of each call; `socks` is False for a client without SOCKS proxies.
    """
    _check_header(f"the API key ({context.api_key_env})", context.api_key or "", f"set {context.api_key_env} again")
    base_url = context.base_url
    if "://" not in base_url:  # the embedded simulator, which is not running yet
        return
    _check_encrypted(context)
    tls_verification(base_url)
    way = proxy(base_url)
    if way is not None:
        _check_proxy(way, socks)
    for name, value in headers(context).items():
        _check_header(f"the header {name}", value, "check the variables that start with OPENAI_ or ANTHROPIC_")
    _check_host(way or base_url, "the proxy" if way else "[provider] base_url")


def _check_encrypted(context: BackendContext) -> None:
    from urllib.parse import urlsplit

    address = urlsplit(context.base_url)
    if address.scheme == "http" and context.api_key and not (context.allow_http or is_loopback(context.base_url)):
        raise UsageError(
            f"the key from {context.api_key_env} would go to {address.hostname} unencrypted: base_url is http, not https",
            "use https, or write allow_http = true under [provider] (in Python: ProviderConfig(allow_http=True))"
            " if you trust every network between",
        )


def _check_header(name: str, value: str, hint: str) -> None:
    for place, character in enumerate(value, start=1):
        if not ("!" <= character <= "~" or (character == " " and name.startswith("the header"))):
            raise UsageError(
                f"{name} has a character that no HTTP header can carry: U+{ord(character):04X} at place {place}", hint
            )


def _check_proxy(way: str, socks: bool) -> None:
    from importlib.util import find_spec
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(way)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.scheme not in ("http", "https", "socks5", "socks5h"):
        raise UsageError(f"{proxy_variables()} is not the address of a proxy", "write http://host:port, or unset it")
    if not parts.scheme.startswith("socks"):
        return
    if not socks:
        raise UsageError(
            f"{proxy_variables()} names a SOCKS proxy, which this backend cannot use",
            "use --backend threads, or an http:// proxy, or list the host in NO_PROXY",
        )
    if find_spec("socksio") is None:
        raise UsageError(
            f"{proxy_variables()} names a SOCKS proxy, which needs the package socksio",
            "pip install 'httpx2[socks]', or use an http:// proxy, or list the host in NO_PROXY",
        )


def _check_host(url: str, name: str) -> None:
    """Raise `UsageError` for a host that does not exist; a name server without an answer is an outage instead."""
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    try:
        socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        if isinstance(error, UnicodeError) or error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None)):
            raise UsageError(
                f"{name}: the host {parts.hostname} is unknown", "check its spelling and the network"
            ) from None
    except OSError:
        return


def proxy_variables() -> str:
    """Return the names of the proxy variables that are set, for messages."""
    return ", ".join(name for name in os.environ if name.upper() in _PROXY_VARIABLES) or "HTTPS_PROXY"


CERTIFICATE_HINT = (
    "set SSL_CERT_FILE to a PEM file with the certificate authority of this server or proxy (REQUESTS_CA_BUNDLE is read too),"
    " then run again"
)
PROXY_HINT = (
    "put user and password into HTTPS_PROXY, HTTP_PROXY or ALL_PROXY (http://user:password@host:port),"
    " or list the host in NO_PROXY, then run again"
)


def setup_fault(error: BaseException) -> str:
    """Return `certificate` or `proxy` for a connection that cannot succeed until the setup changes; else an empty text."""
    import ssl

    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return "certificate"
    name = type(error).__name__
    status = str(error)[:3] if name == "ProxyError" else str(getattr(error, "status", ""))
    return "proxy" if name in ("ProxyError", "ClientHttpProxyError") and status in ("403", "407") else ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
