"""Draws the pictures of the documentation from a finished run of `make demo`.

    python -m docs.make_pictures --run_dir=runs/demo --output=docs/images

Each picture is a PNG of at most 60 kB. `make pictures` makes the demo's run first where it is not
there yet. With --curves=NAME only the training curves of the run are drawn, to NAME.png.
"""

import os
from typing import TYPE_CHECKING

from absl import flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from avts_tf import program
from avts_tf.errors import UserError

if TYPE_CHECKING:
    from avts_tf.models.two_tower import TwoTower

WIDTH = 900                # pixels of a picture, at most
COLOURS = (128, 64, 32)    # of a picture's palette: the first with which it is small enough
MOST_BYTES = 60_000
LATE_SECONDS = 0.12        # by which the audio of the offset picture is delayed
CONTACT_SECONDS = 1.2      # of each record that the contact sheet shows

DATA, NETWORK, RESULT = '#dbe9f6', '#fde6c8', '#dff0d8'  # colours of the boxes of the data flow
TEXT, ARROW = '#222222', '#555555'


def main(run_dir: str, output: str) -> None:
    """Draws all pictures.

    Args:
        run_dir: run folder of `make demo`.
        output: folder of the pictures, which is made where it is not there.

    Raises:
        UserError: there is no such run.
    """
    from avts_tf import plots
    from avts_tf.evaluation.sync import measure_sync_curve
    from avts_tf.training.run_folder import load_inputs, load_model
    from tfrecords_tools.inspect import inspect

    inputs = load_inputs(run_dir)
    os.makedirs(output, exist_ok=True)

    def path(name: str) -> str:
        return os.path.join(output, f'{name}.png')

    training_curves(run_dir, path('training_curves'))
    data_flow(path('data_flow'))
    inspect([inputs['eval_records']], path('contact_sheet'), 2, CONTACT_SECONDS)
    model, _ = load_model(run_dir)
    curve = measure_sync_curve(model, inputs['eval_records'])
    plots.sync_curve(curve.results, curve.single, curve.single_id, path('sync_curve'))
    shifted_record(model, inputs['eval_records'], path('offset_curve'))
    for name in ('data_flow', 'contact_sheet', 'sync_curve', 'offset_curve'):
        shrink(path(name))


def training_curves(run_dir: str, path: str) -> None:
    """Draws loss, learning rate, distances and AUC of a run over its epochs."""
    from avts_tf.training.run_folder import RunFolder, draw_training_curves, load_config

    config = load_config(run_dir)
    draw_training_curves(RunFolder(run_dir, config), config, path)
    shrink(path)


def shifted_record(model: 'TwoTower', eval_records: str, path: str) -> None:
    """Draws the offset curve of a held-out record whose audio was delayed by `LATE_SECONDS`."""
    import tensorflow as tf

    from avts_tf import plots
    from avts_tf.data import records, shards
    from avts_tf.evaluation.offset import embed_video, offset_curve
    from avts_tf.evaluation.offset_calibration import shift_audio

    shard, _ = shards.find_shards(eval_records, 'eval_records')[0]
    record = records.parse(next(iter(tf.data.TFRecordDataset(shard))))
    late = shift_audio(record.waveform.numpy(),
                       round(LATE_SECONDS * model.config.clip.sample_rate))
    video = embed_video(model, record.frames, record.frame_seconds.numpy())
    curve = offset_curve(model, video, late)
    plots.offset_curve(
        curve.offset_seconds, curve.distance, curve.best,
        f'{record.example_id.numpy().decode()}, its audio delayed by {1000 * LATE_SECONDS:.0f} ms',
        path)


