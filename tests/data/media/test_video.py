"""Video: frames are upright, with square pixels, in the colours that the file states."""

import fractions
import io
import math

import av
import numpy as np
import pytest
from PIL import Image

from avts_tf.data import media
from avts_tf.data.media.video import read_video
from tests.media_files import (
    CFR,
    KEEP_ALL,
    audio_frame,
    chirp,
    half_lit,
    make_file,
    read_pixels,
    set_display_matrix,
    slow_but,
)


@pytest.mark.parametrize('matrix, lit', [
    ((1, 0, 0, 1), 'top'), ((0, 1, -1, 0), 'right'), ((-1, 0, 0, -1), 'bottom'),
    ((0, -1, 1, 0), 'left'), ((1, 0, 0, -1), 'bottom'), ((0, 1, 1, 0), 'left'),
])
def test_frames_are_upright(matrix, lit, tmp_path):
    path = make_file(tmp_path / 'a.mp4', draw=half_lit, frame_seconds=CFR[:10])
    set_display_matrix(path, *matrix)
    result = media.read_media(path, KEEP_ALL._replace(short_side=24))
    [block] = media.video_blocks(path, 25, 24)
    grey = np.asarray(Image.open(io.BytesIO(result.frames[0])).convert('L'))
    for image in (grey, block[0].mean(2)):
        image = image.astype(int)
        size = (24, 40) if lit in ('top', 'bottom') else (40, 24)
        assert image.shape == (result.height, result.width) == size
        down = image[:12].mean() - image[-12:].mean()
        across = image[:, :12].mean() - image[:, -12:].mean()
        light = {'top': down, 'bottom': -down, 'left': across, 'right': -across}
        assert max(light, key=light.get) == lit and light[lit] > 230


def test_pixels_are_square_and_nothing_is_enlarged(tmp_path):
    aspect = fractions.Fraction(3, 2)
    path = make_file(tmp_path / 'a.mkv', draw=half_lit, frame_seconds=CFR[:5], aspect=aspect)
    sizes = {}
    for short_side in (0, 24, 1000):
        result = media.read_media(path, KEEP_ALL._replace(short_side=short_side))
        sizes[short_side] = result.height, result.width
    assert sizes == {0: (48, 120), 24: (24, 60), 1000: (48, 120)}


@pytest.mark.parametrize('height, width', [(63, 121), (2, 2), (8, 300), (17, 16)])
def test_odd_sizes(height, width, tmp_path):
    def half_grey(_):
        image = np.zeros((height, width, 3), np.uint8)
        image[:, width // 2:] = 200
        return image

    path = make_file(tmp_path / 'a.mkv', CFR[:5], half_grey, video='ffv1', audio='pcm_s16le',
                     pixel_format='yuv444p')
    result = media.read_media(path, KEEP_ALL._replace(short_side=0))
    assert (result.height, result.width) == (height, width)
    pixels = read_pixels(result.frames[0])
    assert pixels.shape == (height, width, 3)
    assert pixels[0, -1] == pytest.approx([200] * 3, abs=3)
    if width > 16:
        assert pixels[0, 0] == pytest.approx([0] * 3, abs=3)


@pytest.mark.parametrize('colorspace, full_range, pixel_format', slow_but((0, 3, 4, 6), [
    (1, False, 'yuv444p'), (5, False, 'yuv444p'), (1, True, 'yuv444p'), (6, True, 'yuv444p'),
    (9, False, 'yuv444p10le'), (1, False, 'yuv422p10le'), (6, False, 'yuv444p16le'),
]))
def test_colours_by_the_matrix_and_range_that_the_file_states(
    colorspace, full_range, pixel_format, tmp_path,
):
    # Planes are written by the formula of the standard, not by a library.
    coefficients = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
    kr, kb = coefficients[colorspace]
    red, green, blue = 0.8, 0.3, 0.1
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    values = np.array([luma, (blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr)])
    if full_range:
        planes = values * [255, 255, 255] + [0, 128, 128]
    else:
        planes = values * [219, 224, 224] + [16, 128, 128]
    bits = 10 if '10' in pixel_format else 16 if '16' in pixel_format else 8
    planes = np.round(planes * 2 ** (bits - 8)).astype(np.uint8 if bits == 8 else '<u2')
    path, color_range = tmp_path / 'a.mkv', 2 if full_range else 1
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        audio = container.add_stream('pcm_s16le', rate=16000, layout='mono')
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = color_range
        for i in range(5):
            frame = av.VideoFrame(64, 48, pixel_format)
            for plane, value in zip(frame.planes, planes, strict=True):
                count = plane.buffer_size // planes.itemsize
                plane.update(np.full(count, value, planes.dtype).tobytes())
            frame.pts, frame.colorspace, frame.color_range = i, colorspace, color_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        samples = chirp(np.arange(8000) / 16000)[None]
        container.mux(audio.encode(audio_frame(samples, 's16', 'mono', 16000, 0)))
        container.mux(audio.encode(None))
    expected = [255 * red, 255 * green, 255 * blue]
    jpeg = media.read_media(str(path), KEEP_ALL._replace(jpeg_quality=98)).frames[0]
    assert read_pixels(jpeg)[24, 32] == pytest.approx(expected, abs=4)
    [block] = media.video_blocks(str(path), 25, 0)
    assert block[0][24, 32].astype(int) == pytest.approx(expected, abs=4)


def test_a_video_that_begins_later_than_asked_begins_with_its_first_frame(tmp_path):
    """As where one that began earlier did not decode: its audio is cut at the time it states."""
    path = make_file(tmp_path / 'a.mkv', [0.5 + seconds for seconds in CFR], audio='pcm_s16le')
    found = read_video(path, 0, 0.0, math.inf, KEEP_ALL)
    assert found.start_seconds == pytest.approx(0.5) == found.frame_seconds[0]
    assert len(found.frames) == 50
