"""`python -m agent`: the same as the console script `parhelia-agent`."""

import sys

from agent.cli.main import main

sys.exit(main())
