"""The command line."""

from wanreel.frontends.cli.app import main

__all__ = ["main"]
