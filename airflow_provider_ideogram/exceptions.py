"""
The provider's errors, grouped by whether money was spent.

::

    IdeogramError
    ├── IdeogramNotCharged               refused before a charge; another attempt is refused too
    │   ├── IdeogramInvalidInput         a parameter, the connection or the S3 target is not valid
    │   ├── IdeogramAuthenticationError  401: the key is missing or not valid
    │   ├── IdeogramPermissionError      403: the key may not do this
    │   ├── IdeogramInsufficientCredits  402, or 406 by its text
    │   │   └── IdeogramSpendLimitReached    406: a spend limit of the team
    │   ├── IdeogramBudgetReached        a budget of the connection is used up
    │   ├── IdeogramNotFound             404: no such model, endpoint or request
    │   ├── IdeogramModelRetired         410
    │   ├── IdeogramObjectExists         if_exists="fail" and the target holds an object
    │   └── IdeogramNotApproved          a review ended without enough approved images
    │       └── IdeogramReviewTimeout        … since it was not finished in time
    ├── IdeogramTemporaryError           another attempt may succeed
    │   ├── IdeogramRateLimited          429
    │   ├── IdeogramServerUnavailable    5xx, no connection, no response
    │   ├── IdeogramConnectionMissing    the Airflow connection does not exist, or its secrets backend does not respond
    │   ├── IdeogramTargetBusy           another task's request for the same target is running
    │   └── IdeogramStorageError         S3 does not respond or permit; before a charge or after it
    │       ├── IdeogramStorageRefused   … for good: no such bucket, or access denied
    │       └── IdeogramLedgerError      … or a record of the ledger can't be read or written
    │           ├── IdeogramLedgerRefused    … for good, as IdeogramStorageRefused, which it also is
    │           └── IdeogramInvalidRecord    … since it is not of the ledger's form
    └── IdeogramJobError                 a request was, or may have been, submitted
        ├── IdeogramJobFailed            the vendor reports FAILED
        │   └── IdeogramContentBlocked   … because of the content
        ├── IdeogramResultExpired        the vendor no longer holds the result
        ├── IdeogramTimeout              not done within the operator's timeout
        ├── IdeogramJobUnreachable       its state can't be read, or its image can't be fetched or stored
        ├── IdeogramUnknownSubmit        sent, and no response says whether it was accepted
        │   └── IdeogramSubmitFailed     … answered 500, 502 or 503
        ├── IdeogramUnexpectedResponse   a successful response that is not of the API's form
        ├── IdeogramInvalidImage         what was received is not a complete image
        │   └── IdeogramImageGone            … since its host answered 403, 404 or 410
        ├── IdeogramImageRejected        a gate of a dataset did not accept the image
        │   └── IdeogramGateFailed           … since it could not decide
        └── IdeogramDatasetFailed        more of a dataset's items failed than allowed
            └── IdeogramDatasetStopped   … and another attempt would not help without a person

Invariant: ``reason`` holds the fact only, ``advice`` says whether money was spent and what to do; neither holds a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any, ClassVar


class IdeogramError(Exception):
    """
    Base class of all errors of this provider. Its text is the reason followed by the advice.

    :param reason: What happened, as one sentence; messages that are composed of others quote only this.
    :param advice: Whether money was spent, then what to do, as sentences.
    :param charged: Whether a request was charged; None if that is not known. The class has the default.
    :param request_id: The vendor's id of the request, None if there is none or it is not known.
    :param status_code: The HTTP status that the API answered, None if the error is not an HTTP response.
    """

    #: The kind of error in snake case, for metrics and the XCom ``failure``.
    code: ClassVar[str] = "error"
    #: Whether another attempt of the task can succeed without a person changing something first.
    retryable: ClassVar[bool] = False
    #: Whether another attempt would pay again unless the ledger has the request.
    needs_ledger: ClassVar[bool] = False
    charged: bool | None = False

    def __init__(
        self,
        reason: str,
        advice: str = "",
        *,
        charged: bool | EllipsisType | None = ...,
        request_id: str | None = None,
        status_code: int | None = None,
    ) -> None:
        end = "" if reason.endswith((".", "?")) else "."
        super().__init__(f"{reason}{end} {advice}" if advice else reason)
        self.reason, self.advice = reason.rstrip("."), advice
        self.charged = self.charged if isinstance(charged, EllipsisType) else charged
        self.request_id = request_id
        self.status_code = status_code


class IdeogramNotCharged(IdeogramError):
    """Refused before a charge; another attempt would be refused too."""

    code = "refused"


class IdeogramInvalidInput(IdeogramNotCharged, ValueError):
    """A parameter, the connection or the S3 target is not valid. Also a :class:`ValueError`."""

    code = "invalid_input"

    @classmethod
    def of(cls, problems: Sequence[str], where: str = "") -> IdeogramInvalidInput:
        """
        Make the error that names all problems at once.

        :param where: What has the problems, such as ``Task 'generate'``.
        """
        prefix, advice = f"{where}: " if where else "", "Nothing was sent or charged."
        error = cls(prefix + "; ".join(problems), advice)
        if len(problems) > 1:
            listed = "".join(f"\n  - {problem}" for problem in problems)
            error.args = (f"{prefix}{len(problems)} problems. {advice}{listed}",)
        return error


class IdeogramAuthenticationError(IdeogramNotCharged):
    """The API does not accept the key (401)."""

    code = "authentication"


class IdeogramPermissionError(IdeogramNotCharged):
    """The key is valid and may not do this (403)."""

    code = "permission"


class IdeogramInsufficientCredits(IdeogramNotCharged):
    """The account's credits don't cover the call (402, or 406 by its text)."""

    code = "insufficient_credits"


class IdeogramSpendLimitReached(IdeogramInsufficientCredits):
    """A spend limit of the team at the vendor is reached (406 by its text)."""

    code = "spend_limit"


class IdeogramBudgetReached(IdeogramNotCharged):
    """
    A budget of the connection leaves no room for the request.

    :param ends_at: When the budget's day or month ends, in seconds since the epoch.
    """

    code = "budget_reached"

    def __init__(self, reason: str, advice: str = "", *, ends_at: float = 0.0, **details: Any) -> None:
        super().__init__(reason, advice, **details)
        self.ends_at = ends_at

    def after_unknown_submit(self) -> IdeogramBudgetReached:
        """Return the error of a request of which an earlier submit may have been accepted."""
        advice = f"An earlier submit of the request may have been charged. {self.advice.partition('. ')[2]}"
        return IdeogramBudgetReached(self.reason, advice, ends_at=self.ends_at, charged=None)


class IdeogramNotFound(IdeogramNotCharged):
    """The API has no such model, endpoint or request (404)."""

    code = "not_found"


class IdeogramModelRetired(IdeogramNotCharged):
    """The vendor has retired the model (410)."""

    code = "model_retired"


class IdeogramObjectExists(IdeogramNotCharged):
    """The target holds an object already, and ``if_exists`` is ``fail``."""

    code = "object_exists"


class IdeogramNotApproved(IdeogramNotCharged):
    """A review of images ended with fewer approved images than ``min_approved``."""

    code = "not_approved"


class IdeogramReviewTimeout(IdeogramNotApproved):
    """A review of images was not finished within its ``timeout``."""

    code = "review_timeout"


class IdeogramTemporaryError(IdeogramError):
    """
    The API or S3 cannot do this now.

    :param retry_after: Seconds that the server asked to wait, None if it did not say.
    """

    code = "temporary"
    retryable = True

    def __init__(self, reason: str, advice: str = "", *, retry_after: float | None = None, **details: Any) -> None:
        super().__init__(reason, advice, **details)
        self.retry_after = retry_after


class IdeogramRateLimited(IdeogramTemporaryError):
    """Too many requests (429)."""

    code = "rate_limited"


class IdeogramServerUnavailable(IdeogramTemporaryError):
    """The server has an error (5xx), can't be reached or does not respond."""

    code = "server_unavailable"


