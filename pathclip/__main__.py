"""`python -m pathclip` is the `pathclip` command."""

import sys

from pathclip.cli import main

sys.exit(main())
