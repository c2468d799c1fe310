"""Progress without a terminal: lines, and nothing about work that is soon done."""

import time

import pytest

from avts_tf import progress


def count(quiet_seconds, monkeypatch, capsys):
    """The lines about work of 0.6 s."""
    monkeypatch.setattr(progress, 'QUIET_SECONDS', quiet_seconds)
    for _ in progress.bar(range(6), 'counting', quiet_seconds, unit='thing'):
        time.sleep(0.1)
    return capsys.readouterr().err.splitlines()


def test_without_a_terminal_lines_show_the_progress(monkeypatch, capsys):
    lines = count(0.15, monkeypatch, capsys)
    assert 1 <= len(lines) <= 4  # not one for each thing
    assert all(line.startswith('counting:') and '/6' in line for line in lines)


def test_lines_beside_another_bar_hold_no_control_characters(monkeypatch, capsys):
    other = progress.bar(None, 'other', 0.15, total=2)
    lines = count(0.15, monkeypatch, capsys)
    other.close()
    assert lines and all(line.startswith('counting:') for line in lines)


def test_work_that_is_soon_done_shows_nothing(monkeypatch, capsys):
    assert count(100.0, monkeypatch, capsys) == []


@pytest.mark.parametrize(('seconds', 'words'), [
    (0, '0.0 s'), (3.21, '3.2 s'), (59.97, '1 min 0.0 s'), (160, '2 min 40.0 s'),
    (3599.96, '1 h 0 min'), (3725, '1 h 2 min'),
])
def test_durations_for_people(seconds, words):
    assert progress.duration(seconds) == words
