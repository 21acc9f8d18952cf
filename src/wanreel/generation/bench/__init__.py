"""Measuring: how long each part of a request takes on this machine, and Diffusers' own parts beside it."""
