"""The list of rules in a browser: opened, searched, walked through with the keys, and what cannot be chosen."""

import re


def opened(page):
    page.get_by_role("button", name=re.compile("^Rule [A-Z][^ ]* ?")).last.click()
    box = page.get_by_role("combobox", name="Search the rules")
    box.wait_for()
    return box


def test_a_rule_is_found_and_chosen_with_the_keys(explorer, address):
    page = explorer.page
    explorer.open(address, "?n=128&steps=8").idle()
    box = opened(page)
    box.fill("2410.02416")  # the paper's number
    page.get_by_role("option", name=re.compile("Adaptive projected guidance")).wait_for()
    box.fill("guidance cfg")
    assert page.locator("[role=option].active code").inner_text() != ""
    page.keyboard.press("ArrowDown")
    second = page.locator("[role=option].active code").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"rule={re.escape(second)}"), timeout=90_000)
    box.wait_for(state="hidden")
    box = opened(page)
    box.fill("nothing has these words")
    page.get_by_text("No rule has these words.").wait_for()
    page.keyboard.press("Escape")
    box.wait_for(state="hidden")
    explorer.choose_rule("cfg")
    page.wait_for_url(re.compile("rule=cfg(&|$)"), timeout=90_000)


def test_what_cannot_run_is_greyed_and_stays_unchosen(explorer, address):
    page = explorer.page
    explorer.open(address, "?rule=cfg&label=union").idle()
    opened(page).fill("elucd")
    option = page.get_by_role("option", name=re.compile("elucd"))
    option.get_by_text("it needs one class").wait_for(timeout=90_000)
    assert option.get_attribute("aria-disabled") == "true"
    page.keyboard.press("Enter")
    assert "rule=cfg" in page.url
    assert option.is_visible()
