"""What several tests of the app share."""

import pytest

import toyguide as tg


@pytest.fixture
def add_rule(monkeypatch):
    """Publishes a rule class for one test; afterwards it is no rule any more."""

    def add(cls):
        monkeypatch.setitem(tg.rules(), cls.key, cls)
        added.append(cls)
        return cls

    added = []
    yield add
    for cls in added:
        cls.key = ""
