"""What a run keeps, and what it goes on from."""

import contextlib
import functools
import threading

import jax
import numpy as np
import pytest

from sae_jax import UserError
from sae_jax.storage import checkpoints
from sae_jax.storage.checkpoints import Position, read_position
from sae_jax.sweeps import recovery as keepers
from sae_jax.sweeps.pace import CALL_SECONDS, ENDLESS, call_size
from sae_jax.sweeps.recovery import (
    next_call,
    position_of,
    read_finished,
    read_state,
    save_finished,
    save_state,
    saving,
    summary,
    wait,
)

saved = functools.partial(read_position, run="")
SIZES = {"cells_per_block": 2, "blocks_per_group": 1}
EXPECTED = {"value": jax.ShapeDtypeStruct((2,), np.float64)}


def state(step, first=0):
    return Position(0, first, **SIZES, step=step, points=0, finished=False)


def finished(first):
    return state(100, first)._replace(finished=True)


def value(number):
    return {"value": np.array([number, -number], float)}


@pytest.fixture
def kept(tmp_path):
    """A run with three states saved, one after another, and a finished chunk before them."""
    with saving(tmp_path) as made:
        save_finished(made, finished(0), value(0.5))
        for step in (10, 20, 30):
            save_state(made, state(step, first=4), value(step))
        wait(made)
    return tmp_path


@pytest.fixture
def again():
    """Looks at what was kept as a later process does: f(folder) -> (its Recovery, the lines that it says)."""
    with contextlib.ExitStack() as stack:

        def look(folder):
            lines = []
            return stack.enter_context(saving(folder, say=lines.append)), lines

        yield look


def test_the_last_two_states_are_kept(kept):
    assert sorted(path.name for path in (kept / "states").iterdir()) == ["000000001", "000000002"]
    assert [saved(path).step for path in sorted((kept / "states").iterdir())] == [20, 30]


def test_a_later_process_goes_on_from_the_last_state_and_from_finished_chunks(kept, again):
    made, lines = again(kept)
    assert summary(made) == "1 finished chunk, another at step 30" and not lines
    assert position_of(made, 0, 0) == finished(0) and position_of(made, 0, 2) is None
    assert position_of(made, 0, 4) == state(30, first=4)
    assert read_state(made, position_of(made, 0, 4), EXPECTED)["value"].tolist() == [30, -30]
    assert read_finished(made, position_of(made, 0, 0), EXPECTED)["value"].tolist() == [0.5, -0.5]
    assert position_of(made, 1, 4) is None
    save_state(made, state(40, first=4), value(40))
    wait(made)
    assert [saved(path).step for path in sorted((kept / "states").iterdir())] == [30, 40]


def broken(path):
    (path / "arrays" / "_METADATA").write_text("")


def test_a_broken_state_is_named_and_the_one_before_it_is_used(kept, again):
    broken(kept / "states" / "000000002")
    made, lines = again(kept)
    assert lines == [
        f"warning: a checkpoint must be as it was saved: got {kept}/states/000000002: arrays/_METADATA has changed; "
        "the one before it is used"
    ]
    assert read_state(made, position_of(made, 0, 4), EXPECTED)["value"].tolist() == [20, -20]


def test_two_broken_states_are_an_error_and_nothing_is_deleted(kept, again):
    for name in ("000000001", "000000002"):
        broken(kept / "states" / name)
    before = sorted(kept.rglob("*"))
    with pytest.raises(
        UserError, match=r"must be as it was saved: got .*000000001: .*; .*000000002: .* put a copy back"
    ):
        again(kept)
    assert sorted(kept.rglob("*")) == before


def test_a_broken_finished_chunk_is_named_and_trained_again(kept, again):
    broken(kept / "lanes" / "000-000000000")
    made, lines = again(kept)
    assert position_of(made, 0, 0) is None
    assert len(lines) == 1 and "000-000000000: arrays/_METADATA has changed; they are trained again" in lines[0]
    assert save_finished(made, finished(0), value(1))["value"].tolist() == [1, -1]
    wait(made)
    assert position_of(made, 0, 0) == finished(0)
    assert read_finished(made, finished(0), EXPECTED)["value"].tolist() == [1, -1]


@pytest.mark.parametrize("name", ["states", "lanes"])
def test_no_link_leads_out_of_a_runs_folder(name, kept, tmp_path_factory, again):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (kept / name).rename(elsewhere / name)
    (kept / name).symlink_to(elsewhere / name)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(UserError, match=rf"must lie in the run's own folder: got .*/{name}, a link; remove it"):
        again(kept)
    assert sorted(elsewhere.rglob("*")) == before


