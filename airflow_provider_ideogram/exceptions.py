"""
What can go wrong, told apart by what became of the money.

::

    IdeogramError
    ├── IdeogramNotCharged               before money: nothing was paid, trying again changes nothing
    │   ├── IdeogramInvalidInput         a parameter, the connection or the S3 target is wrong
    │   ├── IdeogramAuthenticationError  401: the key is missing or not valid
    │   ├── IdeogramPermissionError      403: the key may not do this
    │   ├── IdeogramInsufficientCredits  406
    │   ├── IdeogramNotFound             404: no such model, endpoint or request
    │   └── IdeogramObjectExists         if_exists="fail" and the object is there
    ├── IdeogramTemporaryError           in between: trying again may help
    │   ├── IdeogramRateLimited          429
    │   ├── IdeogramServerUnavailable    5xx, no connection, no answer
    │   ├── IdeogramTargetBusy           another task's request for the same target is alive
    │   └── IdeogramStorageError         S3 does not answer or permit; before money and after it
    │       └── IdeogramLedgerError      … or the ledger's record can't be read or written
    └── IdeogramJobError                 after money: a job was, or may have been, submitted
        ├── IdeogramJobFailed            the vendor says FAILED
        │   └── IdeogramContentBlocked   … because of what was asked for
        ├── IdeogramResultExpired        the vendor no longer has it
        ├── IdeogramTimeout              not done within the operator's timeout
        ├── IdeogramJobUnreachable       what became of it, or its image, can't be read
        ├── IdeogramUnknownSubmit        sent, but no answer says whether it was accepted
        ├── IdeogramUnexpectedAnswer     an answer that is not of the API's form
        ├── IdeogramInvalidImage         what came is not a complete image
        └── IdeogramDatasetFailed        more of a dataset's items failed than may
            └── IdeogramDatasetStopped   … and trying them again would only cost more

Invariant: every message says what happened, whether money was spent, and what to do; none holds a key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class IdeogramError(Exception):
    """
    Base class of everything that this provider raises on its own account.

    :param what: What happened; a message that is composed of others quotes only this, as ``reason``.
    :param then: Whether money was spent, and what to do, as sentences.
    """

    #: Whether another attempt of the task can help without a person changing something first.
    retryable: ClassVar[bool] = False
    #: Whether another attempt would pay again unless the ledger tells it of the job.
    needs_ledger: ClassVar[bool] = False
    #: What became of the job, in a word, where that is certain.
    outcome: ClassVar[str | None] = None

    def __init__(self, what: str, then: str = "") -> None:
        super().__init__(f"{what}. {then}" if then else what)
        self.reason = what.rstrip(".")

    @property
    def kind(self) -> str:
        """The error in a word, for machines: the job's outcome, or else the name of the class."""
        return self.outcome or type(self).__name__


class IdeogramNotCharged(IdeogramError):
    """Refused before anything was paid; another attempt would be refused just the same."""


class IdeogramInvalidInput(IdeogramNotCharged, ValueError):
    """A parameter, the connection or the S3 target is wrong. Also a :class:`ValueError`."""

    @classmethod
    def of(cls, problems: Sequence[str]) -> IdeogramInvalidInput:
        """Make the error that names all problems at once."""
        listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {problem}" for problem in problems)
        error = cls(f"Invalid input, nothing was sent or charged. {listed}")
        error.reason = "; ".join(problems)
        return error


class IdeogramAuthenticationError(IdeogramNotCharged):
    """The API does not know the key (401)."""


class IdeogramPermissionError(IdeogramNotCharged):
    """The key is known and may not do this (403)."""


class IdeogramInsufficientCredits(IdeogramNotCharged):
    """The account's credits don't cover the call (406)."""


class IdeogramNotFound(IdeogramNotCharged):
    """The API has no such model, endpoint or request (404)."""


class IdeogramObjectExists(IdeogramNotCharged):
    """The target holds an object already, and ``if_exists`` is ``fail``."""


class IdeogramTemporaryError(IdeogramError):
    """
    The API cannot answer now.

    :param retry_after: Seconds the server asked to wait, None if it did not say.
    """

    retryable = True

    def __init__(self, what: str, then: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(what, then)
        self.retry_after = retry_after


class IdeogramRateLimited(IdeogramTemporaryError):
    """Too many requests (429); nothing was charged."""


class IdeogramServerUnavailable(IdeogramTemporaryError):
    """The server has an error (5xx), can't be reached or does not answer; nothing was charged."""


class IdeogramStorageError(IdeogramTemporaryError):
    """S3, or the worker's disk, does not take or give what is needed; the message says whether an image was paid."""


class IdeogramTargetBusy(IdeogramTemporaryError):
    """Another task's request for the same target, with other inputs, is alive; nothing was charged."""


class IdeogramLedgerError(IdeogramStorageError):
    """The ledger's record can't be read or written; nothing is submitted without it."""


class IdeogramJobError(IdeogramError):
    """
    A job was, or may have been, submitted and paid.

    :param request_id: The vendor's id of the job, None if it is not known.
    """

    retryable = True
    needs_ledger = True

    def __init__(self, what: str, then: str = "", *, request_id: str | None = None) -> None:
        super().__init__(what, then)
        self.request_id = request_id


class IdeogramJobFailed(IdeogramJobError):
    """The vendor reports the job as FAILED; the task's retries say whether it is tried, and paid, once more."""

    needs_ledger = False
    outcome = "failed"


class IdeogramContentBlocked(IdeogramJobFailed):
    """The vendor reports the job as FAILED because of what was asked for; the same prompt fails again."""

    retryable = False
    outcome = "content_blocked"


class IdeogramResultExpired(IdeogramJobError):
    """The vendor holds status and result for one hour after the submission; it is over."""

    outcome = "expired"


class IdeogramTimeout(IdeogramJobError):
    """The job was not done within the operator's ``timeout``."""


class IdeogramJobUnreachable(IdeogramJobError):
    """What became of the job can't be read, or its image can't be fetched or stored."""


class IdeogramUnknownSubmit(IdeogramJobError):
    """The submit was sent, and no answer says whether it was accepted."""


class IdeogramUnexpectedAnswer(IdeogramJobError):
    """An answer with a status of success that is not of the API's form."""


class IdeogramInvalidImage(IdeogramJobError):
    """What came in place of the image is incomplete, too large or not an image."""


class IdeogramDatasetFailed(IdeogramJobError):
    """More of a dataset's items failed than may; what is stored stays, and a retry attempts the others."""

    needs_ledger = False


class IdeogramDatasetStopped(IdeogramDatasetFailed):
    """A dataset's items all fail alike, were all blocked, or its budget is spent: a person has to look."""

    retryable = False


def job_unreachable(request_id: str, reason: str | None) -> IdeogramJobUnreachable:
    """
    Return the error of a paid job whose end can't be reached.

    :param reason: Why, as an error's ``reason`` says it: what is said there about money is not about the job.
    """
    return IdeogramJobUnreachable(
        f"Request {request_id} was submitted and paid, but what came of it can't be brought here: {reason}",
        "The vendor holds its result for one hour after the submission.",
        request_id=request_id,
    )


def job_goes_on(request_id: str) -> str:
    """Return what to say where a task ends before its job does."""
    return (
        f"Request {request_id} goes on at the vendor and is paid: the API has no cancel. With durable=True the ledger "
        "keeps it and the next attempt takes it up; the vendor holds its result for one hour after the submission."
    )
