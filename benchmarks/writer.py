"""Clips per second of `tfrecords_tools.write`, beside ffmpeg on the same files.

    python benchmarks/writer.py --input=grid/ --json=writer.json

Both take the same files to frames of the same size and rate and to mono sound of the same rate,
with as many processes as there are cores, in turns. The ffmpeg side is one process per file,
`ffmpeg -threads 1`, and does less: it aligns nothing and writes plain files. Whole commands are
timed, with the start of Python and TensorFlow; `--copies` and `--large_copies` link each file that
many times, so that the start weighs as little as it does on a real collection.

Each process of ffmpeg starts anew, which weighs on short clips, so there are two kinds of input:
the files of --input (short and small), and files of 10 s and 1280 x 720, as Kinetics has them,
which this program makes with ffmpeg.

`--memory` writes a set and one of ten times as many files, and prints the most memory that the
command and its workers held.
"""

import argparse
import concurrent.futures
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import threading

import side_by_side

FPS, SHORT_SIDE, SAMPLE_RATE = 25, 128, 16000
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def link_files(folder: str, files: list[str], copies: int) -> int:
    """Fills a folder with links to files, each several times."""
    os.makedirs(folder)
    for i, file in enumerate(files * copies):
        os.symlink(os.path.abspath(file),
                   os.path.join(folder, f'{i:06d}{os.path.splitext(file)[1]}'))
    return len(files) * copies


def make_large(folder: str, count: int) -> list[str]:
    """Files of 10 s, 1280 x 720, 30 fps, with noise in the frames as cameras have it."""
    paths = [os.path.join(folder, f'large-{i}.mp4') for i in range(count)]
    for i, path in enumerate(paths):
        subprocess.run([
            'ffmpeg', '-v', 'error', '-f', 'lavfi', '-i',
            f'mandelbrot=s=1280x720:r=30:start_scale={0.3 + i / 10}',
            '-f', 'lavfi', '-i', f'sine=f={300 + i}:r=44100', '-t', '10', '-vf',
            'noise=alls=8:allf=t', '-c:v', 'libx264',
            '-preset', 'veryfast', '-b:v', '1500k', '-pix_fmt', 'yuv420p', '-c:a', 'aac', path,
        ], check=True)
    return paths


def run_writer(folder: str, output: str) -> float:
    """Writes the records of a folder; returns the most memory held, in MiB."""
    command = [
        sys.executable, '-m', 'tfrecords_tools.write', f'--input={folder}',
        f'--output={output}/set', f'--fps={FPS}',
        f'--short_side={SHORT_SIDE}', f'--sample_rate={SAMPLE_RATE}', '--still_below=0',
        '--silent_below_db=-120',
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    most, done = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, most, done))
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    if status:
        raise RuntimeError(f'{" ".join(command)} ended with exit code {status}.')
    with open(f'{output}/set.report.csv', newline='') as file:
        if left_out := [line for line in csv.DictReader(file) if line['status'] != 'written']:
            raise RuntimeError(f'{len(left_out)} files were left out, the first: {left_out[0]}')
    return most[0]


def _watch(pid: int, most: list[float], done: threading.Event):
    while not done.wait(0.2):
        most[0] = max(most[0], _resident_mib(pid))


def _resident_mib(pid: int | str):
    """Memory of a process and its children."""
    try:
        with open(f'/proc/{pid}/statm') as file:
            pages = int(file.read().split()[1])
        with open(f'/proc/{pid}/task/{pid}/children') as file:
            children = file.read().split()
    except OSError:  # it has just ended
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20 + sum(_resident_mib(child)
                                                            for child in children)


def run_ffmpeg(folder: str, output: str) -> None:
    """Decodes the files of a folder with ffmpeg."""
    def decode(name: str) -> None:
        target = os.path.join(output, name)
        os.makedirs(target)
        # The longer side is rounded to a whole pixel; -q:v 2 is about quality 90.
        short = f'min({SHORT_SIDE},iw)', f'min({SHORT_SIDE},ih)'
        scale = f"scale='if(gt(iw,ih),-1,{short[0]})':'if(gt(iw,ih),{short[1]},-1)'"
        subprocess.run([
            'ffmpeg', '-v', 'error', '-nostdin', '-threads', '1', '-i', os.path.join(folder, name),
            '-filter_threads', '1', '-vf', f'fps={FPS},{scale}', '-threads', '1', '-q:v', '2',
            os.path.join(target, '%05d.jpg'),
            '-ac', '1', '-ar', str(SAMPLE_RATE), os.path.join(target, 'sound.wav'),
        ], check=True, stderr=subprocess.DEVNULL)

    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(decode, sorted(os.listdir(folder))))


def compare(folder: str, count: int, rounds: int) -> dict:
    """Clips per second of both sides, in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        outputs = (os.path.join(scratch, str(number)) for number in itertools.count())
        seconds = side_by_side.time_in_turns({
            'writer': lambda: run_writer(folder, next(outputs)),
            'ffmpeg': lambda: run_ffmpeg(folder, next(outputs)),
        }, rounds)
    rates = {side: [count / value for value in values] for side, values in seconds.items()}
    return {
        'files': count, **{f'{side}_clips_per_second': side_by_side.summary(found) for side,
                           found in rates.items()},
        'ratio': side_by_side.ratio(rates['writer'], rates['ffmpeg']),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', help='folder of short videos; without it only those are '
                                        'measured that are made here')
    parser.add_argument('--copies', type=int, default=2, help='how often each file of --input is '
                                                              'taken')
    parser.add_argument('--large', type=int, default=6, help='files of 1280 x 720 to make; 0 '
                                                             'leaves them out')
    parser.add_argument('--large_copies', type=int, default=20,
                        help='how often each of them is taken')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--memory', action='store_true', help='measure memory with one and ten '
                                                              'times the files')
    parser.add_argument('--json', default='writer.json')
    values = parser.parse_args()

    results = {'fps': FPS, 'short_side': SHORT_SIDE, 'sample_rate': SAMPLE_RATE,
               'rounds': values.rounds}
    with tempfile.TemporaryDirectory() as scratch:
        inputs = {}
        if values.input:
            files = [entry.path
                     for entry in sorted(os.scandir(values.input), key=lambda entry: entry.name)
                     if entry.is_file()]
            inputs['short'] = files, values.copies
        if values.large:
            inputs['large'] = make_large(scratch, values.large), values.large_copies
        for name, (files, copies) in inputs.items():
            folder = os.path.join(scratch, name)
            found = compare(folder, link_files(folder, files, copies), values.rounds)
            results[name] = found
            ours, theirs = (found[f'{side}_clips_per_second']['median']
                            for side in ('writer', 'ffmpeg'))
            print(f'{name}: {found["files"]} files; writer {ours:.2f} clips/s, ffmpeg {theirs:.2f} '
                  f'clips/s, ratio {found["ratio"]:.2f}', flush=True)
        if values.memory:
            files = next(iter(inputs.values()))[0][:100]
            for copies in (1, 10):
                folder = os.path.join(scratch, f'memory-{copies}')
                count = link_files(folder, files, copies)
                with tempfile.TemporaryDirectory() as output:
                    mib = run_writer(folder, output)
                results[f'memory_mib_{copies}x'] = {'files': count, 'mib': mib}
                print(f'memory with {count} files: {mib:.0f} MiB')
    side_by_side.write_json(values.json, results)


if __name__ == '__main__':
    main()
