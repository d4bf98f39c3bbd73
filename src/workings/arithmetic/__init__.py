"""Problems, chains of written steps and answers: everything that is arithmetic and needs no tensors."""
