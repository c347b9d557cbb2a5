"""The review of images by people: its state in S3, its images, and the trigger that waits for its end."""
