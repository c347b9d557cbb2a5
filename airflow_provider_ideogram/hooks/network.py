"""
The TLS context and the proxy of the process, which all HTTP clients of the package use.

Invariant: the certificates are read once.
"""

from __future__ import annotations

import functools
import ssl
import threading
import urllib.request

import httpx

_tls_lock = threading.Lock()


def tls_context() -> ssl.SSLContext:
    """Return the TLS context; the first call reads the certificates, which takes 50 to 100 ms."""
    with _tls_lock:
        return _load_tls_context()


@functools.cache
def _load_tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def proxy_of(url: httpx.URL) -> str | None:
    """Return the proxy that the environment sets for an address, None if there is none or the host is exempt."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
