"""A Keras model as a graph, and what is known of its layers."""
