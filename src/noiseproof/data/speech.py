"""Spoken words as MFCC: the Speech Commands task of paper A, or spoken digits."""

from __future__ import annotations

from noiseproof.data._features import FRAMES, MFCC_BOUNDS, mfcc
from noiseproof.data._speech import Speech


class SpeechMFCC(Speech):
    """One second of speech as 40 MFCC per frame, 30 ms windows every 10 ms: [98, 40] (PAPERS.md A6).

    Two sources, found by their files in the given folder, $NOISEPROOF_DATA or a sub-folder (`speech`, `speech-commands`,
    `speech_commands_v0.02`, `fsdd`):

    - Speech Commands (Warden, arXiv:1804.03209; CC BY 4.0), a folder per word, two lists, `_background_noise_`. Eight
      classes: yes no up down left right, silence (cut from the background noise), unknown (drawn from the other words), all
      about equally often. Splits as published, validation too.
    - The Free Spoken Digit Dataset (CC BY-SA 4.0), `recordings/<digit>_<speaker>_<index>.wav` or recordings.zip: ten
      classes. Indices 0 to 4 are the test split by the source's own rule: it has the same speakers as the training split, so
      accuracies are optimistic for new speakers.

    The task's name says which it was. Sound of another rate is resampled, shorter sound centred between zeros, longer sound
    cropped to its middle. Features are kept in the user's cache under a hash of all recordings.
    """


data_set = SpeechMFCC(
    title="Speech Commands (6 words, silence, unknown) or spoken digits, 40 MFCC",
    train=27_655,  # of Speech Commands 0.02, from the counts that its paper gives for each word; there are 2,700 + 300 digits
    test=3_283,
    classes=8,
    shape=(FRAMES, 40),
    bounds=MFCC_BOUNDS,
    licence="CC BY 4.0 (Speech Commands), CC BY-SA 4.0 (Free Spoken Digit Dataset)",
    citation="Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv:1804.03209; "
    "Jackson et al., Free Spoken Digit Dataset, doi:10.5281/zenodo.1342401",
    features=mfcc,
)
