"""Code to copy: how each kind of client speaks to this service.

``{origin}`` and ``{model}`` stand in the texts where the reader's own values belong: the page fills
them in from its address, the command line from what it started.
"""

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent / "snippets"


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """One piece of code."""

    id: str
    title: str
    about: str
    code: str
    reads_wav: bool = False  # takes samples out of its recording, which must be a WAV file

    def filled(self, *, origin: str, model: str) -> str:
        """The code for one service."""
        return self.code.replace("{origin}", origin).replace("{model}", model)


def _snippet(name: str, title: str, about: str, *, reads_wav: bool = False) -> Snippet:
    code = (_FOLDER / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")
    return Snippet(id=name, title=title, about=about, code=code, reads_wav=reads_wav)


def snippets() -> tuple[Snippet, ...]:
    """In the order in which people are shown them."""
    return (
        _snippet("curl", "curl", "A file from the shell. Any audio or video format."),
        _snippet(
            "openai",
            "Python",
            "The openai package, pointed here: words with their times.",
        ),
        _snippet(
            "deepgram",
            "Python, live",
            "The deepgram-sdk package (7.x), pointed here: text while the sound still arrives.",
            reads_wav=True,
        ),
        _snippet(
            "javascript",
            "JavaScript",
            "Node 20 or newer, without a package. In a browser the file comes from an input.",
        ),
    )
