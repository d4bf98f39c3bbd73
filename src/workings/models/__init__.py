"""Models that think before they answer: the shared engine, the families built on it, and how they are loaded and saved."""
