"""Files with a checksum: no damage goes unseen."""

import json
import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxmill.denoising import checkpoint
from voxmill.runtime.checked import (
    DamagedFileError,
    read_checked,
    read_checked_json,
    write_checked,
    write_checked_json,
)
from voxmill.runtime.errors import VoxmillError
from voxmill.runtime.finished import finish, finished_path, remove_finished, take_back
from voxmill.training import checkpoints as training_checkpoints


class SmallFit:
    """The state of a fit, as small as possible."""

    iteration = 3

    def __init__(self):
        self.loaded = None

    def state_dict(self):
        return {"weights": torch.arange(4.0)}

    def load_state_dict(self, state):
        self.loaded = state


def damages(content, step=1):
    """Each byte with one bit flipped, each length, and something behind the end."""
    for position in range(0, len(content), step):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        yield bytes(changed)
        yield content[:position]
    yield content + b"\0"
    yield content + content


@given(st.binary(max_size=200))
def test_what_was_written_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("checked") / "a.bin"
    write_checked(path, content)
    assert read_checked(path) == content


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "a.bin"
    write_checked(path, b"seventeen letters")
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"a\.bin: .*Delete it\."):
            read_checked(path)
    path.unlink()
    with pytest.raises(DamagedFileError, match="cannot be read"):
        read_checked(path)


def test_a_checkpoint_of_a_fit_is_whole_or_not_used(tmp_path, caplog):
    path = tmp_path / "fit.pt"
    rows = [{"iteration": 3, "loss": 0.5}]
    checkpoint.save(path, SmallFit(), rows, "this")
    whole = path.read_bytes()
    fit = SmallFit()
    assert checkpoint.resume(path, fit, "this") == rows
    assert torch.equal(fit.loaded["weights"], torch.arange(4.0))
    for damaged in damages(whole):
        path.write_bytes(damaged)
        caplog.clear()
        fit = SmallFit()
        with caplog.at_level(logging.WARNING):
            assert checkpoint.resume(path, fit, "this") == []
        assert fit.loaded is None
        assert "the fit starts from the beginning" in caplog.text


def test_a_checkpoint_of_a_training_is_whole_or_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {key: value.detach().clone() for key, value in network.state_dict().items()}
    progress = {"step": 1, "history": [], "digest": "this"}
    training_checkpoints.save_checkpoint(path, network, state, state, optimizer, progress)
    whole = path.read_bytes()
    found = training_checkpoints.load_checkpoint(path, network, optimizer)
    assert found[2] == progress
    assert all(torch.equal(found[0][key], state[key]) for key in state)
    for damaged in damages(whole, step=3):
        path.write_bytes(damaged)
        with pytest.raises(VoxmillError, match=r"c\.safetensors: expected .* Remove the file"):
            training_checkpoints.load_checkpoint(path, network, optimizer)
        assert training_checkpoints.digest_of(path) is None
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "checksum"), JSON_VALUES, max_size=4))
def test_json_is_read_as_it_was_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("checked") / "a.json"
    write_checked_json(path, content)
    assert read_checked_json(path) == content
    assert json.loads(path.read_text()).keys() == content.keys() | {"checksum"}


def test_damaged_json_is_refused_or_means_the_same(tmp_path):
    path = tmp_path / "a.json"
    content = {"shape": (4, 5, 6), "size_um": [2.5, 1.6, 1.6], "name": "Gehirn ü", "tiles": [{}]}
    write_checked_json(path, content)
    expected, whole = read_checked_json(path), path.read_bytes()
    assert expected["shape"] == [4, 5, 6]
    refused = 0
    for damaged in damages(whole):
        path.write_bytes(damaged)
        try:
            assert read_checked_json(path, "plan", "Delete the plan.") == expected
        except VoxmillError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert str(error).endswith("Delete the plan.")
    # Blanks and line ends between the values mean nothing.
    assert refused > 1.7 * len(whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a plan with the key 'checksum'"),
        ('{"checksum": 3}', "damaged or edited"),
        ('{"a": 1, "checksum": "00"}', "damaged or edited"),
        ("[", "expected a plan in JSON"),
        ("[" * 100_000, "expected a plan in JSON"),
        ("1" * 5000, "expected a plan in JSON"),
        ("[1]", "expected a JSON object"),
    ],
)
def test_json_of_others_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(VoxmillError, match=message):
        read_checked_json(tmp_path / "a.json", "plan")


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(VoxmillError, match="cannot be read"):
        read_checked_json(tmp_path)
    with pytest.raises(VoxmillError, match="cannot be read"):
        read_checked(tmp_path)


def test_a_finished_checkpoint_is_taken_back_by_the_same_job_alone(tmp_path):
    path = tmp_path / ".fit.pt"
    write_checked(path, b"this")
    finish(path)
    assert not path.exists()
    take_back(path, lambda kept: read_checked(kept) == b"other")
    assert not path.exists()
    take_back(path, lambda kept: read_checked(kept) == b"this")
    assert read_checked(path) == b"this" and not finished_path(path).exists()
    finish(path)
    write_checked(path, b"a running job's")
    take_back(path, lambda kept: True)
    assert read_checked(path) == b"a running job's"
    remove_finished([tmp_path / ".fit*.pt", tmp_path / "none" / "*.pt"])
    assert [kept.name for kept in tmp_path.iterdir()] == [".fit.pt"]


def test_a_fit_that_was_finished_ends_at_once(tmp_path):
    path = tmp_path / "fit.pt"
    checkpoint.save(path, SmallFit(), [{"iteration": 3}], "this")
    finish(path)
    assert checkpoint.resume(path, SmallFit(), "other") == []
    assert checkpoint.resume(path, SmallFit(), "this") == [{"iteration": 3}]
    finish(path)
    kept = finished_path(path)
    kept.write_bytes(kept.read_bytes()[:-1])
    assert checkpoint.resume(path, SmallFit(), "this") == []
