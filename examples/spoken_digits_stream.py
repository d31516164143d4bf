"""Name the digits in a continuous recording while it plays, in integers only.

Test utterances of the Free Spoken Digit Dataset, with pauses of noise between them, go hop by hop
through the integer front end and the integer network, as on a microcontroller
(`lmu-deploy export --to c` writes both). Needs the data: set LMU_DEPLOY_DATA. Run:
python examples/spoken_digits_stream.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import lmu_deploy
from converters.c.front_end import IntegerLogMel
from lmu_deploy.core.integer.network import IntegerNetwork
from lmu_deploy.tasks.spoken_digits import STEPS, TEST_TAKES, read_recordings
from targets.integer import Stream, finish, step

MODEL = Path(__file__).parent / "models" / "spoken-digits.safetensors"


@dataclass(frozen=True)
class Detection:
    """A word that was heard: its number, and the samples at which it began and was named."""

    word: int
    began: int
    named: int


@dataclass
class Listener:
    """Finds words between pauses, and names each as soon as it has ended.

    A word begins where a frame is louder than the quietest of the last seconds, and ends with
    `pause` quiet frames. What is left of the second that the network expects is silence, whose
    frames are known and need not be waited for.

    Attributes
    ----------
    network : IntegerNetwork
        Trained on spoken-digits.
    louder : float
        How far the mean of a frame is above the quietest one in a word.
    pause : int
        Quiet frames that end a word; the closure of a plosive is shorter.
    before : int
        Frames before the first loud one that belong to the word.
    shortest : int
        Loud frames that make a word.
    """

    network: IntegerNetwork
    louder: float = 0.2
    pause: int = 12
    before: int = 2
    shortest: int = 5
    frames: int = 0
    seconds: float = 0.0
    _recent: list[np.ndarray] = field(default_factory=list)
    _levels: list[float] = field(default_factory=list)
    _stream: Stream | None = None
    _fed: int = 0
    _loud: int = 0
    _quiet: int = 0
    _began: int = 0

    def __post_init__(self) -> None:
        front_end = IntegerLogMel.of_network(self.network)
        assert front_end is not None
        self.front_end, self.hop = front_end, front_end.front_end.hop
        self._samples = np.zeros(front_end.front_end.window, np.int16)

    def push(self, samples: np.ndarray) -> Detection | None:
        """Take the next hop of samples; return the word that has ended, if one has."""
        start = time.perf_counter()
        self._samples = np.concatenate([self._samples[self.hop :], samples])
        found = self._take(self.front_end.apply(self._samples)[0] * self.front_end.scale)
        self.frames += 1
        self.seconds += time.perf_counter() - start
        return found

    def _take(self, frame: np.ndarray) -> Detection | None:
        self._levels = [*self._levels[-250:], float(frame.mean())]
        is_loud = self._levels[-1] > np.quantile(self._levels, 0.1) + self.louder
        if not self._fed:
            self._recent = [*self._recent[-self.before :], frame]
            if not is_loud:
                return None
            self._began, self._loud, self._quiet, self._stream = self.frames, 1, 0, None
            for each in self._recent:
                self._feed(each)
            return None
        self._feed(frame)
        self._loud += is_loud
        self._quiet = 0 if is_loud else self._quiet + 1
        if self._quiet < self.pause and self._fed < STEPS:
            return None
        return self._end()

    def _feed(self, frame: np.ndarray) -> None:
        _, self._stream = step(self.network, frame[None], self._stream)
        self._fed += 1

    def _end(self) -> Detection | None:
        silence = np.zeros(self.network.n_in)
        while self._fed < STEPS:
            self._feed(silence)
        assert self._stream is not None
        word = int(finish(self._stream)[-1, 0].argmax())
        self._fed, self._recent, self._stream = 0, [], None
        if self._loud < self.shortest:
            return None
        return Detection(word, self._began * self.hop, (self.frames + 1) * self.hop)


@dataclass(frozen=True)
class Recording:
    """Samples, and for each word its number and where it begins and ends."""

    samples: np.ndarray
    words: list[tuple[int, int, int]]


def continuous(count: int | None = None, noise: float = 3.0, seed: int = 0) -> Recording:
    """Return test utterances in a random order, with pauses of 0.3 to 0.8 s.

    Parameters
    ----------
    count : int, optional
        How many; all 300 by default.
    noise : float
        Standard deviation of noise over the whole recording, in units of a 16-bit sample.
    seed : int
    """
    recordings = {key: x for key, x in read_recordings().items() if key[2] in TEST_TAKES}
    rng = np.random.default_rng(seed)
    keys = sorted(recordings)
    order = [keys[i] for i in rng.permutation(len(keys))[:count]]
    parts, words = [np.zeros(8000)], []
    for key in order:
        begin = sum(map(len, parts))
        parts += [recordings[key].astype(float), np.zeros(int(8000 * rng.uniform(0.3, 0.8)))]
        words.append((key[0], begin, begin + len(recordings[key])))
    samples = np.concatenate(parts)
    samples = np.rint(samples + noise * rng.standard_normal(len(samples)))
    return Recording(np.clip(samples, -32_768, 32_767).astype(np.int16), words)


def listen(network: IntegerNetwork, recording: Recording) -> tuple[list[Detection], Listener]:
    """Play a recording; return what was heard."""
    listener, found = Listener(network), []
    hop = listener.hop
    for start in range(0, len(recording.samples) - hop + 1, hop):
        detection = listener.push(recording.samples[start : start + hop])
        if detection is not None:
            found.append(detection)
    return found, listener


def judge(recording: Recording, heard: list[Detection]) -> dict[str, float]:
    """Return how many words were named rightly, and how late.

    A detection belongs to the word that it overlaps; of several, the first counts, and the others
    are additional.
    """
    right, found, latencies = 0, 0, []
    rest = list(heard)
    for word, begin, end in recording.words:
        own = [d for d in rest if d.began < end and d.named > begin]
        rest = [d for d in rest if d not in own[:1]]
        if own:
            found += 1
            right += own[0].word == word
            latencies.append((own[0].named - end) / 8000)
    return {
        "words": len(recording.words),
        "found": found,
        "right": right,
        "additional": len(rest),
        "latency_median": float(np.median(latencies)),
        "latency_95": float(np.quantile(latencies, 0.95)),
    }


def main() -> None:
    """Play 30 utterances, print every detection, and sum up."""
    network = lmu_deploy.quantize(MODEL)
    recording = continuous(30)
    heard, listener = listen(network, recording)
    for detection in heard:
        said = [w for w, begin, end in recording.words if begin < detection.named <= end + 4000]
        print(
            f"{detection.named / 8000:6.2f} s: {detection.word}"
            f"{'' if said == [detection.word] else f', said was {said}'}"
        )
    for name, value in judge(recording, heard).items():
        print(f"{name}: {value:g}")
    length = len(recording.samples) / 8000
    print(f"{listener.seconds:.1f} s of computing for {length:.1f} s of sound")


if __name__ == "__main__":
    main()
