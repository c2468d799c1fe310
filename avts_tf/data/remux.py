"""A copy of a video file with its audio moved into sync; nothing is decoded or encoded."""

import fractions
import os

import av

from avts_tf.data import media

TIME_TOLERANCE_SECONDS = 0.005  # of a copied packet: containers round times, to 1 ms in Matroska
READ_SECONDS = 5.0  # that are decoded of a file and of its copy, to compare how they are read
_TICK_SECONDS = fractions.Fraction(1, 1_000_000)


def write_in_sync(path: str, output: str, offset_seconds: float) -> tuple[str | None, str]:
    """Copies a file and delays its video, or its audio where that is early.

    The copy is read again and compared, its packets and the times of its decoded streams. A kind of
    file that does not keep the delay, such as AVI, becomes a Matroska file.

    Args:
        path: video file.
        output: the new file without its suffix; it must not exist yet.
        offset_seconds: as measured, positive where the audio is late.

    Returns:
        The path of the new file and ''; or None, and in words why it could not be written.

    Example:
        >>> write_in_sync('late.mp4', 'fixed/late', 0.08)
        ('fixed/late.mp4', '')
    """
    suffix, problem = os.path.splitext(path)[1], ''
    # Of files that differ in their suffix alone the names here end in it.
    whole = output if suffix and output.endswith(suffix) else output + suffix
    for output_path in dict.fromkeys([whole, output + '.mkv']):
        if os.path.exists(output_path):
            return None, f'{output_path} is there already.'
        folder, name = os.path.split(output_path)
        aside = os.path.join(folder, '.writing-' + name)
        try:
            os.makedirs(folder or '.', exist_ok=True)
            expected = _copy_delayed(path, aside, offset_seconds)
            problem = (_differs(aside, expected)
                       or _seen_otherwise(path, aside, offset_seconds))
            if not problem:
                os.replace(aside, output_path)
                return output_path, ''
        except media.Unsuitable as error:
            problem = str(error)
        except (av.FFmpegError, OSError, ValueError, TypeError) as error:
            problem = f'{type(error).__name__}: {error}'
        finally:
            if os.path.exists(aside):
                os.remove(aside)
    return None, problem


def _copy_delayed(
    path: str, output_path: str, offset_seconds: float,
) -> dict[str, tuple[int, float, float]]:
    """Copies the packets of a file.

    Returns:
        Per kind of stream the number of packets, and their first and last time in seconds.
    """
    late = 'video' if offset_seconds > 0 else 'audio'
    delay = round(abs(offset_seconds) / _TICK_SECONDS)
    times: dict[str, list[float]] = {'video': [], 'audio': []}
    with media.open_file(path) as source, av.open(output_path, 'w') as target:
        streams = {stream.index: target.add_stream_from_template(stream)
                   for stream in source.streams if stream.type in times}
        # Matroska gives the first packets no time of decoding.
        waiting: dict[int, list[av.Packet]] = {index: [] for index in streams}
        copied = [stream for stream in source.streams if stream.index in streams]
        for packet in source.demux(copied):
            if not packet.size:  # the mark of a stream's end
                continue
            stream = packet.stream
            if stream.type == late:
                # In ticks of its own, so that the delay is not rounded to those of the file.
                ticks = packet.time_base / _TICK_SECONDS
                packet.pts, dts = round(packet.pts * ticks) + delay, packet.dts
                packet.dts = None if dts is None else round(dts * ticks) + delay
                packet.time_base = _TICK_SECONDS
            times[stream.type].append(float(packet.pts * packet.time_base))
            queue = waiting[stream.index]
            queue.append(packet)
            if packet.dts is None:
                continue
            step = 1
            if stream.type == 'video' and stream.average_rate:
                step = round(1 / stream.average_rate / packet.time_base)
            for place, queued in enumerate(queue):
                if queued.dts is None:
                    queued.dts = packet.dts - step * (len(queue) - 1 - place)
                queued.stream = streams[stream.index]
                target.mux(queued)
            queue.clear()
        if any(waiting.values()):
            raise ValueError('packets without a time of decoding')
    return {kind: (len(found), min(found), max(found)) for kind, found in times.items() if found}


def _differs(path: str, expected: dict[str, tuple[int, float, float]]) -> str:
    """In words, how the packets of a file differ from the expected; '' where they do not.

    The time at which the file begins does not count.
    """
    times: dict[str, list[float]] = {kind: [] for kind in expected}
    with media.open_file(path) as file:
        for packet in file.demux([stream for stream in file.streams if stream.type in times]):
            if packet.size and packet.pts is not None:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    for kind, (count, _, _) in expected.items():
        if len(times[kind]) != count:
            return f'the {kind} has {len(times[kind])} packets in the new file, {count} in the old'
    start, expected_start = min(times['video'], default=0.0), expected['video'][1]
    for kind, (_, first, last) in expected.items():
        for found, right in ((min(times[kind]), first), (max(times[kind]), last)):
            wrong = (found - start) - (right - expected_start)
            if abs(wrong) > TIME_TOLERANCE_SECONDS:
                return f'the {kind} lies {1000 * wrong:+.0f} ms from its place in the new file'
    return ''


def _seen_otherwise(path: str, copy: str, offset_seconds: float) -> str:
    """In words, how the copy's decoded streams lie to each other if not as expected; else ''.

    The times of packets do not show it alone: AVI states none at which its frames are seen.

    Raises:
        media.Unsuitable: one of the files cannot be decoded.
    """
    options = media.MediaOptions(short_side=0)
    leads = []
    for each in (path, copy):
        streams = media.read_streams(each, options, READ_SECONDS, 0.0)
        with media.open_file(each) as file:
            origin = media.origin_seconds(file)
            # Of its packets: whether what an encoder puts before the first sample is left out
            # differs from file to file, and is no part of the delay.
            heard = min(float(packet.pts * packet.time_base) for packet in file.demux(audio=0)
                        if packet.size and packet.pts is not None)
        leads.append(streams.frame_seconds[0] + origin - heard)
    wrong = leads[1] - leads[0] - offset_seconds
    if abs(wrong) > TIME_TOLERANCE_SECONDS:
        return f'the video is seen {1000 * wrong:+.0f} ms from its place in the new file'
    return ''
