"""``python -m rxtweets`` is the command ``rxtweets``."""

import sys

from _rxtweets_command import main

sys.exit(main())
