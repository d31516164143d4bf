"""Task `spoken-digits`: the front end against its equation, and the data against their manifest."""

import hashlib
import io
import json
import os
import tarfile
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmu_deploy.core.errors import InputError
from lmu_deploy.tasks import spoken_digits
from lmu_deploy.tasks.base import get_task, task_names
from lmu_deploy.tasks.log_mel import LogMel

FRONT_END = LogMel()


def _folder():
    named = os.environ.get("LMU_DEPLOY_DATA")
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for folder in filter(None, (named, str(beside))):
        if (Path(folder) / "fsdd").is_dir():
            return folder
    return None


needs_speech = pytest.mark.skipif(
    _folder() is None, reason="the spoken digits are absent; set LMU_DEPLOY_DATA to their folder"
)


def by_definition(front, samples):
    """Compute the frames of one recording from the sums of the docstring, without an FFT."""
    n, k = np.arange(front.window), np.arange(front.window // 2 + 1)
    window = np.sin(np.pi * n / front.window) ** 2
    waves = np.exp(-2j * np.pi * np.outer(k, n) / front.window)
    mel = [2595 * np.log10(1 + hertz / 700) for hertz in (front.low, front.high)]
    corners = [
        700 * (10 ** ((mel[0] + (mel[1] - mel[0]) * i / (front.bands + 1)) / 2595) - 1)
        for i in range(front.bands + 2)
    ]
    found = []
    for t in range((len(samples) - front.window) // front.hop + 1):
        part = samples[t * front.hop : t * front.hop + front.window]
        power = np.abs(waves @ (window * part)) ** 2
        energies = [
            np.interp(k * front.rate / front.window, corners[b : b + 3], [0, 1, 0]) @ power
            for b in range(front.bands)
        ]
        found.append(np.log2(1 + np.array(energies) / front.floor) / front.doublings)
    return np.array(found)


@pytest.mark.parametrize(
    "front", [FRONT_END, LogMel(16_000, 400, 160, 40, 20.0, 7_600.0, 1e-5, 3.0)]
)
def test_frames_follow_the_definition(front):
    samples = np.random.default_rng(0).uniform(-1, 1, 5 * front.window)
    found = front.apply(np.stack([samples, 0.001 * samples]))
    np.testing.assert_allclose(found[0], by_definition(front, samples), rtol=1e-9)
    np.testing.assert_allclose(found[1], by_definition(front, 0.001 * samples), rtol=1e-9)


def test_integers_are_samples_of_full_scale_and_silence_is_zero():
    samples = np.random.default_rng(1).integers(-32_768, 32_768, 1000).astype(np.int16)
    np.testing.assert_array_equal(FRONT_END.apply(samples), FRONT_END.apply(samples / 32_768))
    assert not FRONT_END.apply(np.zeros(256, np.int16)).any()


def test_a_tone_is_in_the_band_of_its_frequency():
    for hertz in (300.0, 1000.0, 3000.0):
        tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(1024) / 8000)
        loudest = FRONT_END.apply(tone).argmax(axis=1)
        triangle = FRONT_END.filters[:, loudest[0]]
        edges = np.flatnonzero(triangle)[[0, -1]] * 8000 / 256
        assert (loudest == loudest[0]).all()
        assert edges[0] - 32 < hertz < edges[1] + 32


def test_energies_invert_the_logarithm():
    energies = np.geomspace(1e-9, 1e4, 40)
    np.testing.assert_allclose(FRONT_END.energies(FRONT_END.of_energies(energies)), energies, 1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 99))
def test_pieces_of_any_length_give_the_frames_of_the_whole(pieces, seed):
    samples = np.random.default_rng(seed).integers(-9999, 9999, sum(pieces)).astype(np.int16)
    stream, place, found = FRONT_END.stream(), 0, []
    for length in pieces:
        found.append(stream.push(samples[place : place + length]))
        place += length
    count = sum(map(len, found))
    assert count == FRONT_END.frames(len(samples))
    if count:
        # Products of BLAS differ in the last bits with the number of rows.
        np.testing.assert_allclose(np.concatenate(found), FRONT_END.apply(samples), rtol=1e-12)


def test_parameters_survive_json():
    front = replace(FRONT_END, bands=20, low=100.0)
    assert LogMel.from_json(front.to_json()) == front
    for text in ("{", "[]", json.dumps({"rate": 8000}), "[" * 100_000):
        with pytest.raises(InputError, match="front end"):
            LogMel.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": 128}, "fewer bands"),
        ({"high": 50.0}, "wider range"),
        ({"hop": 300}, "hop"),
        ({"floor": 0.0}, "floor"),
        ({"high": 5000.0}, "high"),
    ],
)
def test_impossible_front_ends_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(FRONT_END, **changes)


