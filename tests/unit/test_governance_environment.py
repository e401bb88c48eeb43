import subprocess
from pathlib import Path

import pytest

from governance.environment import describe


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_every_entry_is_text_and_the_processor_is_named(tmp_path: Path) -> None:
    facts = describe(tmp_path)
    assert all(isinstance(value, str) for value in facts.values())
    assert facts["cpu"] and int(facts["cores"]) >= 1 and facts["python"].startswith("3.")


def test_commit_and_local_changes_are_told(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    clean = describe(tmp_path)
    assert len(clean["git_commit"]) == 40 and clean["git_dirty"] == "false"
    (tmp_path / "a").write_text("2")
    dirty = describe(tmp_path)
    assert dirty["git_commit"] == clean["git_commit"] and dirty["git_dirty"] == "true"


def test_without_a_checkout_or_git_the_commit_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    outside = describe(tmp_path)
    assert (outside["git_commit"], outside["git_dirty"]) == ("unknown", "unknown")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe(tmp_path)["git_commit"] == "unknown"
