"""``python -m toyguide``."""

import sys

from toyguide.cli import main

sys.exit(main())
