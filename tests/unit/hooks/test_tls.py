"""Which certificate authorities are trusted, with a TLS server whose certificate none of the public ones has signed."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_ideogram.api import calls
from airflow_provider_ideogram.api.image_source import ImageUrl
from airflow_provider_ideogram.api.parsing import RequestStatus
from airflow_provider_ideogram.exceptions import IdeogramInvalidInput, IdeogramServerUnavailable
from airflow_provider_ideogram.hooks.async_client import AsyncSegmindClient, new_transport
from airflow_provider_ideogram.hooks.client import SegmindClient
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.hooks.download import download_image
from airflow_provider_ideogram.hooks.tls import tls_context
from tests.support.hostile import KEY
from tests.unit.hooks.conftest import PNG

STATUS = calls.get_status("r-1")
pytestmark = pytest.mark.usefixtures("no_proxy", "no_certificates", "waits")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a self-signed certificate for 127.0.0.1 and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=test")
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = {name: name in ("digital_signature", "key_cert_sign") for name in KEY_USAGES}
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(address, critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("certificates") / "ca.pem"
    file.write_bytes(
        signed.public_bytes(encoding) + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    return file


KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@pytest.fixture
def tls_url(certificate: Path) -> Iterator[str]:
    """The address of a TLS server that answers each request with a PNG, or with a status below /v2."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            connection, _ = listening.accept()
            # A client that does not trust the certificate ends the handshake.
            with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as encrypted:
                is_call = encrypted.recv(65536).startswith(b"GET /v2")
                body = b'{"status": "QUEUED"}' if is_call else PNG
                head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
                encrypted.sendall(head.encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        stopping.set()
        socket.create_connection(listening.getsockname()).close()
        thread.join()


async def _use(path: str, url: str) -> Any:
    """Send a request on one of the three paths, and return what it received."""
    settings = replace(ConnectionSettings(KEY), base_url=url)
    if path == "call":
        with closing(SegmindClient(settings)) as client:
            return client.run(STATUS, max_attempts=1)
    if path == "download":
        with download_image(ImageUrl(f"{url}/a.png"), settings) as image:
            return image.file.read()
    transport = await new_transport(settings)
    try:
        return await AsyncSegmindClient(transport).run(STATUS, max_attempts=1)
    finally:
        await transport.aclose()


each_path = pytest.mark.parametrize("path", ["call", "poll", "download"])


@each_path
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_certificate_of_a_variable_is_trusted(
    path: str, variable: str, tls_url: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificate))
    assert await _use(path, tls_url) == (PNG if path == "download" else RequestStatus("QUEUED"))


@each_path
async def test_unknown_certificate_is_not_trusted(path: str, tls_url: str) -> None:
    with pytest.raises(IdeogramServerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await _use(path, tls_url)


@each_path
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
async def test_missing_certificates_name_the_variable(
    path: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/missing/ca.pem")
    with pytest.raises(IdeogramInvalidInput, match=f"variable {variable} names '/missing/ca.pem', where no"):
        await _use(path, "https://127.0.0.1:1")


def test_file_without_certificates_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(IdeogramInvalidInput, match=r"SSL_CERT_FILE names .*empty.pem', where no certificates"):
        tls_context()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SSL_CERT_DIR": "DIR"}, {"capath": "DIR"}),
        ({"SSL_CERT_DIR": "DIR:/missing"}, {"capath": "DIR:/missing"}),
        ({"REQUESTS_CA_BUNDLE": "DIR"}, {"capath": "DIR"}),
        ({"SSL_CERT_DIR": "DIR", "SSL_CERT_FILE": "FILE"}, {"capath": "DIR", "cafile": "FILE"}),
        ({"SSL_CERT_FILE": "FILE", "REQUESTS_CA_BUNDLE": "/missing"}, {"cafile": "FILE"}),
    ],
)
def test_directories_and_files_are_told_apart(
    variables: dict[str, str], expected: dict[str, str], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(text: str) -> str:
        return text.replace("DIR", str(certificate.parent)).replace("FILE", str(certificate))

    passed: list[dict[str, str | None]] = []
    monkeypatch.setattr(ssl, "create_default_context", lambda **options: passed.append(options))
    for name, value in variables.items():
        monkeypatch.setenv(name, path(value))
    tls_context()
    assert passed == [{"cafile": None, "capath": None} | {name: path(value) for name, value in expected.items()}]
