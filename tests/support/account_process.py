"""
A process that reserves, submits and settles against a local S3 server, for tests that kill it.

`python -m tests.support.account_process ENDPOINT BUCKET CHARGES PROCESS SEED CAP`. Each charge of the simulated vendor
is a line in the file CHARGES, written before the settlement. It ends when the budget refuses twice in a row.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from pathlib import Path

from airflow_provider_ideogram.account import budget
from airflow_provider_ideogram.account.account import Account, Who
from airflow_provider_ideogram.account.admission import Admission
from airflow_provider_ideogram.account.reservations import Settlement, settle
from airflow_provider_ideogram.exceptions import IdeogramBudgetReached
from airflow_provider_ideogram.hooks.connection import ConnectionSettings
from airflow_provider_ideogram.storage.objects import ObjectStore
from dev.s3_server import S3Server

#: Holds are checked after this long instead of a minute.
HOLD_SECONDS = 2.0
MODEL = "ideogram-2a-txt-2-img"
PRICE = 0.05


def main() -> None:
    """Work until the budget is used up."""
    endpoint, bucket, charges, process, seed, cap = sys.argv[1:]
    budget.HOLD_SECONDS = HOLD_SECONDS
    rng = random.Random(f"{seed}/{process}")
    objects = ObjectStore(S3Server(endpoint).client())
    settings = ConnectionSettings("a-key-of-tests", max_cost_usd_per_day=float(cap))
    refused = 0
    while refused < 2:
        account = Account(objects, f"s3://{bucket}/", "conn", settings, Who("dag", process, "task"))
        admission = Admission(account)
        record = f"_ideogram/{process}-{uuid.uuid4().hex}.json"
        try:
            reservation = admission.admit(MODEL, f"s3://{bucket}/{record}")
        except IdeogramBudgetReached:
            refused += 1
            time.sleep(HOLD_SECONDS)
            continue
        refused = 0
        objects.put(bucket, record, json.dumps({"reservation": reservation}).encode(), if_missing=True)
        if rng.random() < 0.1:  # refused by the vendor
            objects.delete(bucket, record)
            admission.cancel(reservation)
            continue
        failed = rng.random() < 0.1
        with Path(charges).open("a") as file:  # one short write: whole lines, in any order
            file.write(f"{0.0 if failed else PRICE} {reservation}\n")
        if rng.random() < 0.05:
            continue  # its end is never known
        settle(objects, [Settlement(reservation, 0.0 if failed else PRICE, failed)])
        objects.delete(bucket, record)


if __name__ == "__main__":
    main()
