"""Fixtures that several files of tests use."""

import pytest


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """The folder of decoded images for one test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PELLUCID_CACHE", str(folder))
    monkeypatch.delenv("PELLUCID_DATA_CACHE_GB", raising=False)
    return folder / "decoded"
