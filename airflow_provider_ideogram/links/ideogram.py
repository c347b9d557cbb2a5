"""
The extra links of a task instance, and where the gallery is.

Invariant: a link is empty until its page exists; Airflow computes links after every slice, also before a deferral.
Imports nothing heavy: DAG files load it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow import __version__
from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom, conf
from packaging.version import Version

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.sdk.types import RuntimeTaskInstanceProtocol, TaskInstanceKey

#: The plugin's part of the addresses in Airflow's UI, ``…/plugin/ideogram-images``.
UI_ROUTE = "ideogram-images"
#: The vendor documents no page for a single request; its console lists the account's requests.
_SEGMIND_CONSOLE = "https://platform.segmind.com"
_S3_CONSOLE = "https://s3.console.aws.amazon.com/s3/object"


def has_gallery() -> bool:
    """Return whether this Airflow shows plugins' pages as tabs, which it does from 3.1 on."""
    return Version(Version(__version__).base_version) >= Version("3.1")


class IdeogramImageLink(BaseOperatorLink):
    """*Image*: the gallery's view of the task instance, and below Airflow 3.1 the object in the S3 console."""

    name = "Image"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, empty while there is no page."""
        if has_gallery():
            return gallery_address(ti_key)
        # On a worker the operator knows it; Airflow 3 logs an error for each XCom that is read and is not there.
        known = hasattr(operator, "_result")
        result = getattr(operator, "_result") if known else XCom.get_value(ti_key=ti_key, key="return_value")  # noqa: B009
        if not isinstance(result, Mapping) or not result.get("key"):
            return ""
        return s3_console(str(result.get("bucket")), result["key"])


class SegmindRequestLink(BaseOperatorLink):
    """*Segmind request*: Segmind's console, with the id of the task's request behind the ``#``."""

    name = "Segmind request"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, empty before a request was submitted or found."""
        # On a worker the operator knows it; Airflow 3 logs an error for each XCom that is read and is not there.
        if hasattr(operator, "request_id"):
            request_id: Any = operator.request_id
        elif (request_id := XCom.get_value(ti_key=ti_key, key="request_id")) is None:
            result = XCom.get_value(ti_key=ti_key, key="return_value")
            request_id = result.get("request_id") if isinstance(result, Mapping) else None
        return f"{_SEGMIND_CONSOLE}#{quote(request_id, safe='')}" if isinstance(request_id, str) else ""


def s3_console(bucket: str, key: str) -> str:
    """Return the address of an object in the S3 console of AWS."""
    return f"{_S3_CONSOLE}/{quote(bucket)}?{urlencode({'prefix': key})}"


def gallery_address(ti_key: TaskInstanceKey | RuntimeTaskInstanceProtocol) -> str:
    """Return the address of the gallery's tab; relative to the UI's origin if ``[api] base_url`` is not set."""
    base = (conf.get("api", "base_url", fallback="") or "").rstrip("/")
    dag_id, run_id, task_id = (quote(part, safe="") for part in (ti_key.dag_id, ti_key.run_id, ti_key.task_id))
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index is not None and ti_key.map_index >= 0 else ""
    return f"{base}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}/plugin/{UI_ROUTE}"