def data_flow(path: str) -> None:
    """Draws what becomes of a video: records, clips, two towers, distances, loss, two models."""
    figure = Figure(figsize=(9, 3.8), layout='constrained')
    axis = figure.add_subplot()
    axis.set(xlim=(-0.5, 100.5), ylim=(0, 42))
    axis.axis('off')
    _box(axis, (0, 18), 11, 'videos', 'files\nwith audio', DATA)
    _box(axis, (15, 18), 15, 'records', 'JPEG frames and\n16-bit audio on\none time axis', DATA)
    _box(axis, (35, 28), 16, 'video window', 'uint8\n[B, T, H, W, 3]', DATA)
    _box(axis, (35, 8), 16, 'audio windows', 'int16\n[B, K, samples]', DATA)
    _box(axis, (55, 28), 15, 'video tower', 'MC3, MC2\nor I3D', NETWORK)
    _box(axis, (55, 8), 15, 'audio tower', 'log-mel, then\n2-D convnet', NETWORK)
    _box(axis, (75, 18), 11, 'distances', 'between\nembeddings', RESULT)
    _box(axis, (90, 18), 10, 'loss', 'trains\nboth', RESULT)
    for start, end in (((11, 23), (15, 23)), ((30, 25), (35, 32)), ((30, 21), (35, 14)),
                       ((51, 33), (55, 33)), ((51, 13), (55, 13)), ((70, 32), (75, 25)),
                       ((70, 14), (75, 21)), ((86, 23), (90, 23))):
        _arrow(axis, start, end)
    axis.text(43, 23, 'a clip: one positive, one easy,\nhard or super-hard negative',
              ha='center', va='center', fontsize=8, color=ARROW, style='italic')
    # Out of the trained pair, two models of their own.
    for start, tip, name in ((38, 40.5, 'video_tower'), (8, 5.5, 'audio_tower')):
        _arrow(axis, (62.5, start), (62.5, tip), linestyle='--')
        axis.text(64.5, tip, f'SavedModel: saved_models/{name}/1', va='center', fontsize=8.5,
                  color=TEXT)
    for x, name in ((13, 'tfrecords_tools'), (37, 'avts_tf/data'), (62.5, 'avts_tf/models'),
                    (88, 'avts_tf/training')):
        axis.text(x, 0.5, name, ha='center', fontsize=8.5, color=ARROW, family='monospace')
    figure.savefig(path, format='png', dpi=100)


def _box(axis: Axes, corner: tuple[float, float], width: float, title: str, text: str,
         colour: str, height: float = 10.0) -> None:
    x, y = corner
    axis.add_patch(FancyBboxPatch(
        corner, width, height, boxstyle='round,pad=0,rounding_size=1.2', linewidth=1,
        facecolor=colour, edgecolor=ARROW))
    axis.text(x + width / 2, y + height - 1.2, title, ha='center', va='top', fontsize=9.5,
              weight='bold', color=TEXT)
    axis.text(x + width / 2, y + (height - 3.2) / 2, text, ha='center', va='center', fontsize=8,
              color=TEXT)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float],
           linestyle: str = '-') -> None:
    axis.annotate('', end, start, arrowprops={
        'arrowstyle': '-|>', 'color': ARROW, 'linewidth': 1.2, 'linestyle': linestyle,
        'shrinkA': 0, 'shrinkB': 0})


def shrink(path: str) -> None:
    """Makes a PNG at most `WIDTH` pixels wide, gives it a palette and prints its size.

    Raises:
        UserError: it is still larger than `MOST_BYTES`.
    """
    image = Image.open(path).convert('RGB')
    if image.width > WIDTH:
        height = round(image.height * WIDTH / image.width)
        image = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    for colours in COLOURS:
        (image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
         .save(path, optimize=True))
        if os.path.getsize(path) <= MOST_BYTES:
            print(f'{path}: {os.path.getsize(path) / 1000:.0f} kB')
            return
    raise UserError(None, path, f'larger than the {MOST_BYTES} bytes that a picture of the '
                    'documentation may have; draw less.')


def draw() -> None:
    """Draws what the flags say."""
    values = flags.FLAGS
    if values.curves:
        training_curves(values.run_dir, os.path.join(values.output, f'{values.curves}.png'))
    else:
        main(values.run_dir, values.output)


if __name__ == '__main__':
    flags.DEFINE_string('run_dir', 'runs/demo', 'Run folder of `make demo`.')
    flags.DEFINE_string('output', 'docs/images', 'Folder of the pictures.')
    flags.DEFINE_string('curves', None, 'Draw only the training curves, to this name.')
    program.run(lambda _: draw())
