"""What a writer refuses before it begins."""

import os

import pytest

from avts_tf.errors import UserError
from tfrecords_tools.write import write_records


def test_mistakes_are_explained(video_folder, tmp_path):
    output = str(tmp_path / 'out')

    def message(input_path=video_folder, output=output, **options):
        with pytest.raises(UserError) as caught:
            write_records(str(input_path), output, **options)
        assert '\n' not in str(caught.value)
        return str(caught.value)

    assert 'gone' in message(tmp_path / 'gone')
    for name, value in {'shards': 99, 'short_side': 3, 'audio_encoding': 'mp3', 'max_pixels': 1,
                        'silent_below_db': 3.0, 'workers': -1, 'part': 'held', 'hold_out': 2,
                        'dataset': 'ucf'}.items():
        assert f'{name}={value}: ' in message(**{name: value})
    assert message(hold_out=0.5) == 'hold_out=0.5: needs `part`: train or held.'
    assert 'no source' in message(hold_out=1e-9, part='held')
    assert message(output=str(tmp_path)).startswith('output=')
    (tmp_path / 'file').write_text('')
    assert 'cannot be written' in message(output=str(tmp_path / 'file' / 'set'))
    (tmp_path / 'out-00000-of-00007').write_text('')
    assert 'out-00000-of-00007' in message()
    assert sorted(os.listdir(tmp_path)) == ['file', 'out-00000-of-00007']
