"""The record of a run that an earlier version began."""

import pytest

from sae_jax.settings import UserError
from sae_jax.storage.run_folder import claim, find_unfinished
from tests.storage.test_run_folder import content, left


def test_settings_that_an_earlier_version_did_not_have_were_what_they_are_by_default(tmp_path):
    left(tmp_path / "run")
    later = {"k_start": 0, "start_std": 0.0}
    now = content(**later)
    assert find_unfinished(tmp_path, now) is None
    assert find_unfinished(tmp_path, now, later) == tmp_path / "run"
    with pytest.raises(ValueError), claim(tmp_path / "run", now, later) as before:
        assert before == content()
        raise ValueError
    for changed, unnamed, words in (
        (now, later | {"start_std": 0.5}, "with start_std 0.5 -> 0; add --start-std 0.5, or choose"),
        (now | {"samples": [[1.0]]}, later | {"k_start": 2}, "with k_start 2 -> 0, samples; repeat python -m"),
        (content(**later | {"rho": 0.3}), later, r"with rho \[0.05 0.1\] -> 0.3; repeat python -m"),
    ):
        with pytest.raises(UserError, match=words), claim(tmp_path / "run", changed, unnamed):
            pass
