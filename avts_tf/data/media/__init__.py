"""Decodes one file into video and audio on one time axis, exact to the sample.

    container    opening a file, and why a file is unsuitable
    streams      one stream on its way through the decoder, and which stream to take
    video        frames onto the exact grid, upright, with square pixels
    gaps         real jumps in the times of audio frames, and mere jitter
    runs         audio frames without a gap between them, resampled
    audio        gaps and runs put together to one stretch of samples
    types        what is asked of a file, and what is made of it
    read         `read_media` and the other functions for callers

It imports no TensorFlow, so that worker processes start fast.

Example:
    >>> from avts_tf.data import media
    >>> clip = media.read_media('talk.mp4', media.MediaOptions(fps=25.0, sample_rate=16000))
    >>> len(clip.frames) / 25.0 == len(clip.waveform) / 16000
    True

The rules that all of it keeps:

Times
    All times are presentation times in seconds, as the container and its edit lists give them, on
    the clock that a player shows: it reads 0 at the file's own start, which is the first time of
    any of its streams (of those below zero, such as the priming samples of a lossy audio codec, it
    shows nothing). AVI and WMV files give times in the order of decoding alone: a frame takes the
    time of the packet that makes the decoder return it; in an AVI, where nothing delays the audio
    too, the first frame takes the first packet's time and the others follow.

    *   Time 0 of the result is the latest of `start_seconds`, the first frame's time and the first
        audio sample's time. Its end is the earliest of `end_seconds` and the ends of both streams;
        the video ends when its last frame's duration is over (or the median frame interval, where
        the file states none). The duration is then cut to whole frames.
    *   Output frame i is the input frame whose time is nearest to time 0 + i / fps, the earlier one
        of two equally near: it is off by at most half of the interval between the two input frames
        around that time.
    *   Output sample n is heard at time 0 + n / sample_rate, to the nearest sample. Gaps in the
        audio's times are filled with silence, overlaps are cut from the later part. A gap is where
        all that follows is late by more than half a packet; times that merely jitter, as those of
        blocks and pages do, break nothing. There are round(frames / fps * sample_rate) samples.
    *   Where the clocks of the audio and the container run apart, the audio of a file with video
        follows the container's, to half a packet (8 to 50 ms), by samples that are dropped or
        repeated without a break. Without video, samples count.
    *   A stream whose times jump ahead by more than ten seconds is unreadable: nobody can say what
        belongs there. Frames whose time lies before an earlier one's are left out, and more than
        one in twenty of them make the stream unreadable.

Audio
    Any format, rate and number of channels becomes 16-bit mono at the wanted rate, low-passed where
    that is lower. Channels are mixed by libswresample's matrix, scaled so that nothing clips:
    stereo is (left + right) / 2; of 5.1 and 7.1 the centre counts whole, the others less, the
    low-frequency channel not at all. Channels in no known order are averaged. What a codec put
    before the first and after the last sample is left out where the file says how much that is.

Video
    Frames are upright (turned and mirrored as the file's display matrix says, to a multiple of 90
    degrees), with square pixels, and never enlarged; made smaller, each pixel is the mean over its
    area. Colours are 8 bits, by the matrix and range that the file states. Ten-bit and HDR video is
    brought to 8 bits without tone mapping: HDR looks flat. Transparency is dropped, interlaced
    fields stay woven together. A stream that changes its size is scaled to the size of its first
    frame.

Streams
    Of several streams of a kind, the first that decodes is taken, and `Media.note` says so. A cover
    picture is no video. A stream decodes where at most one in twenty of its packets is damaged;
    what cannot be decoded of it is left out.
"""

from avts_tf.data.media.container import REASONS, Unsuitable, open_file, origin_seconds
from avts_tf.data.media.read import (
    audio_blocks,
    read_media,
    read_streams,
    try_media,
    try_streams,
    video_blocks,
)
from avts_tf.data.media.types import (
    SILENT_BELOW_DB,
    STILL_BELOW,
    Media,
    MediaOptions,
    Streams,
)

__all__ = [
    'REASONS', 'SILENT_BELOW_DB', 'STILL_BELOW', 'Media', 'MediaOptions', 'Streams', 'Unsuitable',
    'audio_blocks', 'open_file', 'origin_seconds', 'read_media', 'read_streams', 'try_media',
    'try_streams', 'video_blocks',
]
