"""The files that TensorBoard's projector shows clips from."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from tensorboard.plugins import projector

THUMBNAIL = 48  # pixels: with 400 points, the sheet stays below the 8192 pixels that browsers show
GREEN, ORANGE = '#2a7f3f', '#e08214'


def write_projector(
    clips: Sequence[tuple[str, list[str], np.ndarray, np.ndarray, np.ndarray]], logdir: str,
) -> None:
    """Writes clips as two points each, video and audio, for TensorBoard's projector.

    `logdir` then has `projector_config.pbtxt` and, in `projector/`, `embeddings.tsv`,
    `metadata.tsv` (tower, clip, labels: the projector colours by any of them) and `thumbnails.png`,
    the middle frame of the clip: a square with a green edge for the video, a disc with an orange
    one for the audio.

    Args:
        clips: result of `evaluation.projector.embed_clips`: example id, labels, frame uint8
            [size, size, 3], embeddings of video and audio, float [D] each.
        logdir: folder that TensorBoard is started on.

    Raises:
        OSError: the files cannot be written.
    """
    folder = os.path.join(logdir, 'projector')
    os.makedirs(folder, exist_ok=True)
    embeddings, metadata, thumbnails = [], ['tower\tclip\tlabels'], []
    for example_id, labels, frame, video, audio in clips:
        # Tabs and line ends separate cells.
        cells = [' '.join(text.split()) for text in (example_id, ', '.join(labels))]
        for tower, embedding in (('video', video), ('audio', audio)):
            embeddings.append('\t'.join(f'{value:.5f}' for value in embedding))
            metadata.append('\t'.join((tower, *cells)))
            thumbnails.append(_thumbnail(frame, tower))
    for name, lines in (('embeddings.tsv', embeddings), ('metadata.tsv', metadata)):
        with open(os.path.join(folder, name), 'w', encoding='utf-8') as file:
            file.write('\n'.join(lines) + '\n')
    columns = int(np.ceil(np.sqrt(len(thumbnails))))  # the projector wants a square sheet
    sheet = Image.new('RGB', (columns * THUMBNAIL, columns * THUMBNAIL))
    for index, thumbnail in enumerate(thumbnails):
        sheet.paste(thumbnail, (index % columns * THUMBNAIL, index // columns * THUMBNAIL))
    sheet.save(os.path.join(folder, 'thumbnails.png'))
    settings = projector.ProjectorConfig()
    embedding = settings.embeddings.add(
        tensor_name='video and audio', tensor_path='projector/embeddings.tsv',
        metadata_path='projector/metadata.tsv')
    embedding.sprite.image_path = 'projector/thumbnails.png'
    embedding.sprite.single_image_dim.extend([THUMBNAIL, THUMBNAIL])
    projector.visualize_embeddings(logdir, settings)


def _thumbnail(frame: np.ndarray, tower: str) -> Image.Image:
    """A frame as a small square with an edge for the video, as a disc for the audio."""
    size = (THUMBNAIL, THUMBNAIL)
    thumbnail, box = Image.fromarray(frame).resize(size), (0, 0, THUMBNAIL - 1, THUMBNAIL - 1)
    if tower == 'video':
        ImageDraw.Draw(thumbnail).rectangle(box, outline=GREEN, width=3)
        return thumbnail
    disc, mask = Image.new('RGB', size, 'white'), Image.new('L', size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    disc.paste(thumbnail, mask=mask)
    ImageDraw.Draw(disc).ellipse(box, outline=ORANGE, width=3)
    return disc
