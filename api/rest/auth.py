"""Who may do what: API keys with scopes, each allowed so many requests a minute."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from api.rest.limits import too_many
from api.rest.parts import Service
from api.rest.problems import Refused
from db.keys import SCOPES
from db.records import ApiKey

_BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key: `Bearer ms_…`")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="header", description="The same key, bare")
REALM = 'Bearer realm="mergesearch"'


def authenticated(
    request: Request,
    service: Service,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
    plain: Annotated[str | None, Security(_HEADER)],
) -> ApiKey:
    """The key that asks; found and counted once a request.

    Raises:
        Refused: there is none, or it asks too often.
    """
    secret = bearer.credentials if bearer else plain
    key = service.store.keys.authenticate(secret) if secret else None
    if key is None:
        wait = service.failures.take(request.client.host if request.client else "unknown")
        raise too_often(wait) if wait else wrong_key() if secret else _no_key()
    wait = service.requests.take(key.prefix)
    if wait:
        most = service.settings.requests_per_minute
        raise too_many(wait, f"the API key {key.prefix} may make {most} requests a minute")
    return key


def require(scope: str) -> Callable[..., ApiKey]:
    """The dependency of a route that needs this scope; it gives the key that asks."""

    def check(key: Annotated[ApiKey, Depends(authenticated)]) -> ApiKey:
        if not may(key, scope):
            has = ", ".join(key.scopes) or "none"
            detail = f"this needs an API key with scope {scope}; the scopes of {key.prefix}: {has}"
            challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
            raise Refused(403, "wrong-scope", detail, headers={"WWW-Authenticate": challenge})
        return key

    return check


def may(key: ApiKey, scope: str) -> bool:
    """Whether the key has the scope; a later one implies those before it."""
    return any(SCOPES.index(has) >= SCOPES.index(scope) for has in key.scopes)


def wrong_key() -> Refused:
    """The refusal of a key that is none."""
    detail = "the API key is unknown, expired or revoked; `mergesearch keys create` makes a new one"
    return Refused(401, "wrong-key", detail, headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'})


def too_often(seconds: float) -> Refused:
    """The refusal of who comes too often without a valid key."""
    return too_many(seconds, "too many requests without a valid API key")


def _no_key() -> Refused:
    detail = "send an API key as `Authorization: Bearer ms_…`; `mergesearch keys create` makes one"
    return Refused(401, "no-key", detail, headers={"WWW-Authenticate": REALM})


MayRead = Annotated[ApiKey, Depends(require("read"))]
MayRun = Annotated[ApiKey, Depends(require("run"))]
