"""What is asked of a file, and what is made of it."""

from typing import NamedTuple

import numpy as np

# Chosen on real files. The quietest of 709 talking heads has -25 dBFS, phones in quiet rooms record
# at -65; audio that is all zero has -120, also after lossy codecs.
SILENT_BELOW_DB = -70.0
# The stillest of the same 709, where a speaking mouth fills the frame, has 1.45. Still images that
# nine lossy codecs and settings encoded as video have up to 0.29 and mostly below 0.1; with much
# noise added to each frame before, up to 0.9.
STILL_BELOW = 0.5


class Media(NamedTuple):
    """Video and audio of a file from the same time 0, of the same duration.

    Attributes:
        frames: list of JPEG bytes, upright, all of the same size, with square pixels; empty with
            `audio_only`.
        height: pixels; 0 with `audio_only`.
        width: pixels; 0 with `audio_only`.
        waveform: int16 [samples], mono.
        start_seconds: presentation time in the file of frame 0 and sample 0.
        volume_db: RMS level of the waveform in dBFS (0 is a full square wave), at least -120.
        motion: mean absolute difference of the luma (0 to 255) of output frames 0.2 s apart (or the
            first and the last), on thumbnails of up to 16 pixels. Movement grows over that time and
            codecs' noise does not, and each pixel of a thumbnail is a mean over many. 0 where there
            is one frame, None with `audio_only`.
        source_fps: frames per second of the file, from the times of the frames that were decoded; 0
            where there are less than two.
        note: what was passed over, in words; '' where nothing was.
    """

    frames: list[bytes]
    height: int
    width: int
    waveform: np.ndarray
    start_seconds: float
    volume_db: float
    motion: float | None
    source_fps: float
    note: str


class MediaOptions(NamedTuple):
    """What `read_media` makes of a file.

    Attributes:
        fps: frames per second.
        short_side: pixels of the shorter side; 0 keeps the size, and nothing is ever enlarged.
        sample_rate: Hz.
        max_seconds: longest duration; what is longer is refused as too_long, which bounds the
            memory that a file takes. 0 is no limit.
        jpeg_quality: 1 to 100.
        start_seconds: where to begin in the file.
        end_seconds: where to end in the file; None is its end.
        max_pixels: most pixels of a decoded frame; larger ones are refused as too_large before one
            is decoded.
        silent_below_db: volume (see `Media`) below which a file is refused as silent; None keeps
            all.
        still_below: motion (see `Media`) below which a file is refused as still; None keeps all.
        audio_only: take the audio of any file, with or without video.
    """

    fps: float = 25.0
    short_side: int = 128
    sample_rate: int = 16000
    max_seconds: float = 600.0
    jpeg_quality: int = 90
    start_seconds: float = 0.0
    end_seconds: float | None = None
    max_pixels: int = 8192 * 4352
    silent_below_db: float | None = SILENT_BELOW_DB
    still_below: float | None = STILL_BELOW
    audio_only: bool = False


class Streams(NamedTuple):
    """Video and audio of a file, each at its own times in the file.

    Attributes:
        frames: list of JPEG bytes as of `Media`, in steps of 1 / fps from the file's first frame
            on.
        frame_seconds: float64 [frames], time of the frame that each step shows.
        waveform: int16 [samples], mono.
        waveform_seconds: time of sample 0.
    """

    frames: list[bytes]
    frame_seconds: np.ndarray
    waveform: np.ndarray
    waveform_seconds: float
