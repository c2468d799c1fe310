"""Records for the inspector to read."""

import io

import numpy as np
from PIL import Image

from avts_tf.data import records
from tests.helpers import edit_record


def plain_video(example_id, frames, frame_rate, size, samples, sample_rate, labels=()):
    buffer = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(buffer, 'JPEG')
    return records.Video(
        example_id=example_id, frames=[buffer.getvalue()] * frames, frame_rate=frame_rate,
        height=size[1], width=size[0],
        waveform=np.full(samples, 1000, np.int16), sample_rate=sample_rate, labels=labels,
    )


def audio_record(example_id, samples):
    def without_pictures(example):
        for key in [key for key in example.context.feature if key.startswith('image/')]:
            del example.context.feature[key]
        for key in (records.FRAMES, records.FRAME_TIMES):
            del example.feature_lists.feature_list[key]
    return edit_record(records.encode(plain_video(example_id, 1, 25.0, (16, 16), samples, 16000)),
                       without_pictures)
