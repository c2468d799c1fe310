"""What the writer says of each source and of the whole set: NAME.report.csv and NAME.json."""

import collections
import csv
import io
from collections.abc import Iterable
from typing import Any

from avts_tf import files
from avts_tf.data import datasets, media
from tfrecords_tools.plan import Plan, Recipe

REPORT_COLUMNS = (
    'path', 'start_seconds', 'end_seconds', 'status', 'reason', 'detail', 'seconds', 'frames',
    'source_fps', 'volume_db', 'motion',
)
_STATUS, _REASON = REPORT_COLUMNS.index('status'), REPORT_COLUMNS.index('reason')


def report_row(
    source: datasets.Source, status: str, reason: str, detail: str, seconds: float | None = None,
    frames: int | None = None, measured: tuple[float | None, ...] = (None, None, None),
) -> list:
    """One source's values of `REPORT_COLUMNS`; `measured` has those of the last three."""
    return [
        source.data_path,
        datasets.seconds_text(source.start_seconds) if source.start_seconds else '',
        '' if source.end_seconds is None else datasets.seconds_text(source.end_seconds),
        status, reason, detail, '' if seconds is None else f'{seconds:.6f}',
        '' if frames is None else frames,
        *('' if value is None else f'{value:.3f}' for value in measured),
    ]


def seconds_of(recipe: Recipe, frames: int, samples: int) -> float:
    """Duration of so many frames, or of so many samples where there are no frames."""
    options = recipe.options
    return samples / options.sample_rate if options.audio_only else frames / options.fps


def summarize(plan: Plan, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What NAME.json holds, from the line of every source, in the order of the sources."""
    written = [(source, line) for source, line in zip(plan.sources, lines, strict=True)
               if line['row'][_STATUS] == 'written']
    labels = collections.Counter(source.label for source, _ in written)
    reasons = collections.Counter(line['row'][_REASON] for line in lines
                                  if line['row'][_STATUS] == 'skipped')
    frames, samples = (sum(line[key] for _, line in written) for key in ('frames', 'samples'))
    return {
        **plan.settings, 'records': len(written), 'shards': len(plan.shards), 'frames': frames,
        'samples': samples, 'duration_seconds': seconds_of(plan.recipe, frames, samples),
        'labels': {name: labels[name] for name in plan.recipe.labels},
        'skipped': {reason: reasons[reason] for reason in media.REASONS if reason in reasons},
        'plan': plan.digest,
    }


def as_csv(rows: Iterable[list]) -> str:
    """The report as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(REPORT_COLUMNS)
    writer.writerows([files.csv_cell(value) for value in row] for row in rows)
    # A message of the system may hold bytes of a file's name that are no UTF-8.
    return text.getvalue().encode('utf-8', 'backslashreplace').decode('utf-8')