def test_too_few_samples_are_refused():
    with pytest.raises(InputError, match="100 samples are no frame, which has 256"):
        FRONT_END.apply(np.zeros(100))


def test_missing_data_name_their_source(monkeypatch, tmp_path):
    get_task("spoken-digits").load.cache_clear()
    spoken_digits._frames.cache_clear()
    monkeypatch.delenv("LMU_DEPLOY_DATA", raising=False)
    with pytest.raises(InputError, match=r"LMU_DEPLOY_DATA is not set.*github.com/Jakobovski"):
        get_task("spoken-digits").load()
    monkeypatch.setenv("LMU_DEPLOY_DATA", str(tmp_path))
    with pytest.raises(InputError, match="fsdd holds no recordings"):
        get_task("spoken-digits").load()


def test_unknown_speakers_are_refused():
    assert "spoken-digits" in task_names()
    with pytest.raises(InputError, match="no speaker 'lukas'; choose one of george"):
        get_task("spoken-digits-lukas")


def _wav(samples):
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Three recordings of two groups, with their manifest, in the folder of the data."""
    rng = np.random.default_rng(0)
    names = ["0_george_0.wav", "0_george_1.wav", "1_theo_0.wav"]
    contents = {name: _wav(rng.integers(-999, 999, 300)) for name in names}
    manifest = {
        group: hashlib.sha256(b"".join(contents[n] for n in names if group in n)).hexdigest()
        for group in ("0_george", "1_theo")
    }
    monkeypatch.setattr(spoken_digits, "_manifest", lambda: manifest)
    monkeypatch.setenv("LMU_DEPLOY_DATA", str(tmp_path))
    (tmp_path / "fsdd").mkdir()
    return tmp_path / "fsdd", contents


def _store(folder, contents, form):
    if form == "folder":
        (folder / "recordings").mkdir()
        for name, content in contents.items():
            (folder / "recordings" / name).write_bytes(content)
        return
    with tarfile.open(folder / "recordings.tar", "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"recordings/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_folder_and_tar_give_the_same_recordings(small, form):
    folder, contents = small
    _store(folder, contents, form)
    found = spoken_digits.read_recordings()
    assert set(found) == {(0, "george", 0), (0, "george", 1), (1, "theo", 0)}
    expected = np.frombuffer(contents["1_theo_0.wav"][44:], "<i2")
    np.testing.assert_array_equal(found[1, "theo", 0], expected)


@pytest.mark.parametrize("fault", ["changed", "missing", "truncated"])
def test_faulty_recordings_are_named(small, fault):
    folder, contents = small
    name = "1_theo_0.wav"
    if fault == "changed":
        contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
    elif fault == "missing":
        del contents[name]
    _store(folder, contents, "tar")
    if fault == "truncated":
        archive = folder / "recordings.tar"
        archive.write_bytes(archive.read_bytes()[:2000])
    named = "0_george_0" if fault == "truncated" else "1_theo_0"
    with pytest.raises(InputError, match=rf"{named}\.wav.* are not the published ones"):
        spoken_digits.read_recordings()


@pytest.fixture
def speech(monkeypatch):
    monkeypatch.setenv("LMU_DEPLOY_DATA", _folder())
    return get_task("spoken-digits")


@needs_speech
def test_sizes_types_and_balance(speech):
    data = speech.load()
    assert [len(part) for part in data.parts.values()] == [2400, 300, 300]
    for part in data.parts.values():
        assert part.inputs.shape[1:] == (speech.steps, speech.n_in) == (62, 32)
        assert part.inputs.dtype == np.float32
        assert 0 <= part.inputs.min() < part.inputs.max() < 4
        counts = np.bincount(part.targets)
        assert len(counts) == speech.n_out
        assert (counts == counts[0]).all()
        assert (np.bincount(part.targets[:60]) == 6).all()


@needs_speech
def test_no_recording_is_in_two_parts(speech):
    parts = [part.inputs.reshape(len(part), -1) for part in speech.load().parts.values()]
    assert len(np.unique(np.concatenate(parts), axis=0)) == 3000


@needs_speech
def test_all_recordings_of_a_speaker_are_left_out(speech, monkeypatch):
    recordings = spoken_digits.read_recordings()
    task = get_task("spoken-digits-theo")
    data = task.load()
    assert [len(part) for part in data.parts.values()] == [2250, 250, 500]
    own = [spoken_digits.padded(recordings[3, "theo", take]) for take in range(50)]
    frames = spoken_digits.FRONT_END.apply(np.stack(own)).astype(np.float32)
    np.testing.assert_array_equal(data.test.inputs[data.test.targets == 3], frames)
    others = np.concatenate([data.train.inputs, data.validation.inputs])
    assert not (others[:, None] == frames[None, :5]).all(axis=(2, 3)).any()
