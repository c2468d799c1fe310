"""A copy of a video file with its audio moved into sync; nothing is decoded or encoded."""

import os

import av

from avts_tf.data import media

TIME_TOLERANCE_SECONDS = 0.005  # of a copied packet: containers round times, to 1 ms in Matroska


def write_in_sync(path: str, output_dir: str, offset_seconds: float) -> tuple[str | None, str]:
    """Copies a file and delays its video, or its audio where that is early.

    The copy is read again and compared. A kind of file that does not keep the delay, such as AVI,
    becomes a Matroska file.

    Args:
        path: video file.
        output_dir: folder for the new file, which must not exist yet.
        offset_seconds: as measured, positive where the audio is late.

    Returns:
        The path of the new file and ''; or None, and in words why it could not be written.

    Example:
        >>> write_in_sync('late.mp4', 'fixed', 0.08)
        ('fixed/late.mp4', '')
    """
    name = os.path.join(output_dir, os.path.basename(path))
    matroska = os.path.splitext(name)[0] + '.mkv'
    problem = ''
    for output_path in dict.fromkeys([name, matroska]):
        if os.path.exists(output_path):
            return None, f'{output_path} is there already.'
        aside = os.path.join(output_dir, '.writing-' + os.path.basename(output_path))
        try:
            expected = _copy_delayed(path, aside, offset_seconds)
            if not (problem := _differs(aside, expected)):
                os.replace(aside, output_path)
                return output_path, ''
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
                delay = round(abs(offset_seconds) / packet.time_base)
                packet.pts = packet.pts + delay
                packet.dts = packet.dts if packet.dts is None else packet.dts + delay
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
