"""What becomes a record, and what does not."""

import os

from tfrecords_tools import shard_writer
from tfrecords_tools.write import write_records


def test_a_record_beyond_what_a_message_holds_is_left_out(video_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(shard_writer, '_MOST_RECORD_BYTES', 20_000)
    summary = write_records(str(video_folder / 'bark'), str(tmp_path / 'a'), short_side=32)
    assert summary['records'] == 0 and summary['skipped'] == {'too_large': 2}
    assert os.listdir(tmp_path) == ['a.report.csv']
