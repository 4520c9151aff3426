"""The garbage collector of a long-running process: told to look seldom, because there is next to nothing to find.

A batch makes and drops some hundred thousand small objects, all of which reference counting frees; with the default
thresholds the collector walks the living ones hundreds of times meanwhile. In one thread, all handlers in turn, looking
seldom took a quarter of the CPU off; end to end the gain was within the noise of a busy machine (`scripts/bench`).
"""

import gc

# So many more objects made than freed before the youngest generation is looked at; 700 by default.
_ALLOCATIONS = 100_000
_GENERATIONS = 20


def collect_garbage_seldom() -> None:
    """Call once, when the modules are imported: what lives now is taken out of every later look."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, _GENERATIONS, _GENERATIONS)
