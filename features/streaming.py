"""How far a live stream moves at a time.

A model step looks at a chunk of encoder frames and settles its first half; the second half is heard
again, as the beginning of the next chunk. So every frame was decided with at least half a chunk of
its future, and no frame waits longer than a chunk. The last step settles all that is left.
"""


def settled_frames(chunk_frames: int) -> int:
    """Encoder frames that a full chunk settles, and by which the next one begins later."""
    return chunk_frames - chunk_frames // 2
