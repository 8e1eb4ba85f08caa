"""The same recordings as `speech`, as log-mel energies without the cosine transform."""

from __future__ import annotations

from noiseproof.data._features import BANDS, FRAMES, LOG_MEL_BOUNDS
from noiseproof.data._speech import Speech
from noiseproof.data.speech import data_set as with_mfcc


class SpeechLogMel(Speech):
    """One second of speech as the logarithms of 40 mel bands' energies: [98, 40]; sources, classes and splits as in `speech`."""


data_set = SpeechLogMel(
    title="Speech Commands (6 words, silence, unknown) or spoken digits, 40 log-mel energies",
    train=with_mfcc.train,
    test=with_mfcc.test,
    classes=with_mfcc.classes,
    shape=(FRAMES, BANDS),
    bounds=LOG_MEL_BOUNDS,
    licence=with_mfcc.licence,
    citation=with_mfcc.citation,
    name="speech-log-mel",
)
