"""The menu of schedules in a real browser: chosen, drawn, in the link, taken back, and grey where nothing varies."""

import re

PATIENCE = 90_000


def test_a_schedule_is_chosen_and_taken_back(explorer, address):
    explorer.open(address, "?n=128&steps=8&bands=none&rule=cfg&w=3").idle()
    page, picture = explorer.page, explorer.page.get_by_role("img", name="w from")
    assert picture.count() == 0
    constant = explorer.ends(2)
    explorer.choose("Schedule of w", "rising line")
    page.wait_for_url(re.compile("schedule=linear"), timeout=PATIENCE)
    explorer.idle()
    assert picture.get_attribute("aria-label") == "w from 1 to 5, over σ from 5 to 0.002"
    assert explorer.ends(2) != constant
    page.go_back()
    page.wait_for_url(lambda url: "schedule" not in url, timeout=PATIENCE)
    explorer.idle()
    picture.wait_for(state="detached", timeout=PATIENCE)
    assert explorer.ends(2) == constant

    menu = page.get_by_role("combobox", name="Schedule of w")
    page.get_by_role("group").get_by_role("button", name="A", exact=True).first.click()
    page.get_by_text("No schedule for this rule: it has no weight with an unguided value.").wait_for(timeout=PATIENCE)
    assert menu.get_attribute("aria-disabled") == "true"
