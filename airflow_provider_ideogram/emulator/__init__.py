"""A local server that implements Segmind's API. It draws its own images and costs nothing."""
