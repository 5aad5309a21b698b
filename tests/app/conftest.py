"""What several tests of the app share."""

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
