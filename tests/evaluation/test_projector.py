"""What TensorBoard's projector is given: two points a clip, each with its name and its frame."""

import dataclasses

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins import projector

from avts_tf.commands._projector import THUMBNAIL, write_projector
from avts_tf.config import make_config
from avts_tf.data import records
from avts_tf.evaluation.projector import embed_clips
from tests.helpers import counting_video, read_frames, write_records


class Namer:
    """Stands for a model whose embeddings tell the clip and the tower."""

    def __init__(self, config):
        self.config = config

    def embed_batch(self, batch):
        clip, _ = read_frames(batch['video'].numpy()[0])
        return {'video': tf.constant([[clip, 0.0]]), 'audio': tf.constant([[[clip, 1.0]]])}


def test_points_names_and_pictures_belong_together(tmp_path):
    videos = [dataclasses.replace(counting_video(clip), example_id=f'clip\t{clip}',
                                  labels=[(0, 'a'), (1, 'b')])
              for clip in range(5)]
    path = write_records(tmp_path / 'clips', [records.encode(video) for video in videos])
    logdir = tmp_path / 'run/tensorboard'
    namer = Namer(make_config('tiny', frames=10, frame_size=32))
    write_projector(embed_clips(namer, path), str(logdir))

    settings = text_format.Parse((logdir / 'projector_config.pbtxt').read_text(),
                                 projector.ProjectorConfig()).embeddings[0]
    points = np.loadtxt(logdir / settings.tensor_path, delimiter='\t')
    head, *lines = (logdir / settings.metadata_path).read_text().splitlines()
    assert head.split('\t') == ['tower', 'clip', 'labels'] and len(lines) == len(points) == 10
    sheet = Image.open(logdir / settings.sprite.image_path)
    assert list(settings.sprite.single_image_dim) == [THUMBNAIL,
                                                      THUMBNAIL] and sheet.size == (4 * THUMBNAIL,
                                                                                    4 * THUMBNAIL)
    middles, corners = set(), set()
    for index, ((clip, tower), line) in enumerate(zip(points, lines, strict=True)):
        assert line.split('\t') == [('video', 'audio')[int(tower)], f'clip {int(clip)}', 'a, b']
        left, top = index % 4 * THUMBNAIL, index // 4 * THUMBNAIL
        middles.add((int(clip), sheet.crop((left + 10, top + 10, left + 38, top + 38)).tobytes()))
        corners.add((int(tower), sheet.getpixel((left, top))))
    # Both points of a clip have the same frame, and no two clips.
    assert len(middles) == len({middle for _, middle in middles}) == 5
    # Video is a square, audio a disc.
    assert corners == {(0, (42, 127, 63)), (1, (255, 255, 255))}
