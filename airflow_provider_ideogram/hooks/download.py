"""
Download an image to a temporary file.

Invariant: no request carries the API key, and all requests go through :class:`GuardedTransport`.
"""

from __future__ import annotations

import random
import time

import httpx

from airflow_provider_ideogram.api.back_off import back_off
from airflow_provider_ideogram.api.image_source import ImageBytes, ImageSource
from airflow_provider_ideogram.api.retry_flow import MAX_ATTEMPTS, RequestNotSent, ResponseNotReceived
from airflow_provider_ideogram.api.sanitize import sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramImageGone, IdeogramInvalidImage, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.client import USER_AGENT, transport_errors
from airflow_provider_ideogram.hooks.compression import decompressed
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.image import IMAGE_IS_PAID, ImageSpool, SpooledImage
from airflow_provider_ideogram.hooks.image_hosts import GuardedTransport, absolute_address

#: Seconds for an attempt to download an image, redirects included.
_MAX_SECONDS = 120.0
_MAX_REDIRECTS = 5


def download_image(source: ImageSource, settings: ConnectionSettings) -> SpooledImage:
    """
    Download an image; the caller closes it.

    :param source: Its address, which may be relative to the API's base URL, or its bytes.
    :param settings: The connection's settings, with the permitted hosts and the timeout.
    :raises IdeogramInvalidImage: If it is not a complete image within the limits of size, from a permitted host.
    :raises IdeogramServerUnavailable: If its host did not deliver it in any attempt.
    """
    if isinstance(source, ImageBytes):
        with ImageSpool() as spool:
            spool.write(source.data)
            return spool.finish()
    rng = random.Random()
    with _client(settings) as client:
        for attempt in range(1, MAX_ATTEMPTS):
            try:
                return _fetch(client, source.url, settings)
            except (IdeogramServerUnavailable, IdeogramImageGone, _NoImage):
                time.sleep(back_off(attempt, rng))
        return _fetch(client, source.url, settings)


class _NoImage(IdeogramInvalidImage):
    """A permitted host did not send a complete image; it may do so later, as some hosts lag behind with new files."""


def _client(settings: ConnectionSettings) -> httpx.Client:
    return httpx.Client(
        transport=GuardedTransport(settings),
        timeout=settings.timeout,
        headers={"User-Agent": USER_AGENT, "Accept": "image/*", "Accept-Encoding": "identity"},
    )


def _fetch(client: httpx.Client, address: str, settings: ConnectionSettings) -> SpooledImage:
    try:
        with transport_errors(settings.redactor):
            return _follow_redirects(client, absolute_address(address, settings))
    except (RequestNotSent, ResponseNotReceived) as error:
        raise _unavailable(f"the image's host did not deliver it ({error})") from error
    except (httpx.InvalidURL, UnicodeError) as error:
        raise IdeogramInvalidImage(
            f"the image's address is not valid: {sanitize_text(str(error), settings.redactor)}", IMAGE_IS_PAID
        ) from error


def _follow_redirects(client: httpx.Client, url: httpx.URL) -> SpooledImage:
    """Return the image at the end of the redirects, whose own bodies are not read: they may be of any size."""
    deadline = time.monotonic() + _MAX_SECONDS
    for _ in range(_MAX_REDIRECTS + 1):
        with client.stream("GET", url) as response:
            if response.next_request is None:
                return _read_image(response, deadline)
            url = response.next_request.url
    raise ResponseNotReceived(f"more than {_MAX_REDIRECTS} redirects")


def _read_image(response: httpx.Response, deadline: float) -> SpooledImage:
    _check_status(response.status_code)
    with ImageSpool() as spool:
        for piece in decompressed(response.iter_raw()):  # raw: a compressed body could expand in memory
            spool.write(piece)
            if time.monotonic() > deadline:
                raise ResponseNotReceived(f"the image was not complete after {_MAX_SECONDS:.0f} s")
        try:
            return spool.finish()
        except IdeogramInvalidImage as error:
            encoding = response.headers.get("content-encoding")
            note = f" (content-encoding {sanitize_text(encoding)}, which was not requested)" if encoding else ""
            raise _NoImage(f"{error.reason}{note}", error.advice) from error


def _check_status(status: int) -> None:
    if status in (408, 429) or status >= 500:
        raise _unavailable(f"the image's host answered HTTP {status}", status)
    if status == 407:
        raise _unavailable("the environment's proxy refuses the download (HTTP 407)", status)
    if status in (403, 404, 410):
        raise IdeogramImageGone(f"the image's host answered HTTP {status}", IMAGE_IS_PAID, status_code=status)
    if status != 200:
        raise _NoImage(
            f"the image's host answered HTTP {status} instead of an image", IMAGE_IS_PAID, status_code=status
        )


def _unavailable(reason: str, status: int | None = None) -> IdeogramServerUnavailable:
    return IdeogramServerUnavailable(reason, IMAGE_IS_PAID, charged=True, status_code=status)
