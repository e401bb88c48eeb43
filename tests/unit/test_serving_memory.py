"""A long-lived process stays small: what is free goes back, what is garbage is found early."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_COUNT = """
import gc
from collections import deque
from serving import memory

loaded = [[] for _ in range(400_000)]  # what a model, its libraries and the routes are
gc.collect()
{settle}
before = gc.get_stats()[2]["collections"]
recent = deque(maxlen=2_000)  # requests that outlive the young generations
for _ in range(150_000):
    cycle = []
    cycle.append(cycle)
    recent.append(cycle)
print(gc.get_stats()[2]["collections"] - before)
"""
_FREE = """
import asyncio
import psutil
from serving import memory

def resident_mb():
    return psutil.Process().memory_info().rss / 1e6

memory.share_arenas()
memory._EVERY_S = 0.0
held = [bytes(40_000) for _ in range(4_000)]
held = held[::100]  # what stays keeps the heap from shrinking by itself
before = resident_mb()

async def look():
    task = asyncio.create_task(memory.give_back())
    while resident_mb() > before - 100:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

asyncio.run(look())
print("given back")
"""


def told(program: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_cycles_are_found_early_although_much_is_loaded() -> None:
    neglected = int(told(_COUNT.format(settle="")))
    settled = int(told(_COUNT.format(settle="memory.settle()")))
    assert neglected == 0 and settled >= 1


def test_what_is_free_goes_back_to_the_system() -> None:
    assert told(_FREE) == "given back"
