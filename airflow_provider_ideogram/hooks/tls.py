"""
The TLS context of the process, which all HTTP clients of the package use.

Invariant: the certificates are read once. ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, or without them
``REQUESTS_CA_BUNDLE``, replace the public certificate authorities; an error names the variable.
"""

from __future__ import annotations

import functools
import os
import ssl
import threading
from pathlib import Path

import httpx

from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

_lock = threading.Lock()


def tls_context() -> ssl.SSLContext:
    """
    Return the TLS context; the first call reads the certificates, which takes 50 to 100 ms.

    :raises IdeogramInvalidInput: If an environment variable names certificates that can't be read.
    """
    with _lock:
        return _load()


@functools.cache
def _load() -> ssl.SSLContext:
    names = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
    if not names and os.environ.get("REQUESTS_CA_BUNDLE"):
        names = ["REQUESTS_CA_BUNDLE"]
    if not names:
        return httpx.create_ssl_context(trust_env=False)
    options: dict[str, str] = {}
    file_name = ""
    for name in names:
        path = os.environ[name]
        # A directory that does not exist is passed as a file, since OpenSSL ignores it without an error.
        if any(Path(directory).is_dir() for directory in path.split(os.pathsep)):
            options["capath"] = path
        else:
            options["cafile"], file_name = path, name
    try:
        return ssl.create_default_context(cafile=options.get("cafile"), capath=options.get("capath"))
    except OSError as error:
        problem = f"{os.environ[file_name]!r}, where no certificates can be read: {error}"
        raise IdeogramInvalidInput.of([f"the environment variable {file_name} names {problem}"]) from error
