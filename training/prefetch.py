"""The next batch is made while the present one is learnt from."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from training.dataset import Batch, TrainingData


class Prefetcher:
    """Batches of the steps from ``first`` on, each made by one thread ahead of its use.

    A thread is enough: what makes a batch is NumPy, which lets go of the interpreter. Since a batch
    is a pure function of its step, looking ahead changes nothing but the time that it takes.
    """

    def __init__(self, data: TrainingData, first: int) -> None:
        self._data, self._first = data, first

    def __len__(self) -> int:
        return len(self._data) - self._first

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            coming = pool.submit(self._data.__getitem__, self._first)
            for step in range(self._first + 1, len(self._data) + 1):
                batch = coming.result()
                if step < len(self._data):
                    coming = pool.submit(self._data.__getitem__, step)
                yield batch
