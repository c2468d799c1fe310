"""What the processor can do."""

import functools


@functools.cache
def instructions(cpu_info: str = '/proc/cpuinfo') -> frozenset[str]:
    """What Linux calls the instruction sets of the processor; empty where that cannot be known.

    Args:
        cpu_info: file in which it describes the processors.
    """
    try:
        with open(cpu_info) as file:
            lines = file.read().splitlines()
    except OSError:
        return frozenset()
    # 'flags' on x86, 'Features' on ARM.
    sets = (line.partition(':')[2].split() for line in lines
            if line.startswith(('flags', 'Features')))
    return frozenset(next(sets, ()))
