"""A rule that is typed, in a real browser."""

from __future__ import annotations

from conftest import barriers

from toyguide.guidance.formula import as_rule_file

TEXT = "w = 3 [0, 10]; s = 1 [0.1, 5]; D_main + (w - 1) * (D_main - D_weak) * (sigma < s)"


def test_a_rule_is_typed_marked_linked_and_saved(explorer, address, tmp_path):
    explorer.open(address, "?rule=formula&n=128&steps=12").idle()
    page, ends = explorer.page, explorer.ends(2)
    if page.get_by_role("dialog", name="First steps").count():
        page.keyboard.press("Escape")
    box = page.get_by_role("textbox", name="Formula (Shift+Enter applies it)")
    box.fill(TEXT)
    box.press("Shift+Enter")
    explorer.titled(2, "Formula  (w = 3, s = 1)")
    explorer.changed(2, ends)
    explorer.idle()
    assert page.get_by_label("s", exact=True).count()

    ends = explorer.ends(2)
    box.fill(TEXT.replace("D_weak", "D_wek"))
    box.blur()
    alert = page.get_by_role("alert").filter(has_text="did you mean 'D_weak'?")
    alert.wait_for()
    assert alert.locator("mark").inner_text() == "D_wek"
    explorer.idle()
    assert explorer.ends(2) == ends
    assert explorer.title(2).startswith("Formula  (w = 3, s = 1)")
    assert barriers(page) == []

    box.fill(TEXT)
    box.blur()
    alert.wait_for(state="hidden")
    page.wait_for_function("() => location.search.includes('expression=')")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as a rule file").click()
    saved.value.save_as(tmp_path / "rule.py")
    assert (tmp_path / "rule.py").read_text() == as_rule_file(TEXT, "my-rule")
    page.reload()
    explorer.titled(2, "Formula  (w = 3, s = 1)")
    page.get_by_role("button", name="APG-like").click()
    explorer.titled(2, "Formula  (w = 3, eta = 0, r = 0.5)")
