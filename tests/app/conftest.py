"""What several tests of the app share."""

import param
import pytest

import toyguide as tg
from toyguide.guidance.base import DEFINED


@pytest.fixture
def add_rule():
    """Rules that a test defines are forgotten after it."""
    before = dict(DEFINED)
    yield tg.register
    DEFINED.clear()
    DEFINED.update(before)


@pytest.fixture
def sent():
    """Notes what an explorer sends its stage: pairs of a part's name and its value, in order."""

    def note(explorer):
        parts = []
        stage = explorer.stage.stage
        names = [name for name in stage.param if isinstance(stage.param[name], param.Dict)]
        stage.param.watch(lambda *events: parts.extend((e.name, e.new) for e in events), names)
        return parts

    return note
