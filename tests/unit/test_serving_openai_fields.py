"""No field of the installed OpenAI client passes in silence, and the documentation is the table."""

import inspect
from pathlib import Path

import openai.types.audio as shapes
from openai.resources.audio.transcriptions import Transcriptions
from openai.types.audio import transcription_create_params as params

from serving.api.openai_fields import ANSWERS, BY_NAME, FIELDS, markdown

ROOT = Path(__file__).resolve().parents[2]
_OF_THE_CLIENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


def test_every_field_that_the_client_sends_has_its_line() -> None:
    signature = set(inspect.signature(Transcriptions.create).parameters) - _OF_THE_CLIENT
    typed = set(params.TranscriptionCreateParamsBase.__annotations__) | {"stream"}
    own = {field.name for field in FIELDS if field.own}
    assert signature == typed == {field.name for field in FIELDS} - own
    lists = {
        name
        for name, kind in params.TranscriptionCreateParamsBase.__annotations__.items()
        if "List" in str(kind) or "SequenceNotStr" in str(kind)
    }
    assert lists == {field.name for field in FIELDS if field.many} - own
    assert all(BY_NAME[f"{name}[]"].name == name for name in lists)


def test_every_field_that_the_client_reads_has_its_line() -> None:
    for kind, described in ANSWERS.items():
        assert set(described) == set(getattr(shapes, kind).model_fields), kind


def test_the_documentation_holds_the_table() -> None:
    assert markdown() in (ROOT / "docs" / "openai-fields.md").read_text()
