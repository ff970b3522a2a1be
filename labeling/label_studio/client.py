"""The only HTTP of this package: what we ask of a Label Studio server, over httpx.

A token is never part of an error or a log line. Redirects are not followed, no cookie is kept and
no proxy is asked, so it is sent to the named server alone. What may be asked twice without harm is
asked again when the connection breaks; an import is not, since nobody knows whether it arrived:
``push`` looks at the server instead.

label-studio-sdk 2.1.2 was tried first: it takes a 404 in the middle of a list for the end, so that
``pull`` would miss answers for good, rewrites values (``"2"`` becomes 2, a time loses its text),
and does not renew an access token that is refused.
"""

from __future__ import annotations

import itertools
import json
import os
import ssl
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import AvatarBuildError, UsageError
from pipeline.words import short

if TYPE_CHECKING:
    from httpx import Response

TOKEN_VARIABLE = "AVATAR_LABEL_TOKEN"

_TRIES = 4
_ACCESS_S = 240.0
"""An access token lives 300 s at the server; a new one is fetched a minute before."""
_PAGE = 500
_PASSING = {429, 502, 503, 504}

_PROJECT: dict[str, type | UnionType] = {
    "id": int,
    "title": str,
    "label_config": str,
    "created_at": str,
}
_COUNTS: dict[str, type | UnionType] = {
    "task_number": int | None,
    "finished_task_number": int | None,
    "skipped_annotations_number": int | None,
}
_COLUMNS: dict[str, type | UnionType] = {
    "overlap": int,
    "total_annotations": int,
    "is_labeled": bool,
    "annotators": list,
}
"""What the fields that are read of the server's own objects must be."""


class LabelServerError(AvatarBuildError):
    """The server did not answer, or not as asked."""


class MissingError(LabelServerError):
    """There is no such thing at the server."""


def read_token(file: Path, environment: Mapping[str, str] = os.environ) -> str:
    """Return the token of the environment, else of a file only its owner may read.

    Raises:
        UsageError: neither is there, or others may read the file.
    """
    if token := environment.get(TOKEN_VARIABLE, "").strip():
        return token
    try:
        mode = file.stat().st_mode
        token = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"{file}: no token ({error.strerror}). Set {TOKEN_VARIABLE}, write the token of your"
            " account page into that file, or start a server of ours: avatar-build label serve."
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(f"{file}: others can read this token. Run: chmod 600 {file}")
    if not token:
        raise UsageError(f"{file}: empty. Write the token of your account page into it.")
    return token


def is_answering(url: str) -> bool:
    """Say whether anything takes requests at an address, whatever it answers and when."""
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=5, trust_env=False)
    except httpx.RequestError as error:
        return isinstance(error, httpx.TimeoutException)
    return True