class IdeogramConnectionMissing(IdeogramTemporaryError):
    """The Airflow connection does not exist. A secrets backend that does not respond looks the same to Airflow."""

    code = "connection_missing"

    @classmethod
    def of(cls, conn_id: str) -> IdeogramConnectionMissing:
        """Return the error of a connection's id."""
        remedy = "Create it under Admin → Connections, or correct the id in the task."
        return cls(f"Connection {conn_id!r} does not exist", f"Nothing was charged. {remedy}")


class IdeogramStorageError(IdeogramTemporaryError):
    """S3, or the worker's disk, does not accept or return what is needed."""

    code = "storage"


class IdeogramStorageRefused(IdeogramStorageError):
    """S3 refuses before a charge, and would refuse another attempt: no such bucket, access denied, invalid key."""

    code = "storage_refused"
    retryable = False


class IdeogramTargetBusy(IdeogramTemporaryError):
    """Another task's request for the same target, with other inputs, is running."""

    code = "target_busy"


class IdeogramLedgerError(IdeogramStorageError):
    """A record of the ledger can't be read or written; nothing is submitted without it."""

    code = "ledger"


class IdeogramLedgerRefused(IdeogramLedgerError, IdeogramStorageRefused):
    """S3 refuses to read or write a record of the ledger, and would refuse another attempt."""

    code = "ledger_refused"


