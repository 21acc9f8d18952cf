"""The RunPod front door: a serverless worker that makes videos for RunPod's queue."""
