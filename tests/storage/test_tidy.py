"""What a process that was killed at the end of a run has left in its folder."""

import pytest

from sae_jax import UserError
from sae_jax.storage.run_folder import check_claimable, claim, lock_of, unfinished_record
from tests.storage.test_run_folder import content


@pytest.mark.parametrize("begin", [check_claimable, unfinished_record])
def test_a_finished_run_that_is_begun_again_is_rid_of_what_a_killed_process_left(begin, tmp_path):
    with claim(tmp_path, content()):
        (tmp_path / "results.nc").touch()
    (tmp_path / ".removed" / "checkpoints").mkdir(parents=True)
    (tmp_path / ".lock").touch()
    (tmp_path / ".results.nc.partial").touch()
    with lock_of(tmp_path), pytest.raises(UserError):
        begin(tmp_path)
    (tmp_path / ".lock").touch()
    assert (tmp_path / ".removed").exists()
    with pytest.raises(UserError, match="finished"):
        begin(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "results.nc"]
