import pytest

from tests.model.each_kind import write_bert


@pytest.fixture(scope="session")
def bert(tmp_path_factory):
    """A folder with a tiny random BERT."""
    return write_bert(tmp_path_factory.mktemp("bert"))
