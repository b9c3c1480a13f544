"""Fine-tuning an embedding model on a collection's own pairs."""
