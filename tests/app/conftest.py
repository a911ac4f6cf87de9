"""A page that is served, for all tests of it."""

import pytest

from tests.app.serving import need, serving


@pytest.fixture(scope="module")  # not longer: an idle server takes a twentieth of a core
def served(tmp_path_factory):
    """(address, process, file of what it printed, folder of its temporary files)."""
    need("gradio", "app")
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--upload_limit=4") as (address, process, said):
        yield address, process, said, folder
