"""By what the plug-ins of a run are known again: their parts, and what these were made of."""

from sae_jax.plugins import load, unload
from sae_jax.storage import plugin_list
from sae_jax.storage.record import changed_versions
from tests.plugins.files import written

USED = {"measure": ["a", "b"], "observer": []}


def record(*paths):
    """What a run's record says while these files are loaded."""
    loaded = [load(path) for path in paths]
    plugins = plugin_list.records(USED)
    for plugin in loaded:
        unload(plugin)
    return {"plugins": plugins, "versions": {"python": "3", **plugin_list.versions(plugins)}}


def test_a_changed_file_is_seen_beside_another_of_its_name_and_one_that_has_moved_is_the_same(tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    first = written(tmp_path / "one", "{'a': Measure(fails, 'a')}")
    second = written(tmp_path / "two", "{'b': Measure(fails, 'b')}")
    before = record(first, second)
    assert before["versions"]["plug-in parts.py"].count("sha256 ") == 2
    moved = first.rename(tmp_path / "three" / "moved.py")
    assert changed_versions(before, record(second, moved)) == []
    moved.write_text(moved.read_text() + "\n")
    now = record(moved, second)
    was, became = (one["plugins"][i]["sha256"][:12] for one, i in ((before, 0), (now, 0)))
    assert changed_versions(before, now) == [f"plug-in parts.py sha256 {was} -> sha256 {became}"]
    assert changed_versions(before, record(second)) == [f"plug-in parts.py sha256 {was} -> None"]
    assert changed_versions(record(second), before) == [f"plug-in parts.py None -> sha256 {was}"]
