"""What a caller may ask for, and who is speaking: checks that HTTP and WebSocket share."""

import re

from starlette.requests import HTTPConnection

from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.tenants.caller import ANYBODY, SCOPE_KEY, Caller

SPEAKER_HEADER = "x-auricle-speaker"
SPEAKER_QUERY = "speaker"
_PSEUDONYM = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


def caller_of(connection: HTTPConnection) -> Caller:
    """On whose behalf the request runs."""
    caller = connection.scope.get(SCOPE_KEY, ANYBODY)
    assert isinstance(caller, Caller)
    return caller


def require_model(name: str, runtime: Runtime) -> None:
    """The model's own name, ``name@version``, or a name that the service was started with.

    An alias is never taken on trust: the caller of ``auricle@staging`` must not get an answer of
    whatever happens to be loaded.
    """
    if not name:
        raise ApiProblem(
            400, "You must provide a model.", param="model", code="missing_required_parameter"
        )
    if runtime.adopted.find(name) is not None:
        raise ApiProblem(
            400,
            f"The model `{name}` is an adopted one: it takes whole recordings at "
            "/v1/audio/transcriptions, and neither live streams nor jobs.",
            param="model",
            code="unsupported_model",
        )
    facts = runtime.recognizer.facts
    own = facts.name
    if name in (own, f"{own}@{facts.version}", *runtime.settings.model_aliases):
        return
    raise ApiProblem(
        404,
        f"The model `{name[:80]}` does not exist; this service runs `{own}@{facts.version}`.",
        param="model",
        code="model_not_found",
    )


def require_language(language: str, runtime: Runtime) -> None:
    """Empty, or the model's language with any region."""
    own = runtime.recognizer.config.language
    if language and re.split("[-_]", language.lower())[0] != own:
        raise ApiProblem(
            400,
            f"This model knows the language `{own}` only.",
            param="language",
            code="unsupported_language",
        )


def speaker_of(connection: HTTPConnection) -> str | None:
    """The speaker's pseudonym from header or query; it is looked up and never stored or logged.

    A process knows the priors of one tenant: whoever belongs to another starts cold, and does not
    even learn whether such a speaker is known.
    """
    given = connection.headers.get(SPEAKER_HEADER) or connection.query_params.get(SPEAKER_QUERY)
    if not given:
        return None
    if not _PSEUDONYM.fullmatch(given):
        raise ApiProblem(
            400,
            "The speaker must be a pseudonym of at most 128 letters, digits and . _ : @ -",
            param="speaker",
            code="invalid_value",
        )
    runtime: Runtime = connection.app.state.runtime
    return given if caller_of(connection).tenant == runtime.settings.tenant else None
