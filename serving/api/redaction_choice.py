"""Which redaction an answer gets: what the tenant's rule says, what the request adds, and who may
see more."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from starlette.requests import HTTPConnection

from serving.api.callers import caller_of
from serving.problems import ApiProblem
from serving.redaction.policy import Mode, RedactionPolicy, UnknownKind, parse_policy
from serving.redaction.transcripts import redact_transcript
from serving.schema import Transcript
from serving.tenants.desk import TenantDesk

FIELD, MODE_FIELD = "redact", "redact_mode"
MODE_NAMES = (*get_args(Mode), "both")


@dataclass(frozen=True, kw_only=True)
class RedactionChoice:
    """The policy of one answer; ``both``: the clear transcript stands beside the redacted one."""

    policy: RedactionPolicy
    both: bool = False


UNREDACTED = RedactionChoice(policy=RedactionPolicy())


def choose_redaction(
    connection: HTTPConnection, asked: Sequence[str], mode: str, *, route: str
) -> RedactionChoice:
    """A request may hide more than its tenant's rule; less needs the scope ``unredacted``.

    Such an answer is an event of the access log.
    """
    caller = caller_of(connection)
    if mode not in ("", *MODE_NAMES):
        raise refused(MODE_FIELD, f"must be one of {', '.join(MODE_NAMES)}")
    shape: Mode = "remove" if (mode or caller.redact_mode) == "remove" else "mask"
    try:
        wanted = parse_policy(asked, mode=shape)
    except UnknownKind as error:
        raise refused(FIELD, error.message.replace("`", "'")) from None
    rule = parse_policy([caller.redact], mode=shape)
    both = mode == "both"
    if both and not (wanted or rule):
        raise refused(MODE_FIELD, "both needs something to redact")
    less = bool(rule) and (both or (bool(asked) and not rule.kinds <= wanted.kinds))
    if less and "unredacted" in caller.scopes:
        desk: TenantDesk = connection.app.state.tenants
        desk.note("unredacted", caller, route=route, scope="unredacted")
        return RedactionChoice(policy=wanted if asked else rule, both=both)
    if (less and not wanted) or (both and "unredacted" not in caller.scopes):
        message = "An answer without this tenant's redaction needs the scope `unredacted`."
        raise ApiProblem(403, message, param=FIELD, code="insufficient_scope")
    kinds = wanted.kinds | rule.kinds
    return RedactionChoice(policy=RedactionPolicy(kinds=kinds, mode=shape), both=both)


def shown_to(connection: HTTPConnection, transcript: Transcript) -> Transcript:
    """A stored transcript as its reader may see it: the tenant's rule holds for what is old too."""
    caller = caller_of(connection)
    if not caller.redact or "unredacted" in caller.scopes:
        return transcript
    shape: Mode = "remove" if caller.redact_mode == "remove" else "mask"
    return redact_transcript(transcript, parse_policy([caller.redact], mode=shape))


def refused(name: str, why: str) -> ApiProblem:
    """400 that names the field."""
    return ApiProblem(400, f"`{name}` {why}.", param=name, code="invalid_value")
