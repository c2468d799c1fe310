"""Opens a file, and names why a file is unsuitable."""

import contextlib
import functools
import os
from collections.abc import Iterator

import av
from av.container import InputContainer

from avts_tf.files import file_problem

# Why a file is left out. The last two come from the workers, all others from this package.
REASONS = (
    'missing', 'unreadable', 'no_video', 'no_audio', 'silent', 'still', 'too_short', 'too_long',
    'too_large', 'timeout', 'crashed',
)

MICROSECONDS = 1_000_000  # of which libavformat counts a container's times

# Demuxers that open other files, beside devices and those that libavformat says have no file of
# their own; and how such lists begin.
_OF_OTHER_FILES = frozenset(
    ('applehttp', 'concat', 'dash', 'hls', 'imf', 'mlv', 'sdp', 'vobsub'))
_LISTS = (
    b'ffconcat', b'#EXTM3U', b'v=0', b'<?xml', b'<MPD', b'# VobSub', b'\xef\xbb\xbfffconcat',
    b'\xef\xbb\xbf#EXTM3U',
)


class Unsuitable(Exception):
    """A file that no record can be made of.

    Args:
        reason: one of `REASONS`.
        detail: what was found, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f'{reason}: {detail}')
        self.reason, self.detail = reason, detail


def open_file(path: str | os.PathLike) -> InputContainer:
    """Opens a media file, and nothing else: no address, no device, no list of other files.

    Args:
        path: the file.

    Returns:
        The open container, to be closed by the caller (`with open_file(path) as container`).

    Raises:
        Unsuitable: it is a list that names other files.
        av.FFmpegError, OSError: it cannot be opened.

    Example:
        >>> with media.open_file('talk.mp4') as container:
        ...     print(container.streams.video[0].average_rate)
        25
    """
    # An absolute path, because a name such as "a:b.mp4" would be taken for a protocol; this file
    # only, because playlists may name addresses and neighbours.
    options = {'protocol_whitelist': 'file', 'format_whitelist': own_formats()}
    try:
        return av.open(os.path.abspath(path), metadata_errors='ignore', container_options=options)
    except av.ArgumentError as error:
        with open(path, 'rb') as file:
            if file.read(64).lstrip().startswith(_LISTS):
                raise Unsuitable(
                    'unreadable', 'it is a list that names other files; give those instead',
                ) from error
        raise


@functools.cache
def own_formats() -> str:
    """Names of the demuxers that read the one file that they are given, with commas."""
    formats = []
    for name in sorted(av.formats_available):
        with contextlib.suppress(ValueError):  # some are written only
            found = av.ContainerFormat(name, 'r')
            if not found.no_file and not _OF_OTHER_FILES.intersection(name.split(',')):
                formats.append(name)
    return ','.join(formats)


@contextlib.contextmanager
def explaining(path: str | os.PathLike) -> Iterator[None]:
    """Within it, what a missing or broken file raises becomes `Unsuitable`."""
    problem = file_problem(path)
    if problem:
        raise Unsuitable('missing', problem)
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise Unsuitable('unreadable', in_words(error)) from error
    except MemoryError as error:
        raise Unsuitable('too_large', 'it takes more memory than there is') from error


def in_words(error: OSError | av.FFmpegError) -> str:
    """The message of a decoder's or a file system's error, in one line."""
    return ' '.join(str(error.strerror or error).split())


def origin_seconds(container: InputContainer) -> float:
    """What a player's clock subtracts from the times of a file, in seconds."""
    return max(0, container.start_time or 0) / MICROSECONDS