class LabelStudio:
    """A Label Studio server, with either kind of its tokens.

    Args:
        url: such as ``http://127.0.0.1:8080``; a path before the API is kept.
        token: a legacy token (40 hex digits) or a personal access token.
        timeout_s: seconds without an answer before a connection is given up.
        sleep: waits between two tries.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_s: float = 300.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        import httpx

        try:
            parts = urlsplit(url)
            # Plain HTTP is often Django's own server, which writes head and body apart: on a kept
            # connection each answer waits 40 ms for an acknowledgement. A new one costs 1 ms.
            kept = 1 if parts.scheme == "https" else 0
            self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Accept": "application/json"},
                timeout=timeout_s,
                limits=httpx.Limits(max_keepalive_connections=kept),
                trust_env=False,  # no proxy
                verify=ssl.create_default_context(),  # the authorities this machine trusts
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
            known = parts.scheme in ("http", "https") and parts.hostname
        except (ValueError, httpx.InvalidURL):
            known = None
        if not known:
            shown = url.rpartition("@")[2]  # a password stands before it
            raise UsageError(f"{shown!r}: not an address. Write it as http://127.0.0.1:8080.")
        if parts.username or parts.password:
            raise UsageError("The server's address holds a password; use a token instead.")
        if any(ord(sign) < 33 or ord(sign) > 126 for sign in token):
            raise UsageError("The token holds spaces or odd signs; copy it again, without a name.")
        weakref.finalize(self, self._http.close)
        self._token = token
        self._personal = token.count(".") == 2  # a JWT; the other kind is one word
        self._access = ""
        self._access_until = 0.0
        self._sleep = sleep
        self._clock = clock

    def __repr__(self) -> str:
        return f"LabelStudio({self.url!r})"

    def call(
        self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """Ask for one thing and return the answer as Python values, None when it is empty.

        Raises:
            UsageError: a wrong address or a refused token.
            MissingError: 404.
            LabelServerError: any other answer that is no success, or none at all.
        """
        data = None if body is None else json.dumps(body).encode()
        answer = self._ask(method, path, data, self._authorization(), query)
        if answer.status_code == 401 and self._personal:
            self._access = ""  # it may have ended since we last looked
            answer = self._ask(method, path, data, self._authorization(), query)
        return self._checked(method, path, answer)

    def check(self) -> str:
        """Return the server's version, once address and token are known to be right."""
        version = self.call("GET", "/api/version")
        if not isinstance(version, dict) or "label-studio-os-package" not in version:
            raise UsageError(f"{self.url}: answers, but not as a Label Studio does.")
        self.call("GET", "/api/current-user/whoami")
        return str(version["label-studio-os-package"].get("version", ""))

    # Projects

    def find_projects(self, title: str) -> list[dict[str, Any]]:
        """Return the projects of exactly this title, oldest first."""
        found: list[dict[str, Any]] = []
        for page in itertools.count(1):
            query = {"title": title, "page": page, "page_size": 100}
            answer = self.call("GET", "/api/projects", query=query)
            page_of = self._held(answer, "/api/projects", results=list)["results"]
            rows = self._rows(page_of, "/api/projects", **_PROJECT)
            found += [project for project in rows if project["title"] == title]
            if not answer.get("next"):
                break
        return sorted(found, key=lambda project: int(project["id"]))

    def create_project(self, **settings: Any) -> dict[str, Any]:
        """Make a project and return it."""
        made = self.call("POST", "/api/projects", settings)
        return self._held(made, "/api/projects", **_PROJECT)

    def project(self, project: int) -> dict[str, Any]:
        """Return a project, with what the server counts of it."""
        path = f"/api/projects/{project}"
        return self._held(self.call("GET", path), path, **_COUNTS)

    def add_local_files(self, project: int, folder: str) -> None:
        """Let the project's members see the files below ``folder`` of the server's own disk."""
        path = "/api/storages/localfiles"
        storages = self._rows(self.call("GET", path, query={"project": project}), path, path=str)
        if any(storage["path"] == folder for storage in storages):
            return
        body = {
            "project": project,
            "title": "avatar-build media",
            "path": folder,
            "use_blob_urls": True,
            "regex_filter": ".*",
        }
        self.call("POST", path, body)

    def hide_columns(self, project: int, unread: Iterable[str], names: Iterable[str]) -> None:
        """Give a new project the first view of its list of tasks, without some columns.

        Args:
            project: that has no view yet; Label Studio makes one for whoever opens the list first.
            unread: parts of the tasks' data that nobody can read there, such as HTML.
            names: parts that are shown in the list and not beside an open task.
        """
        answer = self._held(
            self.call("GET", "/api/dm/columns", query={"project": project}),
            "/api/dm/columns",
            columns=list,
        )
        # What Label Studio hides by itself it hides no more in a view that says what is hidden.
        hidden: dict[str, list[str]] = {}
        for where, parts in (("explore", unread), ("labeling", {*unread, *names})):
            hidden[where] = [f"tasks:data.{part}" for part in sorted(parts)]
            for column in answer["columns"]:
                if column.get("visibility_defaults", {}).get(where) is False:
                    hidden[where].append(f"tasks:{column['id']}")
        data = {"title": "Default", "target": "tasks", "type": "list", "hiddenColumns": hidden}
        self.call("POST", "/api/dm/views", {"project": project, "data": data})

    def connect_backend(self, project: int, url: str, title: str) -> None:
        """Let the project's annotators ask the model at ``url``; the one of that title moves there.

        The server asks the model at once whether it is well.
        """
        body = {
            "project": project,
            "url": url,
            "title": title,
            "is_interactive": True,
            "auth_method": "NONE",
        }
        answer = self.call("GET", "/api/ml", query={"project": project})
        known = self._rows(answer, "/api/ml", id=int, title=str)
        ours = [backend["id"] for backend in known if backend["title"] == title]
        method, path = ("PATCH", f"/api/ml/{ours[0]}") if ours else ("POST", "/api/ml")
        self.call(method, path, body)

    # Tasks

    def tasks(self, project: int, since: str = "") -> Iterator[dict[str, Any]]:
        """Yield tasks with their answers, by id; with ``since`` (ISO 8601), those changed later."""
        if not since:
            return self._pages(_whole(project))
        at = datetime.fromisoformat(since).astimezone(UTC)
        value = at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # the only form it reads
        return self._pages(_whole(project) | _where("updated_at", "greater", "Datetime", value))

    def tasks_of(
        self, project: int, name: str, column: str = "frame_id"
    ) -> Iterator[dict[str, Any]]:
        """Yield the tasks of one frame, or, by their ``clip_id``, those of a clip."""
        return self._pages(_whole(project) | _where(f"data.{column}", "equal", "String", name))

    def task_columns(self, project: int, *columns: str) -> Iterator[dict[str, Any]]:
        """Yield of every task only what is asked for: a tenth of the bytes."""
        return self._pages(_columns(project, columns), columns)

    def shared_tasks(self, project: int) -> Iterator[dict[str, Any]]:
        """Yield the tasks that several people are to answer: ``overlap`` and answers so far."""
        columns = "id", "overlap", "total_annotations", "is_labeled"
        several = _where("overlap", "greater", "Number", 1)
        return self._pages(_columns(project, columns) | several, columns)

    def _pages(
        self, query: Mapping[str, Any], columns: Sequence[str] = ()
    ) -> Iterator[dict[str, Any]]:
        fields = {name: _COLUMNS[name] for name in columns if name in _COLUMNS}
        seen = 0
        for page in itertools.count(1):
            answer = self.call("GET", "/api/tasks", query={**query, "page": page})
            total = self._held(answer, "/api/tasks", tasks=list, total=int)["total"]
            tasks = self._rows(answer["tasks"], "/api/tasks", id=int, **fields)
            yield from tasks
            seen += len(tasks)
            if seen >= total:
                return
            if not tasks:
                raise self._strange("/api/tasks", f"page {page} is empty, {seen} of {total} read")

    def update_task(self, task: int, **changes: Any) -> None:
        """Change fields of a task."""
        self.call("PATCH", f"/api/tasks/{task}", changes)

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> int:
        """Add tasks with their predictions; return how many arrived."""
        path = f"/api/projects/{project}/import"
        answer = self._held(self.call("POST", path, list(tasks)), path, task_count=int)
        return int(answer["task_count"])

    def delete_task(self, task: int) -> None:
        """Remove a task; no error when it is gone already."""
        with suppress(MissingError):
            self.call("DELETE", f"/api/tasks/{task}")

    def set_prediction(
        self, task: Mapping[str, Any], result: Sequence[Mapping[str, Any]], model_version: str
    ) -> None:
        """Make a result what the next annotator of a task starts from."""
        body = {"task": task["id"], "result": list(result), "model_version": model_version}
        there = f"{task['predictions'][0]['id']}/" if task["predictions"] else ""
        self.call("PATCH" if there else "POST", f"/api/predictions/{there}", body)

    def annotation(self, annotation: int) -> dict[str, Any] | None:
        """Return an answer; none when it is not there."""
        path = f"/api/annotations/{annotation}/"
        with suppress(MissingError):
            return self._held(self.call("GET", path), path)
        return None

    def delete_annotation(self, annotation: int) -> None:
        """Remove an answer; no error when it is gone already."""
        with suppress(MissingError):
            self.call("DELETE", f"/api/annotations/{annotation}/")

    def task_link(self, project: int, task: int) -> str:
        """Return the address where a person opens the task."""
        return f"{self.url}/projects/{project}/data?task={task}"

    def _rows(self, rows: Any, path: str, /, **fields: type | UnionType) -> list[dict[str, Any]]:
        """Return a list of things, once all are known to have these fields."""
        if not isinstance(rows, list):
            raise self._strange(path, f"{json_short(rows)} for a list")
        return [self._held(row, path, **fields) for row in rows]

    def _held(self, raw: Any, path: str, /, **fields: type | UnionType) -> dict[str, Any]:
        """Return an object, once it is known to have these fields."""
        if not isinstance(raw, dict):
            raise self._strange(path, f"{json_short(raw)} for an object")
        for key, kind in fields.items():
            value = raw.get(key)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise self._strange(path, f"{key} of number {raw.get('id')} is {json_short(value)}")
        return raw

    def _strange(self, path: str, what: str) -> LabelServerError:
        return LabelServerError(
            f"{self.url}: {path}: answers, but not as a Label Studio does ({what})."
        )

    # One request

    def _authorization(self) -> str:
        if not self._personal:
            return f"Token {self._token}"
        if not self._access or self._clock() >= self._access_until:
            path, body = "/api/token/refresh/", json.dumps({"refresh": self._token}).encode()
            # It changes nothing at the server, so it may be asked again.
            answer = self._ask("POST", path, body, again=True)
            if answer.status_code in (400, 401):
                raise UsageError(_refused(self.url))
            found = self._checked("POST", path, answer)
            self._access = self._held(found, path, access=str)["access"]
            self._access_until = self._clock() + _ACCESS_S
        return f"Bearer {self._access}"

    def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None,
        authorization: str = "",
        query: Mapping[str, Any] | None = None,
        again: bool = False,
    ) -> Response:
        import httpx

        headers = {"Authorization": authorization} if authorization else {}
        if data is not None:
            headers["Content-Type"] = "application/json"
        reason = ""
        for attempt in range(_TRIES if again or method != "POST" else 1):
            if attempt:
                self._sleep(2.0 ** (attempt - 1))
            try:
                sent = self._http.request(method, path, params=query, content=data, headers=headers)
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
                continue
            if sent.status_code not in _PASSING:
                return sent
            reason = f"status {sent.status_code}"
        advice = "Is it running? Then run the same command again: nothing is doubled."
        raise LabelServerError(f"{self.url}: no answer to {method} ({reason}). {advice}")

    def _checked(self, method: str, path: str, answer: Response) -> Any:
        status = answer.status_code
        where = f"{self.url}: {method} {path}"
        if status == 401:
            raise UsageError(_refused(self.url))
        if 300 <= status < 400:
            raise UsageError(f"{where}: sent elsewhere ({status}). Use the server's own address.")
        if status == 404:
            raise MissingError(f"{where}: not there (404). Is the address a Label Studio's?")
        if not 200 <= status < 300:
            raise LabelServerError(f"{where}: {status}: {_reason(answer.content)}")
        if not answer.content:
            return None
        try:
            return json.loads(answer.content)
        except ValueError as error:
            raise UsageError(f"{where}: answers, but not as a Label Studio does.") from error


def _whole(project: int) -> dict[str, Any]:
    return {"project": project, "fields": "all", "page_size": _PAGE}


def _where(column: str, operator: str, kind: str, value: object) -> dict[str, str]:
    only = {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
    filters = {"conjunction": "and", "items": [only]}
    return {"query": json.dumps({"filters": filters, "ordering": ["tasks:id"]})}


def _columns(project: int, columns: Sequence[str]) -> dict[str, Any]:
    # Asked for less than all, the server answers as if there were no annotators.
    fields = "all" if "annotators" in columns else "task_only"
    return {**_whole(project), "fields": fields, "include": ",".join(columns)}


def json_short(value: object) -> str:
    """Show a value of the server's in an error: one line of ASCII, not long."""
    return "null" if value is None else short(value, 60)


def _refused(url: str) -> str:
    return (
        f"{url}: the token was refused. Take a new one from Account & Settings there; a legacy"
        " token must be allowed by the organization."
    )


def _reason(answer: bytes) -> str:
    """Return the server's own words, on one line."""
    try:
        found = json.loads(answer)
    except ValueError:
        return "no reason given"
    if isinstance(found, dict):
        found = found.get("validation_errors") or found.get("detail") or found
    return " ".join(str(found).split())[:300]
