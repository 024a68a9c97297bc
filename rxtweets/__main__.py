"""``python -m rxtweets`` is the command ``rxtweets``."""

import sys

from rxtweets.cli import main

sys.exit(main())
