"""Real accounts at a real Label Studio."""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from labeling.label_studio.client import LabelServerError, LabelStudio


@dataclass
class Person:
    """Somebody with an account, through the API with a personal token."""

    number: int
    api: LabelStudio

    def next_task(self, project: int) -> int | None:
        """What the server offers this person; none when there is nothing left."""
        try:
            return int(self.api.call("GET", f"/api/projects/{project}/next")["id"])
        except LabelServerError:
            return None

    def answer(self, task: int, result: list[Any], **more: Any) -> dict[str, Any]:
        """Submit."""
        body = {"result": result, "lead_time": 5.0, **more}
        return dict(self.api.call("POST", f"/api/tasks/{task}/annotations/", body))


def sign_up(owner: LabelStudio, email: str) -> Person:
    """Make an account as a person does, by the owner's invitation; the API cannot."""
    invitation = owner.call("GET", "/api/invite")["token"]
    session = _Session(owner.url)
    page = session.ask("GET", f"/user/signup/?token={invitation}")
    found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    assert found is not None, page[:500]
    form = {"email": email, "password": "a-long-password-1", "csrfmiddlewaretoken": found[1]}
    session.ask("POST", f"/user/signup/?token={invitation}", urlencode(form))
    token = json.loads(session.ask("POST", "/api/token/", "{}", "application/json"))["token"]
    api = LabelStudio(owner.url, token)
    return Person(int(api.call("GET", "/api/current-user/whoami")["id"]), api)


class _Session:
    """As much of a browser as signing up takes."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._cookies: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        body: str | None = None,
        kind: str = "application/x-www-form-urlencoded",
    ) -> str:
        where = urlsplit(self._url)
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
            "Content-Type": kind,
            "Referer": self._url,
            "X-CSRFToken": self._cookies.get("csrftoken", ""),
        }
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie") or []:
            for name, morsel in SimpleCookie(line).items():
                self._cookies[name] = morsel.value
        connection.close()
        assert answer.status < 400, text[:500]
        return text
