"""The form's fields for an adopted model: what it cannot honour is refused by name."""

import re

from starlette.datastructures import FormData

from serving.adopted.models import AdoptedModel
from serving.adopted.recognizer import Wish
from serving.api import openai_chunking
from serving.problems import ApiProblem

_PROMPT_CHARACTERS = 4096
_NOT_ITS_OWN = {
    "stream": ("", "false"),
    "include": (),
    "keywords": (),
    "multichannel": ("", "false"),
    openai_chunking.FIELD: ("", "auto"),
}


def wish_of(form: FormData, adopted: AdoptedModel) -> Wish:
    """How the recording is to be read."""
    name = adopted.recognizer.facts.name
    for field, value in form.multi_items():
        plain = field.removesuffix("[]")
        neutral = _NOT_ITS_OWN.get(plain)
        if field in openai_chunking.KEYS or (neutral is not None and value not in neutral):
            shown = f"`{field}` with this value is not supported by the model `{name}`."
            raise ApiProblem(400, shown, param=plain, code="unsupported_parameter")
    prompt = form.get("prompt", "")
    if not isinstance(prompt, str) or len(prompt) > _PROMPT_CHARACTERS:
        message = f"`prompt` must be text of at most {_PROMPT_CHARACTERS} characters."
        raise ApiProblem(400, message, param="prompt", code="invalid_value")
    return Wish(prompt=prompt, languages=_languages(form, adopted))


def _languages(form: FormData, adopted: AdoptedModel) -> tuple[str, ...]:
    """The one that is given, or those of which the model may choose; all are known to it."""
    param = "language" if form.get("language") else "languages"
    if param == "language":
        given = [form["language"]]
    else:
        given = [*form.getlist("languages"), *form.getlist("languages[]")]
    known = adopted.recognizer.engine.languages
    names = []
    for value in given:
        text = value if isinstance(value, str) else ""
        name = re.split("[-_]", text.lower())[0]
        if name in known:
            names.append(name)
    if given and not names:
        some = f"the language `{known[0]}` only" if len(known) == 1 else "no such language"
        raise ApiProblem(
            400,
            f"The model `{adopted.recognizer.facts.name}` knows {some}.",
            param=param,
            code="unsupported_language",
        )
    return tuple(dict.fromkeys(names))
