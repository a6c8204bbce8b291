"""What `tones.py` says."""

from tests.examples import tones


def test_the_quiet_tone_is_heard_with_the_spectrum():
    off = tones.main()
    assert off["off, with the spectrum (dB)"] < 8
    assert off["off, waveform alone (dB)"] > 15
