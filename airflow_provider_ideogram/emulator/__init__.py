"""A local Segmind on a socket, for tests, demonstrations and measurements that cost nothing."""
