"""
The metadata that Airflow's provider manager reads.

Invariant: the description of the connection form comes from :mod:`airflow_provider_ideogram.hooks.connection`; nothing
of it is repeated here.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_ideogram import __version__

_PACKAGE = "airflow_provider_ideogram"
_INTEGRATION = "Ideogram"

_CONFIG = {
    "description": "Settings of the Ideogram provider.",
    "options": {
        "gallery_aws_conn_id": {
            "description": (
                "The Airflow connection of type aws with which the API server reads the images that the gallery "
                "shows. It needs s3:GetObject, for versioned buckets s3:GetObjectVersion, s3:ListBucket to "
                "show datasets while they run, and s3:PutObject for reviews below _ideogram/.reviews/."
            ),
            "version_added": "0.1.0",
            "type": "string",
            "example": "aws_read_only",
            "default": "aws_default",
        }
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, valid against Airflow's ``provider_info`` and ``provider.yaml`` schemas."""
    return {
        "package-name": "airflow-provider-ideogram",
        "name": "Ideogram",
        "description": "Text-to-image jobs on Segmind's Ideogram 2a API: submitted once, stored in S3.",
        "state": "ready",
        "lifecycle": "incubation",
        "source-date-epoch": 1795651200,  # the day of the release, which the schema requires: 2026-11-26
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://www.segmind.com/models/ideogram-2a-txt-2-img",
                "tags": ["ai"],
            }
        ],
        "hooks": [_modules("hooks.ideogram")],
        "operators": [_modules("operators.image", "operators.dataset", "operators.review")],
        "sensors": [_modules("sensors.request")],
        "triggers": [_modules("triggers.request", "account.trigger", "reviews.trigger")],
        "task-decorators": [{"name": "ideogram", "class-name": f"{_PACKAGE}.decorators.ideogram.ideogram_task"}],
        "connection-types": [_connection_type()],
        "extra-links": [f"{_PACKAGE}.links.ideogram.{name}" for name in ("IdeogramImageLink", "SegmindRequestLink")],
        "cli": [f"{_PACKAGE}.cli.definition.airflow_commands"],
        "config": {"ideogram": _CONFIG},
    }


def _modules(*names: str) -> dict[str, Any]:
    return {"integration-name": _INTEGRATION, "python-modules": [f"{_PACKAGE}.{name}" for name in names]}


def _connection_type() -> dict[str, Any]:
    from airflow_provider_ideogram.hooks.connection import EXTRA_FIELDS, UI_FIELD_BEHAVIOUR

    return {
        "connection-type": "ideogram",
        "hook-class-name": f"{_PACKAGE}.hooks.ideogram.IdeogramHook",
        "hook-name": "Ideogram (Segmind)",
        "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
        "conn-fields": {
            name: {
                "label": extra.label,
                "description": extra.description,
                "schema": {"type": [extra.json_type, "null"]}
                | ({} if extra.default is None else {"default": extra.default}),
            }
            for name, extra in EXTRA_FIELDS.items()
        },
    }
