"""Values that do not go together, or do not exist, are named."""

import pytest

from avts_tf.config import make_config
from avts_tf.errors import UserError


@pytest.mark.parametrize(('values', 'words'), [
    ({'super_hard_min_shift': 0.6}, '--super_hard_max_shift'), ({'mel_max_hz': 9000.0}, '--mel_max_hz=9000'),
    ({'fft_size': 256}, '--fft_size=256'), ({'frames': 3}, 'fewer than 16 STFT'), ({'head_spans': 7}, '--head_spans=7'),
    ({'loss': 'infonce', 'audio_windows': 1}, '--audio_windows=1'), ({'nonsense': 1}, 'nonsense'),
    ({'momentum': 1.5}, '--momentum=1.5'),
])
def test_values_that_do_not_go_together(values, words):
    with pytest.raises(UserError, match=words):
        make_config('tiny', **values)
