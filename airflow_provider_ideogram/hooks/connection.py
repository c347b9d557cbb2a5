"""
What an Airflow connection of type ``ideogram`` says.

Invariant: each key of the extra is described once, in :data:`EXTRA_FIELDS`; what is not there is refused. The
key is never part of a text that this module produces.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow_provider_ideogram.api.parameters import did_you_mean
from airflow_provider_ideogram.api.sanitize import Redactor, sanitize_text
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput

DEFAULT_BASE_URL = "https://api.segmind.com"
DEFAULT_HISTORY_URL = "https://api.spotprod.segmind.com/inference-request/request-history"
DEFAULT_TIMEOUT = 30.0
#: Whatever is shorter could not be told from other text, where it is to be kept out of messages.
_MIN_KEY_CHARACTERS = 8
#: Images come from the vendor's own domain and from below it.
VENDOR_DOMAIN = "segmind.com"
#: A host's name as it is in the DNS.
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE | re.ASCII)
_HOST_AND_PORT = re.compile(r"(\[[^]]+\]|[A-Za-z0-9._-]+)(:[0-9]*)?")
_OTHER_LETTERS = "a name in other letters has a form that begins xn--"
_NO_ADDRESS = "is not an http or https address with a host"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """
    A connection, checked and typed. Equal settings can share a client.

    :param api_key: The key, for the API's and the history's origin alone.
    :param base_url: Scheme, host and port of the API, without a path.
    :param requests_per_minute: The account's rate limit, 0 where it is unknown.
    :param timeout: Seconds to wait for a connection, and for each piece of an answer.
    :param history_url: The address of the account's request history, None where nobody knows it: a key for another
        host than the vendor's is none of the vendor's.
    :param image_hosts: Hosts that images may come from, besides the vendor's and the API's own.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    requests_per_minute: float = 0.0
    timeout: float = DEFAULT_TIMEOUT
    history_url: str | None = DEFAULT_HISTORY_URL
    image_hosts: tuple[str, ...] = ()

    @property
    def redactor(self) -> Redactor:
        """Replaces the key in texts."""
        return Redactor(self.api_key)

    @classmethod
    def of(cls, connection: Any, extra: Mapping[str, Any]) -> ConnectionSettings:
        """
        Read an Airflow connection.

        :param connection: The connection; its ``password`` is the key and its ``host`` the base URL.
        :param extra: Its extra as a dict, which is not read here: on an event loop that takes an await.
        :raises IdeogramInvalidInput: If anything in it is missing, unknown or of the wrong form.
        """
        problems: list[str] = []
        values: dict[str, Any] = {}
        if not isinstance(extra, Mapping):
            problems.append("extra: must be a JSON object")
            extra = {}

        def check(name: str, read: Callable[[Any], Any], value: Any) -> None:
            try:
                values[name] = read(value)
            except ValueError as problem:
                problems.append(f"{name}: {problem}")

        check("api_key", _api_key, connection.password)
        check("base_url", _base_url, connection)
        for name, value in extra.items():
            if name not in EXTRA_FIELDS:
                problems.append(f"extra {name!r} is not known. {did_you_mean(name, tuple(EXTRA_FIELDS))}")
            elif value is not None and value != "":  # what the form stores for a field left empty
                check(name, EXTRA_FIELDS[name].read, value)
        if problems:
            where = f"connection {connection.conn_id!r}"
            raise IdeogramInvalidInput.of([_without(values, f"{where}: {problem}") for problem in problems])
        if not is_vendors(urlsplit(values["base_url"]).hostname or ""):
            values.setdefault("history_url", None)
        return cls(**values)


def is_vendors(host: str) -> bool:
    """Return whether a host is the vendor's own."""
    return host == VENDOR_DOMAIN or host.endswith(f".{VENDOR_DOMAIN}")


def _without(values: Mapping[str, Any], problem: str) -> str:
    """Return a problem as one short line without the key, which may have been put into a wrong field."""
    return sanitize_text(problem, Redactor(values.get("api_key", "")))


