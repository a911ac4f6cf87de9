"""A page that is served, for all tests of a module."""

import pytest

from tests.app.serving import Visitor, need, served, stand_ins


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page with schemes that stand in for real ones; an upload may have 1 MiB."""
    need("fastapi", "app")
    with (
        pytest.MonkeyPatch.context() as patch,
        served(stand_ins(patch), tmp_path_factory.mktemp("t"), 2**20) as page,
    ):
        yield page


@pytest.fixture
def visitor(page):
    """Somebody who just opened the page."""
    visitor = Visitor(page)
    yield visitor
    assert str(page.store.root) not in "".join(visitor.answers)  # no path of this computer was told
    page.sessions.close(visitor.token)
