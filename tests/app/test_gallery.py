"""The gallery's folder: written whole or not at all. What is in it, a browser looks at."""

import pytest

from toyguide.cli import main
from toyguide_apps import gallery


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "full"], "'full': expected a new folder"),
        (["-o", "full/old.txt"], "expected a new folder"),
        (["-o", "no/such/site"], "does not exist"),
        (["-o", "site", "--preset", "figure-9"], "'figure-9'"),
        ([], "-o"),
    ],
)
def test_errors_are_one_line_and_change_nothing(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.txt").write_text("old")
    assert main(["gallery", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "old.txt"]


def test_what_fails_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("on the way")

    monkeypatch.setattr(gallery, "recorded", fail)
    with pytest.raises(RuntimeError, match="on the way"):
        gallery.write_gallery(tmp_path / "site", ["two-gaussians"])
    assert list(tmp_path.iterdir()) == []