def _address(connection: Any) -> str:
    """
    Return the base URL as text, from ``host`` alone or, as connection URIs have it, with schema and port.

    :raises ValueError: If it can't be split into its parts.
    """
    host = (connection.host or "").strip() or DEFAULT_BASE_URL
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    parts = urlsplit(host)  # which drops line breaks: with one in it, the text stays as it is and is refused
    if connection.port and host.isprintable() and ":" not in parts.netloc.rpartition("]")[2]:
        host = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
    return host


def _api_key(value: Any) -> str:
    key = value.strip() if isinstance(value, str) else ""
    if not key:
        raise ValueError("the connection's password, the API key, is missing")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("the connection's password holds characters that no API key has")
    if len(key) < _MIN_KEY_CHARACTERS:
        raise ValueError("the connection's password is too short for an API key")
    return key


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be an address, such as https://api.segmind.com")
    text = value.strip()
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"holds characters that no address has; {_OTHER_LETTERS}")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and _names_host(parts) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(_NO_ADDRESS)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials: the API key is the connection's password")
    if "?" in text or "#" in text:
        raise ValueError("must not hold a query or a fragment")
    return text.rstrip("/")


def _names_host(parts: SplitResult) -> bool:
    """Return whether there is a host for httpx too, which takes all that is of digits and dots for an IPv4 address."""
    host = parts.hostname or ""
    if ":" in host or not host.strip("0123456789."):
        ipaddress.ip_address(host)
    return _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]) is not None


def _base_url(connection: Any) -> str:
    try:
        address = _address(connection)
    except ValueError:
        raise ValueError(_NO_ADDRESS) from None
    url = _url(address)
    parts = urlsplit(url)
    if parts.path not in ("", "/v1", "/v2"):  # the vendor's SDK takes its base with a version
        raise ValueError(f"must have no path, not {parts.path!r}")
    return f"{parts.scheme}://{parts.netloc}"


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a number from 0 up")
    return number


def _timeout(value: Any) -> float:
    seconds = _number(value)
    if not 1 <= seconds <= 300:
        raise ValueError(f"{value!r} is not within 1..300 seconds")
    return seconds


def _hosts(value: Any) -> tuple[str, ...]:
    listed = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(host, str) and _is_host(host) for host in listed):
        raise ValueError(f"must be whole host names, such as 'cdn.example.com, images.example.com'; {_OTHER_LETTERS}")
    return tuple(sorted({host.lower().rstrip(".") for host in listed}))


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST.fullmatch(host.removesuffix(".")) is not None
    return True


@dataclass(frozen=True, slots=True)
class ExtraField:
    """
    A key of the connection's extra, as the form shows it and as it is read.

    :param label: The form's label.
    :param json_type: Its JSON type.
    :param description: The form's help text.
    :param read: Returns the typed value; raises ValueError with what is wrong.
    :param default: What counts where it is empty.
    """

    label: str
    json_type: str
    description: str
    read: Callable[[Any], Any]
    default: float | str | None = None


EXTRA_FIELDS = {
    "requests_per_minute": ExtraField(
        "Requests per minute",
        "number",
        "The account's rate limit (Free 5, Pro 50). 0 means unknown: requests are not paced.",
        _number,
        0,
    ),
    "timeout": ExtraField(
        "Timeout (seconds)",
        "number",
        "How long to wait for a connection and for each piece of an answer, 1 to 300.",
        _timeout,
        DEFAULT_TIMEOUT,
    ),
    "history_url": ExtraField(
        "History URL",
        "string",
        "The address of the account's request history, which tells of unanswered submits, and gets the key, too. By "
        "default the vendor's, if the base URL is the vendor's as well.",
        _url,
    ),
    "image_hosts": ExtraField(
        "Image hosts",
        "string",
        "Hosts, separated by commas, that images may come from besides the vendor's.",
        _hosts,
    ),
}

#: How the form shows its standard fields, in the words of the provider's metadata.
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "port", "extra"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {"host": DEFAULT_BASE_URL, "password": "the key from Segmind's console"},
}
