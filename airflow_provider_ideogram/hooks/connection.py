"""
The settings of an Airflow connection of type ``ideogram``: fields, validation and the form's description.

Invariant: :data:`EXTRA_FIELDS` describes each field of the extra once, and other fields are refused. Errors name the
standard fields as the form does, and never contain the API key.
"""

from __future__ import annotations

import ipaddress
import json
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
#: The labels of the password and the host in the form.
API_KEY_LABEL, BASE_URL_LABEL = "API key", "Base URL"
#: A shorter key would also match other text, which would then be redacted.
_MIN_KEY_CHARACTERS = 8
#: The vendor's hosts: this domain and its subdomains.
VENDOR_DOMAIN = "segmind.com"
#: A host name in the form that the DNS uses.
HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE | re.ASCII)
_HOST_AND_PORT = re.compile(r"(\[[^]]+\]|[A-Za-z0-9._-]+)(:[0-9]*)?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_USE_PUNYCODE = "write a name with other letters in its xn-- form"
_NO_ADDRESS = "is not an http or https address with a host"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """
    The validated settings of a connection. Equal settings can share a client.

    :param api_key: The API key, which is sent to the API's and the history's origin only.
    :param base_url: Scheme, host and port of the API, without a path.
    :param requests_per_minute: The account's rate limit, 0 if it is unknown.
    :param polls_per_minute: The status calls a minute of each triggerer, 0 for no limit.
    :param timeout: Seconds to wait for a connection, and for each chunk of a response.
    :param history_url: The address of the account's request history. None when no history URL is known: a gateway's key
        is not valid at Segmind.
    :param image_hosts: Hosts, besides the vendor's and the API's, from which images may be downloaded.
    :param max_cost_usd_per_day: What the account may spend on a UTC day in USD, None for no limit.
    :param max_cost_usd_per_month: The same for a UTC month.
    :param max_cost_usd_per_dag_and_day: The same for each DAG on a UTC day.
    :param account_url: Where tasks share limit and budget, ``s3://bucket/prefix/``; None for the ledger's prefix in the
        target's bucket.
    :param conn_id: The connection's id, for errors.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    requests_per_minute: float = 0.0
    polls_per_minute: float = 0.0
    timeout: float = DEFAULT_TIMEOUT
    history_url: str | None = DEFAULT_HISTORY_URL
    image_hosts: tuple[str, ...] = ()
    max_cost_usd_per_day: float | None = None
    max_cost_usd_per_month: float | None = None
    max_cost_usd_per_dag_and_day: float | None = None
    account_url: str | None = None
    conn_id: str = field(default="", compare=False)

    @property
    def has_budget(self) -> bool:
        """Whether the connection bounds what may be spent."""
        caps = (self.max_cost_usd_per_day, self.max_cost_usd_per_month, self.max_cost_usd_per_dag_and_day)
        return any(cap is not None for cap in caps)

    @property
    def redactor(self) -> Redactor:
        """The redactor that replaces the key in texts."""
        return Redactor(self.api_key)

    @classmethod
    def of(cls, connection: Any, extra: Mapping[str, Any]) -> ConnectionSettings:
        """
        Validate an Airflow connection.

        :param connection: The connection; its ``password`` is the API key and its ``host`` the base URL.
        :param extra: Its extra as a dict. The caller reads it, since that needs an await on an event loop.
        :raises IdeogramInvalidInput: If a field is missing, unknown or not valid; it names all such fields.
        """
        problems: list[str] = []
        values: dict[str, Any] = {}
        if not isinstance(extra, Mapping) or (not extra and not _is_json(connection.extra)):
            problems.append("extra: must be a JSON object")
            extra = {}

        def check(name: str, label: str, read: Callable[[Any], Any], value: Any) -> None:
            try:
                values[name] = read(value)
            except ValueError as error:
                problems.append(f"{label}: {error}")

        check("api_key", API_KEY_LABEL, _api_key, connection.password)
        check("base_url", BASE_URL_LABEL, _base_url, connection)
        for name, value in extra.items():
            if name not in EXTRA_FIELDS:
                problems.append(f"extra {name!r} is unknown. {did_you_mean(name, tuple(EXTRA_FIELDS))}")
            elif value is not None and value != "":  # the form stores "" for an empty field
                check(name, f"extra {name}", EXTRA_FIELDS[name].read, value)
        if problems:
            # The key may have been entered in another field, whose text is quoted here.
            redactor = Redactor(values.get("api_key", ""))
            where = f"connection {connection.conn_id!r}"
            raise IdeogramInvalidInput.of([sanitize_text(f"{where}: {problem}", redactor) for problem in problems])
        if not is_vendor_host(urlsplit(values["base_url"]).hostname or ""):
            values.setdefault("history_url", None)
        return cls(**values, conn_id=connection.conn_id or "")


def is_vendor_host(host: str) -> bool:
    """Return whether a host is the vendor's."""
    return host == VENDOR_DOMAIN or host.endswith(f".{VENDOR_DOMAIN}")


def _is_json(extra: str | None) -> bool:
    """Return whether the extra's text is empty or JSON: Airflow reads any other text as an empty extra."""
    try:
        json.loads(extra or "{}")
    except ValueError:
        return False
    return True


def _address(connection: Any) -> str:
    """
    Return the base URL as text, from ``host`` alone or, as in connection URIs, from host, schema and port.

    :raises ValueError: If it can't be parsed.
    """
    host = (connection.host or "").strip() or DEFAULT_BASE_URL
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{f'[{host}]' if _is_ipv6(host) else host}"
    parts = urlsplit(host)  # drops line breaks: a host that is not printable stays unchanged, and _url refuses it
    if connection.port and host.isprintable() and ":" not in parts.netloc.rpartition("]")[2]:
        host = parts._replace(netloc=f"{parts.netloc}:{connection.port}").geturl()
    return host


def _api_key(value: Any) -> str:
    key = value.strip() if isinstance(value, str) else ""
    if not key:
        raise ValueError("is missing; it is the connection's password")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("has characters that are not valid in a key")
    if len(key) < _MIN_KEY_CHARACTERS:
        raise ValueError(f"has fewer than {_MIN_KEY_CHARACTERS} characters")
    return key


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be an address, such as https://api.segmind.com")
    text = value.strip()
    if not text.isascii() or not text.isprintable():
        raise ValueError(f"has characters that are not valid in an address; {_USE_PUNYCODE}")
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and _has_host(parts) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(_NO_ADDRESS)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"must not contain credentials; enter the key in the field {API_KEY_LABEL!r}")
    if "?" in text or "#" in text:
        raise ValueError("must not have a query or a fragment")
    return text.rstrip("/")


