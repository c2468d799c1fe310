"""Progress without a terminal: lines, and nothing about what is done at once."""

import subprocess
import sys

import pytest

from avts_tf import progress
from tests.helpers import PATIENCE_SECONDS

COUNT = '''
import time
from avts_tf import progress
progress.QUIET_SECONDS = {quiet}
for _ in progress.bar(range(6), 'counting', {quiet}, unit='thing'):
    time.sleep(0.1)
'''


def _count(quiet):
    process = subprocess.run([sys.executable, '-c', COUNT.format(quiet=quiet)], capture_output=True, text=True, check=True,
                             timeout=PATIENCE_SECONDS)
    return process.stderr


def test_without_a_terminal_lines_tell_the_progress():
    lines = _count(0.15).splitlines()
    assert 1 <= len(lines) <= 4                             # not one for each thing
    assert all(line.startswith('counting:') and '/6' in line for line in lines)


def test_what_is_soon_done_says_nothing():
    assert _count(100.0) == ''


@pytest.mark.parametrize(('seconds', 'words'), [
    (0, '0.0 s'), (3.21, '3.2 s'), (59.97, '1 min 0.0 s'), (160, '2 min 40.0 s'), (3599.96, '1 h 0 min'), (3725, '1 h 2 min'),
])
def test_durations_for_people(seconds, words):
    assert progress.duration(seconds) == words
