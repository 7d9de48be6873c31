"""`python -m sandbox.daemon`."""

import sys

from sandbox.daemon.main import main

sys.exit(main())