def test_what_was_being_written_when_a_process_ended_is_taken_away(kept, again):
    (kept / "states" / "000000003.partial").mkdir()
    made, lines = again(kept)
    assert made.state[1].step == 30 and not lines
    assert len(list((kept / "states").iterdir())) == 2


def test_a_write_that_fails_ends_the_run_and_leaves_the_states_before(kept, monkeypatch, again):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    made, _ = again(kept)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.os, "replace", full)
        save_state(made, state(40, first=4), value(40))
        with pytest.raises(UserError, match="No space left on device"):
            wait(made)
    assert again(kept)[0].state[1].step == 30


def test_an_old_state_that_cannot_be_taken_away_ends_the_run(kept, monkeypatch, again):
    def vanished(path, strict):
        raise FileNotFoundError(2, "No such file or directory", path)

    made, _ = again(kept)
    monkeypatch.setattr(keepers, "remove_tree", vanished)
    save_state(made, state(40, first=4), value(40))
    with pytest.raises(UserError, match=r"must be writable: got .*states: No such file or directory"):
        wait(made)


def test_a_broken_state_is_taken_away_once_there_is_a_good_one_again(kept, again):
    broken(kept / "states" / "000000002")
    made, _ = again(kept)
    save_state(made, state(40, first=4), value(40))
    wait(made)
    assert [saved(path).step for path in sorted((kept / "states").iterdir())] == [20, 40]


def test_what_others_have_put_there_is_left_alone(kept, again):
    (kept / "states" / "notes").write_text("mine")
    (kept / "states" / "000000002.bak").mkdir()
    (kept / "states" / "link.partial").symlink_to(kept / "states" / "notes")
    made, lines = again(kept)
    assert made.state[1].step == 30 and not lines
    save_state(made, state(40, first=4), value(40))
    wait(made)
    assert (kept / "states" / "notes").read_text() == "mine" and (kept / "states" / "000000002.bak").exists()


@pytest.mark.parametrize("other", [state(100, first=2)._replace(finished=True), state(100)])
def test_a_checkpoint_of_other_lanes_or_of_another_run_is_not_taken_for_theirs(kept, other, again):
    checkpoints.write_checkpoint(kept / "lanes" / "000-000000000", "", other, value(7))
    made, lines = again(kept)
    assert position_of(made, 0, 0) is None and "it is one of other lanes; they are trained again" in lines[0]
    with pytest.raises(UserError, match="it belongs to another run"), saving(kept, run="another"):
        pass


def test_training_goes_on_while_a_state_is_written(tmp_path, monkeypatch):
    writing, go_on = threading.Event(), threading.Event()

    def slow(*_):
        writing.set()
        assert go_on.wait(30)

    monkeypatch.setattr("sae_jax.sweeps.recovery.write_checkpoint", slow)
    with saving(tmp_path, every=0) as made:
        assert next_call(made, 1, None, 0.0) == (1, True, True, False)
        save_state(made, state(1), value(1))
        assert writing.wait(30)
        assert next_call(made, 1, 0.1, 0.0) == (4, False, False, False)  # One at a time.
        go_on.set()
        wait(made)
        assert next_call(made, 1, 0.1, 0.0) == (4, False, True, False)


def test_steps_at_a_time_are_as_many_as_a_second_takes():
    def steps(seconds, times):
        """Steps of several calls, one after another, after which a step was found to take so long."""
        found = [call_size(1, None)[0]]
        for _ in range(times):
            found.append(call_size(found[-1], seconds)[0])
        return found[1:]

    assert call_size(1, None) == (1, True)
    # Ever more of them, as long as there is time for more.
    assert steps(CALL_SECONDS / 100, 5) == [4, 16, 64, 100, 100]
    assert call_size(100, CALL_SECONDS / 7)[0] == 7
    assert call_size(100, CALL_SECONDS * 10) == (1, False)
    assert 10**8 < steps(0.0, 20)[-1] <= ENDLESS
    assert next_call(None, 1, None, 0.0) == (ENDLESS, True, False, False)


def test_who_is_asked_to_end_says_so(tmp_path):
    asked = threading.Event()
    with saving(tmp_path, asked_to_end=asked.is_set) as made:
        assert not next_call(made, 1, None, 0.0)[-1]
        asked.set()
        assert next_call(made, 1, None, 0.0)[-1]


def test_a_process_that_only_helps_keeps_nothing():
    with saving(None) as made:
        assert position_of(made, 0, 0) is None and summary(made) == "0 finished chunks"
        save_state(made, state(10), value(1))
        assert save_finished(made, finished(0), value(3)) is None
        assert read_finished(made, finished(0), EXPECTED) is None
