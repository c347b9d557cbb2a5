"""The command ``ideogram``."""
