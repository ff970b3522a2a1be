"""Say what an object store refuses, in one line with the way out.

The libraries behind fsspec each have errors of their own; what they have in common is a code of the
store's (``ExpiredToken``), an HTTP status, or a class of Python's.
"""

from __future__ import annotations

import errno
from typing import Any

from pipeline.errors import UsageError
from pipeline.extras import EXTRAS

_CREDENTIALS = "Nothing is lost: renew the credentials and run again"
_WAYS = {
    "no such bucket": ("Make it, or mend the address", {"NoSuchBucket"}),
    "the credentials have expired": (
        _CREDENTIALS,
        {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"},
    ),
    "the credentials are refused": (
        _CREDENTIALS,
        {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "401"},
    ),
    "there are no credentials": (
        "Name a profile in AWS_PROFILE, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"},
    ),
    "this machine's clock is too far from the store's": (
        "Set it right and run again: nothing is lost",
        {"RequestTimeTooSkewed"},
    ),
    "the bucket is in another region": (
        "Name that in AWS_DEFAULT_REGION",
        {"PermanentRedirect", "AuthorizationHeaderMalformed", "301"},
    ),
    "the store is full": (
        "Make room and run again: nothing is lost",
        {"507", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "StorageFull"},
    ),
    "the store asks to slow down": (
        "Run again later, or with fewer --workers: nothing is lost",
        {"SlowDown", "503", "ServiceUnavailable", "429", "TooManyRequests", "Throttling"},
    ),
    "access denied": (
        "Let these credentials list, read, write and delete there",
        {"AccessDenied", "403", "AllAccessDisabled"},
    ),
    "no answer": (
        "Check the network and the address of the store; run again: nothing is lost",
        {"EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "TimeoutError"},
    ),
}
"""What is said of a refusal: what to do about it, and the codes and names it is known by."""

_BY_CLASS: tuple[tuple[type[OSError], str], ...] = (
    (PermissionError, "access denied"),
    (ConnectionError, "no answer"),
    (TimeoutError, "no answer"),
)
_BY_ERRNO = {
    errno.ENOSPC: "the store is full",
    errno.EDQUOT: "the store is full",
    errno.EBUSY: "the store asks to slow down",
}
_TAKEN = {"PreconditionFailed", "412", "ConditionNotMet", "BlobAlreadyExists"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
_LIBRARIES = ("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs")


def store_says(error: Exception, place: str) -> str:
    """Return the line about what a store refused; empty when the error is none of a store's.

    Args:
        error: as a file system of fsspec raised it.
        place: the URL of what was asked for.

    >>> store_says(PermissionError("Forbidden"), "s3://b/x").partition(":")[2]
    '//b/x: access denied. Let these credentials list, read, write and delete there.'
    """
    if is_taken(error):
        return ""
    chain = [error, *_causes(error)]
    known = {name for one in chain for name in _names(one)}
    said = next((said for said, (_, names) in _WAYS.items() if names & known), "")
    if not said and isinstance(error, OSError):
        said = _BY_ERRNO.get(error.errno or 0, "")
        said = said or next((said for kind, said in _BY_CLASS if isinstance(error, kind)), "")
    if said:
        return f"{place}: {said}. {_WAYS[said][0]}."
    if isinstance(error, (FileNotFoundError, FileExistsError)):
        return ""
    if isinstance(error, OSError) or any(
        type(one).__module__.startswith(_LIBRARIES) for one in chain
    ):
        text = " ".join(str(error).split()) or type(error).__name__
        return f"{place}: the store says: {text[:300]}. Run again once that is mended."
    return ""


def is_taken(error: BaseException) -> bool:
    """Say whether a store refused to create a file because there is one.

    >>> is_taken(FileExistsError("x")), is_taken(PermissionError("x"))
    (True, False)
    """
    names = {name for one in (error, *_causes(error)) for name in _names(one)}
    return isinstance(error, FileExistsError) or bool(names & _TAKEN)


def is_conflict(error: BaseException) -> bool:
    """Say whether a store put off a conditional write, as another one was under way."""
    names = {name for one in (error, *_causes(error)) for name in _names(one)}
    return bool(names & _CONFLICT)


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    while (cause := error.__cause__) is not None and cause not in found:
        found.append(cause)
        error = cause
    return found


def _names(error: BaseException) -> list[str]:
    """Return what an error may be known by: the store's code, the status, the class."""
    response: Any = getattr(error, "response", None)
    found = [type(error).__name__]
    if isinstance(response, dict):  # botocore's
        found.append(str(response.get("Error", {}).get("Code", "")))
        found.append(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
    for name in ("code", "status", "status_code", "error_code"):
        found.append(str(getattr(error, name, "")))
    return found


def lacking(scheme: str, error: ImportError) -> UsageError:
    """Make the error about a scheme whose package is not installed.

    >>> str(lacking("gs", ImportError("Please install gcsfs", name="gcsfs")))
    "gs://: gcsfs is not installed: pip install 'gcsfs'."
    """
    cause = error.__cause__
    package = (cause.name if isinstance(cause, ImportError) else None) or error.name or "fsspec"
    package = package.partition(".")[0]
    extra = next((f"avatar-build[{one}]" for one, names in EXTRAS.items() if package in names), "")
    return UsageError(f"{scheme}://: {package} is not installed: pip install '{extra or package}'.")
