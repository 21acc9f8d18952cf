"""The entry that RunPod's hub looks for: the same as `wanreel runpod`."""

import sys

from wanreel.frontends.cli import main

main(["runpod", *sys.argv[1:]])
