"""scripts/vm: see --help there."""

from __future__ import annotations

import sys, os
import time

from tests.vm import image, machine
t=time.monotonic()
img = image.provide()
print("image", time.monotonic()-t, file=sys.stderr)
t=time.monotonic()
code = machine.run(img, sys.argv[1:], on_output=lambda b: os.write(1,b) and None, timeout_s=float(os.environ.get("T", 30)), environment={})
print("run", time.monotonic()-t, file=sys.stderr)
sys.exit(code)
