"""``python -m foal`` is ``foal``."""

import sys

from foal import main

sys.exit(main())
