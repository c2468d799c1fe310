"""Embeddings of held-out clips for TensorBoard's projector: do picture and sound of one moment lie together?"""

import os

import numpy as np
from PIL import Image
from tensorboard.plugins import projector

from avts_tf import progress
from avts_tf.data.window_datasets import make_offset_dataset
from avts_tf.training.run_folder import writing

CLIPS = 200
THUMBNAIL = 48  # pixels: with two points a clip, the sheet stays below the 8192 pixels that browsers can show
FOLDER = 'projector'


def write_projector(model, pattern, run_dir, flag):
    """Writes the middle window of clips as two points each, the embeddings of its picture and its sound.

    Below `run_dir`/tensorboard there are then `projector_config.pbtxt` and, in `projector/`, `embeddings.tsv`, `metadata.tsv`
    (tower, clip, labels of the record) and `thumbnails.png`, on which both points of a clip have its middle frame.

    Args:
        model: trained `TwoTower`.
        pattern: glob of records, of which the first `CLIPS` are taken.
        run_dir: run folder.
        flag: name of the flag that the pattern comes from.

    Raises:
        UserError: the files cannot be written.
    """
    embeddings, lines, thumbnails = [], ['tower\tclip\tlabels'], []
    dataset = make_offset_dataset(pattern, model.config, [0.0], parameter=flag).take(CLIPS)
    for clip in progress.bar(dataset, f'{flag}: projector', unit='clip'):
        outputs = model.embed_batch({'video': clip['video'], 'audio': clip['audio']})
        frames = clip['video'][0].numpy()
        thumbnail = Image.fromarray(frames[len(frames) // 2]).resize((THUMBNAIL, THUMBNAIL))
        name = _cell(clip['example_id'].numpy())
        labels = _cell(b', '.join(clip['label_string'].numpy()))
        for tower, embedding in (('picture', outputs['video'][0]), ('sound', outputs['audio'][0, 0])):
            embeddings.append('\t'.join(f'{value:.5f}' for value in embedding.numpy()))
            lines.append(f'{tower}\t{name}\t{labels}')
            thumbnails.append(thumbnail)
    if not embeddings:
        return
    logdir = os.path.join(run_dir, 'tensorboard')
    with writing(run_dir):
        os.makedirs(os.path.join(logdir, FOLDER), exist_ok=True)
        for file_name, rows in (('embeddings.tsv', embeddings), ('metadata.tsv', lines)):
            with open(os.path.join(logdir, FOLDER, file_name), 'w', encoding='utf-8') as file:
                file.write('\n'.join(rows) + '\n')
        _contact_sheet(thumbnails).save(os.path.join(logdir, FOLDER, 'thumbnails.png'))
        projector.visualize_embeddings(logdir, _settings())


def _cell(text):
    return ' '.join(text.decode(errors='replace').split())  # tabs and line ends part cells


def _contact_sheet(thumbnails):
    """The square sheet of pictures, row by row, that the projector cuts them from."""
    columns = int(np.ceil(np.sqrt(len(thumbnails))))
    sheet = Image.new('RGB', (columns * THUMBNAIL, columns * THUMBNAIL))
    for index, thumbnail in enumerate(thumbnails):
        sheet.paste(thumbnail, (index % columns * THUMBNAIL, index // columns * THUMBNAIL))
    return sheet


def _settings():
    settings = projector.ProjectorConfig()
    embedding = settings.embeddings.add(
        tensor_name='pictures and sounds', tensor_path=f'{FOLDER}/embeddings.tsv', metadata_path=f'{FOLDER}/metadata.tsv')
    embedding.sprite.image_path = f'{FOLDER}/thumbnails.png'
    embedding.sprite.single_image_dim.extend([THUMBNAIL, THUMBNAIL])
    return settings