class IdeogramInvalidRecord(IdeogramLedgerError):
    """A record of the ledger, or a run's state, is not of this provider's form; it stays so until a person acts."""

    code = "invalid_record"


class IdeogramJobError(IdeogramError):
    """A request was, or may have been, submitted."""

    code = "request"
    retryable = True
    needs_ledger = True
    charged: bool | None = None


class IdeogramJobFailed(IdeogramJobError):
    """The vendor reports the request as FAILED, and did not charge it; the task's retries submit a new one."""

    code = "request_failed"
    needs_ledger = False
    charged = False


class IdeogramContentBlocked(IdeogramJobFailed):
    """The vendor reports the request as FAILED because of its content; the same prompt fails again."""

    code = "content_blocked"
    retryable = False


class IdeogramResultExpired(IdeogramJobError):
    """The vendor no longer holds the image, which was paid if the request completed."""

    code = "expired"


class IdeogramTimeout(IdeogramJobError):
    """The request was not done within the operator's ``timeout``."""

    code = "timeout"


class IdeogramJobUnreachable(IdeogramJobError):
    """The state of the request, which another task may have paid, can't be read, or its image not fetched or stored."""

    code = "unreachable"
    paid_by_other_task = False


class IdeogramUnknownSubmit(IdeogramJobError):
    """The submit was sent, and no response says whether it was accepted."""

    code = "unknown_submit"


class IdeogramSubmitFailed(IdeogramUnknownSubmit):
    """The submit was answered 500, 502 or 503: the vendor says that it may be sent again."""

    code = "submit_failed"


class IdeogramUnexpectedResponse(IdeogramJobError):
    """A successful response that is not of the API's form."""

    code = "unexpected_response"


class IdeogramInvalidImage(IdeogramJobError):
    """What was received in place of the image is incomplete, too large or not an image."""

    code = "invalid_image"
    charged = True


class IdeogramImageGone(IdeogramInvalidImage):
    """The image's host answered 403, 404 or 410."""

    code = "image_gone"


class IdeogramImageRejected(IdeogramJobError):
    """A gate of a dataset did not accept the image, which is paid and stored."""

    code = "rejected"
    retryable = False
    needs_ledger = False
    charged = True


class IdeogramGateFailed(IdeogramImageRejected):
    """A gate of a dataset could not decide on the image, which is paid and stored; a retry asks it again."""

    code = "gate_failed"
    retryable = True


class IdeogramDatasetFailed(IdeogramJobError):
    """More of a dataset's items failed than allowed; stored images stay, and a retry attempts the others."""

    code = "items_failed"
    needs_ledger = False


class IdeogramDatasetStopped(IdeogramDatasetFailed):
    """All items of a dataset fail for the same reason, all were blocked, or its budget is spent."""

    code = "dataset_stopped"
    retryable = False


_NOT_LOST = (
    "is not lost: the next attempt reattaches to it, unless the task has durable=False. The vendor holds its result "
    "for an hour and its image for seven days."
)
#: What happens to a submitted request that a task stops waiting for.
STILL_AVAILABLE = f"The request is charged if it completes, and {_NOT_LOST}"


def completed_not_stored(request_id: str) -> str:
    """Return the advice about a completed request whose image is not stored yet."""
    return f"Request {request_id} is completed and paid, and {_NOT_LOST}"


def job_unreachable(request_id: str, reason: str | None, *, completed: bool = False) -> IdeogramJobUnreachable:
    """
    Return the error of a submitted request whose image can't be reached now.

    :param reason: The ``reason`` of the error that was met.
    :param completed: Whether the request is known to be completed.
    """
    return IdeogramJobUnreachable(
        f"The image of request {request_id} can't be fetched or stored: {reason}",
        completed_not_stored(request_id) if completed else STILL_AVAILABLE,
        charged=True if completed else None,
        request_id=request_id,
    )


def request_continues(request_id: str) -> str:
    """Return the message for a task that ends before its request does."""
    return f"Request {request_id} continues at the vendor, since the API has no cancel call. {STILL_AVAILABLE}"