def _has_host(parts: SplitResult) -> bool:
    """Return whether there is a valid host; raise ValueError for an IP address that is not valid."""
    host = parts.hostname or ""
    # httpx parses each host of digits and dots as an IPv4 address.
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
    return f"{parts.scheme}://{parts.netloc}".removesuffix(_DEFAULT_PORTS[parts.scheme])


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a number of 0 or more")
    return number


def parse_account_url(value: Any) -> str:
    """Return the address of an account's objects, which ends with a slash; raise ValueError if it is none."""
    parts = urlsplit(value) if isinstance(value, str) else SplitResult("", "", "", "", "")
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise ValueError(f"{value!r} is not an address such as s3://bucket/prefix/")
    return value if value.endswith("/") else f"{value}/"


def _timeout(value: Any) -> float:
    seconds = _number(value)
    if not 1 <= seconds <= 300:
        raise ValueError(f"{value!r} is not within 1..300 seconds")
    return seconds


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(hosts, list | tuple) or not all(isinstance(host, str) and _is_host(host) for host in hosts):
        raise ValueError(f"must be full host names, such as 'cdn.example.com, images.example.com'; {_USE_PUNYCODE}")
    return tuple(sorted({host.lower().rstrip(".") for host in hosts}))


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return HOST.fullmatch(host.removesuffix(".")) is not None
    return True


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class ExtraField:
    """
    A field of the connection's extra.

    :param label: The label in the form.
    :param json_type: The JSON type.
    :param description: The help text in the form.
    :param read: Returns the typed value; raises ValueError with the reason if the value is not valid.
    :param default: The value of an empty field.
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
        "The account's rate limit, which all tasks of this connection share. 0 means unknown: each task learns it from "
        "a 429.",
        _number,
        0,
    ),
    "polls_per_minute": ExtraField(
        "Polls per minute",
        "number",
        "The status calls of each triggerer, for accounts whose polls count against the rate limit. 0 means no limit.",
        _number,
        0,
    ),
    "max_cost_usd_per_day": ExtraField(
        "Maximum cost per day (USD)",
        "number",
        "What all tasks of this connection may spend on a UTC day. Empty: no limit.",
        _number,
    ),
    "max_cost_usd_per_month": ExtraField(
        "Maximum cost per month (USD)",
        "number",
        "What all tasks of this connection may spend in a UTC month. Empty: no limit.",
        _number,
    ),
    "max_cost_usd_per_dag_and_day": ExtraField(
        "Maximum cost per DAG and day (USD)",
        "number",
        "What the tasks of each DAG may spend with this connection on a UTC day. Empty: no limit.",
        _number,
    ),
    "account_url": ExtraField(
        "Account URL",
        "string",
        "Where all tasks share the rate limit and the budget: s3://bucket/prefix/. Empty: below the ledger's prefix in "
        "the target's bucket; name one place if targets are in several buckets.",
        parse_account_url,
    ),
    "timeout": ExtraField(
        "Timeout (seconds)",
        "number",
        "How long to wait for a connection and for each chunk of a response: 1 to 300 seconds.",
        _timeout,
        DEFAULT_TIMEOUT,
    ),
    "history_url": ExtraField(
        "History URL",
        "string",
        "The address of the account's request history, where requests of unanswered submits are found. The API key is "
        "sent there, too. The default is Segmind's address if the base URL is Segmind's.",
        _url,
    ),
    "image_hosts": ExtraField(
        "Image hosts",
        "string",
        "More hosts from which images may be downloaded, separated by commas. Segmind's hosts are always allowed.",
        _hosts,
    ),
}

#: How the form shows Airflow's standard fields, as the provider's metadata spells it. The port is shown because Airflow
#: 3.3.1 and 3.3.2 refuse to test a stored connection without one: their test button sends 0 for it.
UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "extra"],
    "relabeling": {"password": API_KEY_LABEL, "host": BASE_URL_LABEL},
    "placeholders": {
        "host": DEFAULT_BASE_URL,
        "password": "the API key from Segmind's console",
        "port": "443",
    },
}
