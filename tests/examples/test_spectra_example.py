"""What `tones.py` says."""

from tests.examples import tones


def test_the_quiet_tone_is_heard_with_the_spectrum(pytestconfig):
    """From one start, since nothing is drawn; in the long form after four times the steps."""
    off = tones.main(1600) if pytestconfig.option.long else tones.main()
    assert off["off, with the spectrum (dB)"] < 8
    assert off["off, waveform alone (dB)"] > 15
