"""A page that is served, for all tests of it."""

import pytest


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """(address, process, file with what it has said, folder of its temporary files)."""
    from tests.app.browser import serving

    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--upload_limit=4") as (address, process, said):
        yield address, process, said, folder
