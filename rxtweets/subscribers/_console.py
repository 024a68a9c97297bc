"""The console: a line for each batch."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import Any, TextIO

from rxtweets._core.subscriber import Subscriber
from rxtweets._messages.batch import Batch
from rxtweets.display._text import batch_line


class ConsoleSubscriber(Subscriber[Any]):
    """Prints every batch as one line: number, size, trigger, and as many texts as fit.

    Control characters in texts become spaces.

    Args:
        file: a text stream; by default standard output.
        width: columns of a line; by default those of the terminal, 120 without one.
    """

    def __init__(self, file: TextIO | None = None, *, width: int | None = None) -> None:
        super().__init__()
        self._file = file
        self._width = width
        self._batches = 0
        self._alone = threading.Lock()

    def on_next(self, batch: Batch[Any]) -> None:
        """Print the batch."""
        width = self._width or shutil.get_terminal_size((120, 24)).columns
        with self._alone:  # several threads may deliver batches
            self._batches += 1
            file = self._file or sys.stdout
            encoding = getattr(file, "encoding", None) or "utf-8"
            line = batch_line(self._batches, batch, width)
            # A terminal may lack characters of the line.
            print(line.encode(encoding, "replace").decode(encoding), file=file, flush=True)
