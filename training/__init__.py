"""How the demo model is trained: a procedural world, four stages, and the evaluation. Not part of the wheel.

Run `python -m training --help` to train and `python -m training.evaluation --help` to measure.
Training knows nothing of the `wanreel` package: it writes Diffusers folders and safetensors files, which Wanreel reads.
The evaluation asks Wanreel itself for its clips.
"""
