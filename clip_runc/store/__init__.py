"""The chunk store: layer data on disk, fetched when it is read, verified before it is used.

What belongs here: the files of a layer, which chunk is where, who waits for what, which
ranges are asked for and when.  What does not: HTTP (``sources.Fetcher`` says what is needed
of it), the formats of layers and indexes (``index/``), FUSE.

::

    layer_store.ChunkStore     all layers; the worker pool; opens and closes readers
      reader.LayerReader       one layer: reads, single flight, deliveries
        chunk_states           the states of a chunk and the moves between them
        layer_files            the directory of a layer on disk
          data_file, record    its two files
        geometry, fetch_plan, readahead     pure: where chunks lie, what to ask for next
        sources                where compressed bytes come from
        stream_fill            layers that can only be read from their start
      workers, waiters, held, stats
"""

from __future__ import annotations

from clip_runc.store.layer_store import ChunkStore
from clip_runc.store.reader import LayerReader, Prefetch
from clip_runc.store.sources import Fetcher
from clip_runc.store.stats import Stats

__all__ = ["ChunkStore", "Fetcher", "LayerReader", "Prefetch", "Stats"]
