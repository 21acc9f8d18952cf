"""`python -m wanreel`."""

from wanreel.frontends.cli import main

main()
