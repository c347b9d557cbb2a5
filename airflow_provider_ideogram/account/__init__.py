"""What all tasks of an account share: the rate limit, the budget and the spend, as small objects in S3."""
