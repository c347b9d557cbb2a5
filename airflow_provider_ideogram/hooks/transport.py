"""
The transport of all blocking HTTP clients of the package.

Invariant: each transport has the process's TLS context, and the proxy that the environment sets for an address.
"""

from __future__ import annotations

import httpx

from airflow_provider_ideogram.hooks.tls import tls_context


def new_transport(proxy: httpx.Proxy | None) -> httpx.HTTPTransport:
    """Return a new transport that sends through a proxy, or directly if it is None."""
    return httpx.HTTPTransport(verify=tls_context(), proxy=proxy)
